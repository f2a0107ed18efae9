"""Cost along a video as a picture: the numbers are those of the file, and a wrong file is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.plots.growth import growth
from eval.plots.plot import NoPlotError
from irope.cli.measure import measurement
from irope.errors import UserError

DEVICE = {"device": {"name": "a machine", "type": "cpu"}}
CPU: dict[str, Any] = {
    "kind": "bench_cpu", "model": "tiny/stable", "policy": "rolling", "repeats": 3, "environment": DEVICE,
    "curve": {"seconds": [1.0, 2.0], "cpu_ms": [40.0, 41.0], "resident": [2.0**28, 2.0**28]},
    "lengths": [{"seconds": 240.0, "slope": -0.25}], "resident_growth": 2.0**19, "notes": ["the machine was busy"],
}  # fmt: skip
GPU: dict[str, Any] = {
    "kind": "bench_gpu", "small": False, "environment": DEVICE,
    "parts": {"long": {"per_block_ms": [9.0, 5.0, 6.0], "blocks": 2, "drift_percent": 0.5,
                       "peak_bytes": {"2": 123456, "3": 123456}}},
}  # fmt: skip


def saved(tmp_path: Path, report: object) -> Path:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(report))
    return path


def texts(path: Path) -> str:
    figure = growth(path).figure
    found = " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))
    return " ".join(found.split())  # lines are broken to fit


def test_cpu(tmp_path: Path) -> None:
    path = saved(tmp_path, CPU)
    plot = growth(path)
    assert plot.data.to_dict("list") == {"seconds": [1, 2], "block_ms": [40, 41], "bytes": [2**28, 2**28]}
    cost, memory = plot.figure.axes
    assert list(cost.lines[0].get_ydata()) == [40, 41]
    assert list(memory.lines[0].get_ydata()) == [256, 256]
    assert cost.get_ylim()[0] == memory.get_ylim()[0] == 0
    said = texts(path)
    for expected in (
        "the embedded model",
        "rolling",
        "median, 40.5 ms",
        "-0.25 %",
        "+0.50 MiB",
        "the machine was busy",
    ):
        assert expected in said
    assert measurement([str(path)]) == ("growth", path)
    aged = {"median": 1.0012, "p10": 0.9, "p90": 1.1, "n": 120}
    said = texts(saved(tmp_path, CPU | {"aged": aged}))
    assert "after 240 s a block costs 1.001 times one of a video just begun (by turns, n = 120)" in said
    assert "Theil-Sen" not in said


def test_gpu_leaves_the_warm_up_out(tmp_path: Path) -> None:
    path = saved(tmp_path, GPU)
    assert growth(path).data.to_dict("list") == {"seconds": [1.125, 1.875], "block_ms": [5, 6]}
    assert "random weights of the 1.3B model" in texts(path)
    assert "123,456 at block 3" in texts(path)
    rehearsal = saved(tmp_path, GPU | {"small": True})
    assert "1.3B" not in texts(rehearsal)


@pytest.mark.parametrize(
    ("report", "message"),
    [({}, "no cost along a video"), ({"kind": "bench_cpu"}, "older version"),
     ({"kind": "bench_gpu", "parts": {}}, "part 'long' was not measured")],
)  # fmt: skip
def test_wrong_files_are_named(tmp_path: Path, report: dict[str, Any], message: str) -> None:
    with pytest.raises(NoPlotError, match=message):
        growth(saved(tmp_path, report))


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(NoPlotError, match="cannot be read"):
        growth(tmp_path / "x.json")
    with pytest.raises(UserError, match="cannot be read"):
        measurement([str(tmp_path / "x.json")])
    assert measurement([str(saved(tmp_path, {"rows": []}))]) == ("latency", tmp_path / "bench.json")
