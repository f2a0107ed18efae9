"""``irope bench``: each measurement writes what its help promises, and ``irope plot`` draws it."""

import json
from pathlib import Path

import pytest

from irope.cli.main import main


def drawn(path: Path) -> list[str]:
    folder = path.parent / "plots"
    assert main(["plot", str(path), "--out", str(folder), "--format", "svg"]) == 0
    return sorted(file.name for file in folder.iterdir())


def test_switch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "switch.json"
    assert main(["bench", "switch", "--windows", "3", "6", "9", "--repeats", "1", "--out", str(path)]) == 0
    report = json.loads(path.read_text())
    flush = [row for row in report["rows"] if row["method"] == "flush"]
    assert [(row["bytes_written"], row["bytes_moved"], row["forwards"]) for row in flush] == [(0, 0, 0)] * 3
    assert {"a_ms", "b_ms", "r2"} <= report["fit"]["cpu"].keys()
    assert path.with_suffix(".md").read_text() in capsys.readouterr().out
    assert drawn(path) == ["latency.csv", "latency.svg", "plots.md"]


@pytest.mark.parametrize("what", ["cpu", "growth"])
def test_cost_along_a_video(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "growth.json"
    assert main(["bench", what, "--seconds", "5", "--repeats", "1", "--out", str(path)]) == 0
    assert f"draw it: irope plot {path}" in capsys.readouterr().out
    report = json.loads(path.read_text())
    assert len(report["curve"]["cpu_ms"]) == 7
    assert f"| latent frames/s | {report['latents_per_second']:.1f} |" in path.with_suffix(".md").read_text()
    assert drawn(path) == ["growth.csv", "growth.svg", "plots.md"]


def test_gpu_has_options_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["bench", "gpu", "--help"])
    assert "--parts" in capsys.readouterr().out


def test_wrong_windows_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "switch", "--windows", "2", "--repeats", "1"]) == 2
    assert "window" in capsys.readouterr().err
