"""Loops: the video returns to an earlier stretch of itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.curves import frames_of, jumps
from eval.registry import register_scorer
from eval.scorer import Accumulator, Measurement, Part, Runtime, Scorer, Skip, Take
from eval.scorers.long.thumbnails import grey_rows

Float = NDArray[np.float32]

_STEP = 0.25
"""Seconds between the frames that stand for a stretch; lags are searched frame by frame."""
_STILL = 8.0
"""A stretch whose thumbnails vary less than this over time (grey levels squared) does not move: it cannot repeat."""


@dataclass(frozen=True)
class _Thumbnails(Scorer):
    family = "long"
    source: ClassVar[str] = "ours"


class Kept:
    """All thumbnails of a take, 256 bytes a frame (14.7 MB for an hour at 16 frames/s)."""

    def __init__(self, take: Take) -> None:
        self.take = take
        self.thumbnails = np.zeros((take.frames, 0), np.uint8)

    def push(self, part: Part) -> None:
        rows = grey_rows(part)
        if part.start == 0:
            self.thumbnails = np.zeros((self.take.frames, rows.shape[1]), np.uint8)
        self.thumbnails[part.start : part.start + len(rows)] = rows


@register_scorer("loops")
@dataclass(frozen=True)
class Loops(_Thumbnails):
    """Share of frames in a stretch of at least a second that repeats an earlier one; ``lag_seconds`` says how much.

    Stretches are compared as 16 x 16 thumbnails of equal mean brightness. With E the mean squared difference of a
    stretch from the one ``lag`` before it, and V the variance of the stretch over its own time, it repeats where
    1 - E/V >= ``match``: its motion, not its background, must come back. Before that it must have been elsewhere
    (1 - E/V < 0 at some shorter lag), so that a still picture repeats nothing.

    Motion in a circle repeats as well and is no loop. What tells them apart: the return was abrupt (the stretch is
    entered by a jump, as at the seam of a looped clip or a fall back to the sink frames), or the lag is longer than
    ``action_seconds``, the repetition lasts for three stretches, and it is not periodic at any shorter lag (1 - E/V <
    ``weak`` there). A seamless loop shorter than that is not found: nothing in the pixels tells it from a periodic
    action. Of the embedded world, 320 clips of all actions gave no false alarm, and of 240 looped clips, whose seam is
    often hidden by the periodic action, 89 % were found with their share and lag.

    For an hour at 16 frames/s the comparison takes about 110 MB and 8 s of one core (for 240 s: 0.1 s).

    Attributes:
        seconds: length of a stretch.
        action_seconds: the longest period that an action may have.
        match, weak: see above.
    """

    seconds: float = 1.0
    action_seconds: float = 6.0
    match: float = 0.9
    weak: float = 0.5
    title: ClassVar[str] = "Looped"
    better = "lower"

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        if take.frames < 2 * frames_of(self.seconds, take.video.fps) + 1:
            raise Skip(f"a stretch of {self.seconds:g} s and its repetition do not fit into the video")
        return _Loops(take, self)


class _Loops(Kept):
    def __init__(self, take: Take, scorer: Loops) -> None:
        super().__init__(take)
        self.scorer = scorer

    def close(self) -> Measurement:
        fps = self.take.video.fps
        thumbnails = self.thumbnails
        looped = np.zeros(len(thumbnails), bool)
        votes = np.zeros(len(thumbnails), np.int64)
        for found in repeats(thumbnails, fps, self.scorer):
            looped[found.start : found.stop] = True
            votes[found.lag] += 1
        extra = {}
        if looped.any():
            extra = {"lag_seconds": int(votes.argmax()) / fps, "first_seconds": int(looped.argmax()) / fps}
        return Measurement(float(looped.mean()), len(looped), looped.astype(np.float64), extra)


class Repeat(NamedTuple):
    """Frames [start, stop) repeat those ``lag`` frames before."""

    start: int
    stop: int
    lag: int


def repeats(thumbnails: NDArray[np.uint8], fps: float, scorer: Loops) -> Iterator[Repeat]:
    """Stretches that are a loop, in order; they overlap. Of several lags the one with the greatest likeness."""
    size, step = frames_of(scorer.seconds, fps), frames_of(_STEP, fps)
    samples = max(2, round(size / step))
    longest_action = frames_of(scorer.action_seconds, fps)
    frames = len(thumbnails)
    steps = np.zeros(frames)
    for at in range(1, frames):
        steps[at] = np.abs(np.subtract(thumbnails[at], thumbnails[at - 1], dtype=np.int16)).mean()
    jumped = np.zeros(frames, bool)
    jumped[jumps(steps, near=step, reach=6 * step, ratio=2.0, floor=2.0)] = True
    # Equal mean brightness: a scene that gets lighter and darker does not hide its period.
    level = thumbnails.astype(np.float32)
    level *= 128 / np.maximum(level.mean(axis=1, keepdims=True), 1)
    level -= 128

    # By lag: frame at which the latest repetition with it began and was last seen, and whether it began with a jump.
    began, seen = np.zeros(frames, np.int64), np.full(frames, -frames)
    abrupt = np.zeros(frames, bool)
    for start, unlike, variance in _stretches(level, step, samples):
        alike = 1 - unlike / max(variance, 1e-9)  # [start + 1], by lag
        elsewhere = np.flatnonzero(alike < 0)
        if variance < _STILL or not len(elsewhere):
            continue
        alike[: elsewhere[0]] = -1
        repeated = np.flatnonzero(alike[size:] >= scorer.match) + size
        on = start - seen[: start + 1] <= 2 * size  # a single odd frame does not end a repetition
        new = repeated[~on[repeated]]
        began[new] = start
        # A jump that leaves an action going on, such as a change of light, begins nothing.
        abrupt[new] = jumped[max(0, start - step + 1) : start + 1].any() and not (alike[on] >= scorer.match).any()
        seen[repeated] = start
        periodic = bool((alike[1:longest_action] >= scorer.weak).any())
        lasting = start - began[repeated] >= 2 * size
        loops = repeated[abrupt[repeated] | ((repeated >= longest_action) & lasting & (not periodic))]
        if len(loops):
            yield Repeat(
                start if abrupt[loops].any() else int(began[loops].max()),
                start + size,
                int(loops[alike[loops].argmax()]),
            )


def _stretches(level: Float, step: int, samples: int) -> Iterator[tuple[int, Float, float]]:
    """(first frame, mean squared difference from the stretch at every lag, variance over time)."""
    energy = np.einsum("fc,fc->f", level, level) / level.shape[1]
    latest: deque[Float] = deque(maxlen=samples)
    queries = np.arange(0, len(level), step)
    for block in range(0, len(queries), 64):  # a product of matrices: many queries at a time
        at = queries[block : block + 64]
        product = level[at] @ level[: at[-1] + 1].T / level.shape[1]
        for row, frame in enumerate(at):
            back = slice(frame, None, -1)
            latest.append(energy[frame] + energy[back] - 2 * product[row, back])
            if len(latest) == samples:
                first = block + row - samples + 1
                start = int(queries[first])
                own = level[queries[first : first + samples]]
                unlike = np.mean([differences[: start + 1] for differences in latest], axis=0)
                yield start, unlike, float(own.var(axis=0).mean())


@register_scorer("no_repeat")
@dataclass(frozen=True)
class NoRepeat(_Thumbnails):
    """How much the video differs from its own beginning where it comes back closest to it; 0 repeats it exactly.

    Among the frames from ``seconds`` on, the one closest (L2) to the first frame starts the suspected repetition; the
    value is the mean distance of the frames from there on to the frames from the beginning on. RIFLEx measures so
    around the period it computes from the position embedding and calls a video non-repetitive above 100, an L2 norm
    that depends on the resolution. Here the whole video is searched (as LoL does), and the distance is the root mean
    square over 16 x 16 luma thumbnails, 0..1. ``lag_seconds`` is where the suspected repetition starts. A periodic
    action and a still video repeat: read it beside `loops` and motion.
    """

    seconds: float = 5.0
    title: ClassVar[str] = "No repeat"
    source: ClassVar[str] = "NoRepeat score of RIFLEx (arXiv 2502.15894), appendix D; on thumbnails"

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        if take.frames < frames_of(self.seconds, take.video.fps) + frames_of(1.0, take.video.fps):
            raise Skip(f"it needs {self.seconds + 1:g} s, the video has {take.frames / take.video.fps:.2f} s")
        return _NoRepeat(take, self.seconds)


class _NoRepeat(Kept):
    def __init__(self, take: Take, seconds: float) -> None:
        super().__init__(take)
        self.after = frames_of(seconds, take.video.fps)

    def close(self) -> Measurement:
        fps = self.take.video.fps
        thumbnails = self.thumbnails
        candidates = slice(self.after, len(thumbnails) - frames_of(1.0, fps) + 1)  # a second of it must be seen
        start = self.after + int(_distances(thumbnails[candidates], thumbnails[0]).argmin())
        count = min(start, len(thumbnails) - start)
        distances = _distances(thumbnails[start : start + count], thumbnails[:count])
        return Measurement(float(distances.mean()), count, extra={"lag_seconds": start / fps})


def _distances(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Root mean square differences of thumbnails, 0..1."""
    return np.sqrt(np.square(a.astype(np.float32) - b).mean(axis=1, dtype=np.float64)) / 255
