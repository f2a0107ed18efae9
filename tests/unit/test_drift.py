"""Curves over frames, and drift measured on them."""

from itertools import combinations

import numpy as np
import pytest

from eval.curves import first_and_last, jumps, runs, slopes, window_means
from eval.registry import make_scorer
from eval.scorer import Measurement, Skip, Take, VideoFacts
from tests.long_measures_kit import FPS, clip, derived, skipped

# Curves


def test_windows_ignore_frames_without_a_value_and_an_incomplete_rest():
    curve = np.array([np.nan, 2.0, 4.0, 6.0, np.nan, np.nan, 9.0])
    np.testing.assert_array_equal(window_means(curve, 2), [2.0, 5.0, np.nan])
    assert first_and_last(curve, 2) == (2.0, 9.0)


def test_slopes_are_the_median_of_all_pairs_and_the_regression_line():
    rng = np.random.default_rng(3)
    curve = 0.7 - 0.05 * np.arange(16 * 60) / (16 * 60) + rng.normal(0, 0.01, 16 * 60)
    curve[100:180] += 2  # one window that is far off
    robust, least_squares = slopes(curve, 80, FPS)
    minutes, means = np.arange(12) * 5 / 60, curve.reshape(12, 80).mean(1)
    pairs = [(means[b] - means[a]) / (minutes[b] - minutes[a]) for a, b in combinations(range(12), 2)]
    assert robust == pytest.approx(np.median(pairs), abs=1e-9)
    assert least_squares == pytest.approx(np.polyfit(minutes, means, 1)[0], abs=1e-9)
    assert abs(robust + 0.05) < 0.02 < abs(least_squares + 0.05)


def test_a_jump_is_one_large_step_and_fast_motion_has_many():
    steps = np.full(100, 2.0)
    assert jumps(steps, 4, 12, 3, 4) == []
    steps[[30, 31]] = [20, 30]  # spread over two frames: once
    steps[70] = 5.9  # not three times the others
    assert jumps(steps, 4, 12, 3, 4) == [31]
    assert jumps(np.where(np.arange(100) % 3, 0.0, 30.0), 4, 12, 3, 4) == []


def test_runs():
    assert runs(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert runs(np.zeros(3, bool)) == []


# Drift


def test_drift_is_last_five_seconds_against_first():
    curve = np.concatenate([np.full(80, 0.8), np.linspace(0, 1, 300), np.full(80, 0.55)])
    found = derived("imaging_drift", curve)
    assert found.value == pytest.approx(0.25)
    assert found.extra == pytest.approx({"first": 0.8, "last": 0.55})
    assert derived("imaging_drift", curve[::-1]).value == pytest.approx(0.25)


def test_slope_is_signed_and_per_minute():
    assert derived("imaging_slope", 0.9 - 0.12 * np.arange(960) / 960).value == pytest.approx(-0.12)


def test_spread_is_over_two_second_windows():
    levels = np.random.default_rng(0).normal(0.6, 0.05, 30)
    found = derived("imaging_spread", np.concatenate([np.repeat(levels, 32), np.full(31, 9.0)]))
    assert found.value == pytest.approx(np.std(levels))
    assert found.extra["sample"] == pytest.approx(np.std(levels, ddof=1))
    assert found.extra["windows"] == 30


@pytest.mark.parametrize(("name", "shortest"), [("imaging_drift", 160), ("imaging_slope", 160), ("imaging_spread", 64)])
def test_drift_of_a_short_video_is_skipped(name, shortest):
    assert derived(name, np.ones(shortest)).value == 0
    with pytest.raises(Skip, match="two windows"):
        derived(name, np.ones(shortest - 1))


def test_drift_needs_the_scorer_it_is_made_of():
    frames = clip(200)
    assert "imaging_quality" in skipped("imaging_drift", frames)
    no_curve = Measurement(0.5)
    take = Take(VideoFacts("v", 200, FPS, 8, 8), 0, 200)
    with pytest.raises(Skip, match="each frame"):
        make_scorer("imaging_drift", {"of_score": "imaging"}).derive(take, {"imaging": no_curve})
