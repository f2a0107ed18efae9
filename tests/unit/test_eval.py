"""Scores of the embedded world on videos whose content is known, and the spread of a few numbers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from eval.scorer import Span
from eval.summary import FEWEST, cell, spread
from eval.world import score_video, windows
from irope.world import render, sample_staging
from irope.world.scene import parse_prompt

LEFT = "a red circle moving left over a navy plain background"
STILL = "a green square standing still over a gray plain background"


def clip(prompt: str, frames: int) -> np.ndarray:
    return render(parse_prompt(prompt), sample_staging(np.random.default_rng(1)), frames)[0]


def test_a_true_video_scores_full_and_another_prompt_does_not() -> None:
    video = np.concatenate([clip(LEFT, 160), clip(STILL, 160)])
    true = score_video(video, [Span(0, 160, LEFT), Span(160, 320, STILL)], fps=16)
    for name in ("visible", "color", "background", "motion", "shape"):
        assert getattr(true, name) > 0.97, name
    swapped = score_video(video, [Span(0, 160, STILL), Span(160, 320, LEFT)], fps=16)
    assert max(swapped.color, swapped.background, swapped.motion) < 0.05
    half = score_video(video, [Span(0, 160, LEFT), Span(160, 320, LEFT)], fps=16)
    assert half.color == pytest.approx(0.5, abs=0.03)


def test_a_frozen_video_keeps_its_looks_and_loses_its_motion() -> None:
    frozen = np.repeat(clip(LEFT, 20)[-1:], 160, axis=0)
    score = score_video(frozen, [Span(0, 160, LEFT)], fps=16)
    assert score.color == 1
    assert score.motion == 0


def test_an_empty_picture_is_not_standing_still() -> None:
    empty = np.zeros((80, 64, 64, 3), np.uint8)
    score = score_video(empty, [Span(0, 80, STILL)], fps=16)
    assert score.visible == score.motion == score.color == 0


def test_windows_cover_every_frame_once() -> None:
    cut = windows([Span(0, 317, "a"), Span(317, 345, "b"), Span(345, 957, "c")], fps=16)
    assert [cut[0].start, cut[-1].stop] == [0, 957]
    assert all(a.stop == b.start for a, b in pairwise(cut))
    assert {w.prompt for w in cut} == {"a", "b", "c"}
    assert all(28 <= w.stop - w.start <= 120 for w in cut)


def test_few_values_show_their_range_and_many_a_bootstrap_interval() -> None:
    assert spread([0.2, 0.4, 0.9]) == pytest.approx((0.5, 0.2, 0.9))
    values = np.random.default_rng(3).normal(0.5, 0.1, 40)
    mean, low, high = spread(values.tolist())
    scipy = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=9999, random_state=1
    ).confidence_interval
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((scipy.low, scipy.high), abs=0.003)
    assert len(values) >= FEWEST


def test_missing_values_are_left_out_and_nothing_is_a_dash() -> None:
    assert spread([0.5, float("nan")])[0] == 0.5
    assert cell([float("nan")]) == cell([]) == "–"
    assert cell([0.25, 0.75]) == "0.50 (0.25–0.75)"
