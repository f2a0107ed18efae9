"""Motion smoothness against the stock package, and the network in batches against one pair at a time."""

from __future__ import annotations

import numpy as np
import pytest

from eval.scorer import Runtime, Skip
from eval.vbench import amt
from eval.vbench.packages import VBenchError
from eval.vbench.stock import stock_scores
from tests.vbench.conftest import moving, noise, static, write_mp4
from tests.vbench.kit import measured, outcomes

CLIPS = {
    "landscape": moving(6, 128, 176),  # the last odd frame has no right neighbour
    "portrait": moving(5, 144, 113, seed=1),
    "odd": moving(3, 121, 131, seed=2, step=5),
    "static": static(3, 128, 128),
    "noise": noise(3, 128, 128),
}


@pytest.fixture(scope="module", autouse=True)
def _weights(weights):
    weights("motion_smoothness")


def test_the_same_numbers_as_the_stock_package(tmp_path):
    paths = {name: write_mp4(tmp_path / f"{name}.mp4", clip) for name, clip in CLIPS.items()}
    stock = stock_scores(list(paths.values()), ["motion_smoothness"])["motion_smoothness"].videos
    ours = {name: measured("motion_smoothness", clip) for name, clip in CLIPS.items()}
    for name, path in paths.items():
        assert ours[name].value == pytest.approx(stock[path], abs=1e-6), name
    assert len({round(value, 4) for value in stock.values()}) == len(CLIPS)
    assert ours["landscape"].terms == 2
    assert np.isnan(ours["landscape"].curve[[0, 2, 4, 5]]).all()
    assert ours["landscape"].curve[[1, 3]].mean() == pytest.approx(ours["landscape"].value)


def test_neither_chunks_nor_batches_nor_what_follows_matter():
    clip = moving(9, 128, 128, seed=4)
    whole = measured("motion_smoothness", clip, chunk=9)
    for chunk in (1, 2, 5):
        assert measured("motion_smoothness", clip, chunk=chunk).value == pytest.approx(whole.value, abs=1e-6)
    single = measured("motion_smoothness", clip, chunk=9, runtime=Runtime(batch=1))
    np.testing.assert_allclose(single.curve, whole.curve, atol=1e-6)
    windows = [(0, 5), (0, 9), (3, 7)]
    for (start, stop), inside in zip(windows, outcomes("motion_smoothness", clip, windows), strict=True):
        assert inside.value == pytest.approx(measured("motion_smoothness", clip[start:stop]).value, abs=1e-6)
        assert inside.terms == (stop - start - 1) // 2


def test_windows_share_their_pairs(monkeypatch):
    asked = []
    compute = amt.Amt.errors
    monkeypatch.setattr(amt.Amt, "errors", lambda self, a, b, c, n: asked.append(len(b)) or compute(self, a, b, c, n))
    outcomes("motion_smoothness", static(9, 128, 128), [(0, 5), (0, 7), (0, 9)])
    assert sum(asked) == 4


def test_a_frame_between_two_is_needed_here_and_there(tmp_path):
    for frames in (1, 2):
        (outcome,) = outcomes("motion_smoothness", static(frames, 128, 128))
        assert isinstance(outcome, Skip)
    with pytest.raises(VBenchError, match="should be more than one"):
        stock_scores([write_mp4(tmp_path / "two.mp4", static(2, 128, 128))], ["motion_smoothness"])


def test_pictures_too_small_for_the_network_are_skipped():
    (outcome,) = outcomes("motion_smoothness", static(3, 112, 208))
    assert isinstance(outcome, Skip)
    assert "113 pixels" in str(outcome)
    network = amt.load(Runtime())
    least = moving(3, amt.LEAST_SIDE, amt.LEAST_SIDE)
    assert network.errors(least[:1], least[1:2], least[2:])[0] < 255
    small = moving(3, 112, 112)
    between = network._between(*(network._pixels(small[i : i + 1]).float() / 255 for i in (0, 2)))
    assert not between.any()  # what uint8 makes of NaN


def test_half_precision_stays_close():
    clip = CLIPS["portrait"]
    exact = measured("motion_smoothness", clip)
    half = measured("motion_smoothness", clip, runtime=Runtime(precision="half"))
    assert half.value != exact.value
    assert half.value == pytest.approx(exact.value, abs=1e-3)
