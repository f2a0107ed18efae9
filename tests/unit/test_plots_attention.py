"""Attention maps: the shares below a map, the picture, and files that are none."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from eval.plots.attention import attention, segment_shares
from eval.plots.plot import NoPlotError, save
from irope.attention_map import save_maps, shares

PANEL = {"label": "infinity_rope", "events": [[12, "switch"], [18, "cut"]], "block": 3, "sink": 1, "segments": []}


def made(frames: int = 24, window: int = 6) -> np.ndarray:
    """A map as a sink of 1 and a window of 6 give it, rows that sum to 1."""
    rng = np.random.default_rng(0)
    found = np.full((frames, frames), np.nan, dtype=np.float32)
    for t in range(frames):
        begin = t // 3 * 3
        columns = sorted({0, *range(max(0, begin + 3 - window), begin + 3)})
        weights = rng.random(len(columns))
        found[t, columns] = weights / weights.sum()
    return found


def written(path: Path, maps: np.ndarray, panels: list[dict[str, object]]) -> Path:
    info = {"panels": panels, "layer": 2, "step": 4, "model": "tiny/stable", "prompt": "a | b"}
    save_maps(path, maps, np.zeros(maps.shape[:2], np.float32), info)
    return path


def test_shares_of_a_segment_are_those_of_the_recorder():
    expected = shares(made(), sink=1, block=3, events=[(12, "switch"), (18, "cut")])
    for ours, theirs in zip(segment_shares(made(), PANEL), expected, strict=True):
        assert (ours["start"], ours["stop"]) == (theirs["start"], theirs["stop"])
        for part, name in (("sink", "sink"), ("past", "past"), ("own block", "own")):
            assert ours[part] == pytest.approx(theirs[name], abs=1e-4)
        assert ours["other"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("scale", ["log", "power"])
def test_the_picture_holds_the_map_and_its_events(tmp_path, count, scale):
    path = written(tmp_path / "maps.npz", np.stack([made()] * count), [PANEL] * count)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot = attention(path, scale=scale)
        plot.figure.draw_without_rendering()
    images = [axis.images[0] for axis in plot.figure.axes if axis.images]
    assert len(images) == count
    np.testing.assert_array_equal(np.ma.filled(images[0].get_array(), np.nan), made())
    assert len({image.norm for image in images}) == 1  # one scale for all
    reds = [line for line in images[0].axes.lines if line.get_color() == "#d64541"]
    assert {tuple(set(line.get_ydata())) for line in reds} >= {(17.5,)}
    assert len(plot.data) == count * np.isfinite(made()).sum()
    assert plot.data.groupby(["panel", "query"])["attention"].sum().to_numpy() == pytest.approx(count)
    said = " ".join(text.get_text() for axis in plot.figure.axes for text in axis.texts)
    assert "tiny/stable, the embedded model" in said.replace("\n", " ")


def test_the_same_file_gives_the_same_bytes(tmp_path):
    path = written(tmp_path / "maps.npz", made()[None], [PANEL])
    for folder in ("once", "twice"):
        save([attention(path)], tmp_path / folder)
    for name in ("attention.svg", "attention.png", "attention.csv"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_a_file_that_holds_no_maps_is_refused(tmp_path):
    (tmp_path / "no.npz").write_text("no")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "odd.npz", maps=np.zeros((2, 4, 4), np.float32), info=np.array(json.dumps({"panels": [PANEL]})))
    for name, why in (("no", "no attention maps"), ("other", "no attention maps"), ("odd", "for 1 panels")):
        with pytest.raises(NoPlotError, match=why):
            attention(tmp_path / f"{name}.npz")
    with pytest.raises(NoPlotError):
        attention(tmp_path / "absent.npz")
