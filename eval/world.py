"""Scores of the embedded world: what an exact pixel-space tracker says of a video, window by window.

These are the embedded model's own scores; they have nothing to do with VBench's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from irope.world.scene import parse_prompt
from irope.world.tracker import agreement, track

WINDOW = 5.0
"""Seconds of one scored window; a segment is cut into windows of this length, the last taking the rest."""


@dataclass(frozen=True)
class Span:
    """Pixel frames [start, stop) that were to show ``prompt``."""

    start: int
    stop: int
    prompt: str


@dataclass(frozen=True)
class WorldScore:
    """Means over the windows of a video, each 0..1; ``background`` is NaN when no prompt names one.

    ``motion`` is the share of windows whose action the tracker recognises as the prompt's.
    """

    visible: float
    color: float
    background: float
    motion: float
    shape: float
    iou: float


def windows(spans: Iterable[Span], fps: int) -> list[Span]:
    """Cut spans into windows of `WINDOW` seconds; a rest shorter than half a window joins the one before it."""
    size = round(WINDOW * fps)
    cut = []
    for span in spans:
        count = max(1, (span.stop - span.start + size // 2) // size)
        edges = [span.start + i * size for i in range(count)] + [span.stop]
        cut += [Span(a, b, span.prompt) for a, b in pairwise(edges)]
    return cut


def score_video(frames_FHWC: NDArray[np.uint8], spans: Iterable[Span], fps: int) -> WorldScore:
    """Score a whole video against the prompts of its segments.

    Raises:
        PromptError: a prompt is not one of the embedded world.
    """
    tracked = track(frames_FHWC)
    found = [agreement(tracked, parse_prompt(w.prompt), w.start, w.stop) for w in windows(spans, fps)]

    def mean(name: str) -> float:
        values = [getattr(score, name) for score in found if getattr(score, name) is not None]
        return float(np.mean(values)) if values else float("nan")

    return WorldScore(
        visible=mean("visible"),
        color=mean("color"),
        background=mean("background"),
        motion=mean("action"),
        shape=mean("shape"),
        iou=mean("iou"),
    )
