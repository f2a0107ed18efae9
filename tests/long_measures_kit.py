"""What the tests of long-video measures share: made sequences, and scoring by name."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from eval.one_pass import one_pass
from eval.registry import make_scorer
from eval.scorer import Derived, Measurement, Runtime, Skip, Span, Take, VideoFacts
from irope.world import Staging, render, sample_scene

FPS = 16
Frames = NDArray[np.uint8]
CHEAP = ("motion", "freeze", "loops", "no_repeat", "sink_collapse", "cut_sharpness", "unrequested_cuts")
FEATURED = ("first_window_consistency", "first_frame_consistency", "segment_alignment")


def score_all(names, frames: Frames, spans: Sequence[Span] = (), chunks: Sequence[int] = (), **values):
    """Outcomes by name; ``chunks`` are the borders between chunks."""
    video = VideoFacts("video", len(frames), FPS, *frames.shape[1:3], tuple(spans))
    edges = sorted({0, len(frames), *(chunks or range(32, len(frames), 32))})
    parts = [(a, frames[a:b]) for a, b in pairwise(edges)]
    chosen = {name: make_scorer(name, values) for name in names}
    return next(one_pass(parts, [Take(video, 0, len(frames))], chosen, Runtime())).outcomes


def score(name: str, frames: Frames, spans: Sequence[Span] = (), **values) -> Measurement:
    outcome = score_all([name], frames, spans, **values)[name]
    assert isinstance(outcome, Measurement), f"skipped: {outcome}"
    return outcome


def skipped(name: str, frames: Frames, spans: Sequence[Span] = (), **values) -> str:
    outcome = score_all([name], frames, spans, **values)[name]
    assert isinstance(outcome, Skip)
    return str(outcome)


def derived(name: str, curve, fps: float = FPS, **values) -> Measurement:
    scorer = make_scorer(name, {"of_score": "imaging", **values})
    assert isinstance(scorer, Derived)
    take = Take(VideoFacts("video", len(curve), fps, 8, 8), 0, len(curve))
    return scorer.derive(take, {"imaging": Measurement(0.0, curve=np.asarray(curve, np.float64))})


def clip(frames: int, seed: int = 0, action: str = "moving left") -> Frames:
    rng = np.random.default_rng(seed)
    return render(sample_scene(rng, action=action), Staging(), frames)[0]


def wander(frames: int, seed: int = 0, period: int | None = None) -> Frames:
    """A bright disc on a smooth path that repeats itself only after ``period`` frames."""
    rng = np.random.default_rng(seed)
    cycles = np.arange(1, 9) / period if period else np.sqrt([1, 2, 3, 5, 6, 7, 10, 11]) / 150
    waves = np.sin(2 * np.pi * (np.arange(frames)[:, None, None] * cycles[:, None] + rng.random((8, 2))))
    path = (waves * rng.normal(0, 9, (8, 2)) / np.sqrt(np.arange(1, 9))[:, None]).sum(1)
    row, column = np.mgrid[:64, :64]
    x, y = 32 + path[:, 0, None, None], 32 + path[:, 1, None, None]
    disc = np.clip(12.5 - np.hypot(column - x, row - y), 0, 1)[..., None]
    return np.asarray(40 + 40 * (column % 16 < 8)[None, ..., None] + disc * np.array([160, 60, 20]), np.uint8)
