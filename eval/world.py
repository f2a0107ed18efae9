"""Scores of the embedded world: what an exact pixel-space tracker says of a video, window by window.

These are the embedded model's own scores; they have nothing to do with VBench's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.scorer import Accumulator, Frames, Measurement, Part, Runtime, Scorer, Skip, Span, Take
from irope.world.render import SIZE
from irope.world.scene import COLORS, HUES, PATTERNS, SHAPES, PromptError, Scene, parse_prompt
from irope.world.tracker import Track, agreement, track

WINDOW = 5.0
"""Seconds of one scored window; a segment is cut into windows of this length, the last taking the rest."""

LABELS: dict[str, tuple[str, ...]] = {
    "color": tuple(COLORS),
    "shape": SHAPES,
    "background": tuple(HUES),
    "pattern": PATTERNS,
}
"""What the tracker tells of a single frame, with the names its labels count; the action needs a stretch."""


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


def windows(spans: Iterable[Span], fps: float) -> list[Span]:
    """Cut spans into windows of `WINDOW` seconds; a rest shorter than half a window joins the one before it."""
    size = round(WINDOW * fps)
    cut = []
    for span in spans:
        count = max(1, (span.stop - span.start + size // 2) // size)
        edges = [span.start + i * size for i in range(count)] + [span.stop]
        cut += [Span(a, b, span.prompt) for a, b in pairwise(edges)]
    return cut


def score_video(frames_FHWC: Frames, spans: Iterable[Span], fps: float) -> WorldScore:
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


def labels(tracked: Track, name: str) -> NDArray[np.int64]:
    """Label of each frame for one of `LABELS`, an index into its names; -1 where the subject is not to be seen."""
    found: NDArray[np.int64] = getattr(tracked, f"{name}_F")
    return np.where(tracked.visible_F, found, -1) if name in ("color", "shape") else found


def wanted(scene: Scene, name: str) -> int | None:
    """The label that a scene asks for, or None where it leaves it open."""
    word = getattr(scene, name)
    return None if word is None else LABELS[name].index(word)


@dataclass(frozen=True)
class WorldScorer(Scorer):
    """A measure of what the tracker saw in a take; `Skip` for videos that are not of the embedded world."""

    family = "world"

    @abstractmethod
    def measure(self, tracked: Track, take: Take, scenes: tuple[Scene, ...]) -> Measurement:
        """From all frames of the take; ``scenes`` are those of its spans. Raises Skip where it has no number."""

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        video = take.video
        if (video.height, video.width) != (SIZE, SIZE):
            raise Skip(f"the video is not of the embedded world: {video.width}x{video.height}, not {SIZE}x{SIZE}")
        if not take.spans:
            raise Skip("no prompt is known")
        try:
            scenes = tuple(parse_prompt(span.prompt) for span in take.spans)
        except PromptError as error:
            raise Skip(f"the video is not of the embedded world: {error}") from error
        return _Tracks(self, take, scenes)


class _Tracks:
    """Holds what the tracker says of each frame, 97 bytes a frame: an action is told from a stretch of them."""

    def __init__(self, scorer: WorldScorer, take: Take, scenes: tuple[Scene, ...]) -> None:
        self.scorer, self.take, self.scenes = scorer, take, scenes
        self.rows: list[NDArray[Any]] = []

    def push(self, part: Part) -> None:
        self.rows.append(part.rows(("world track",), _packed).copy())

    def close(self) -> Measurement:
        rows = np.concatenate(self.rows)
        return self.scorer.measure(Track(**{f.name: rows[f.name] for f in fields(Track)}), self.take, self.scenes)


def _packed(frames: Frames) -> NDArray[Any]:
    """A `Track` with one structured row a frame."""
    tracked = track(frames)
    columns = {f.name: getattr(tracked, f.name) for f in fields(Track)}
    rows = np.empty(len(frames), [(name, column.dtype, column.shape[1:]) for name, column in columns.items()])
    for name, column in columns.items():
        rows[name] = column
    return rows
