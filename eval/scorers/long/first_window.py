"""Consistency with the beginning, over time: does a long video still show what it started with?"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eval.curves import frames_of, mean
from eval.features import Kind, feature_rows, features_identity, features_missing
from eval.registry import register_scorer
from eval.scorer import Accumulator, Measurement, Part, Runtime, Scorer, Skip, Take

Unit = NDArray[np.float64]


@dataclass(frozen=True)
class _FromStart(Scorer):
    """Attributes:
    features: of EfficientNet-Lite0 (``lite0``), DINO ViT-B/16 (``dino``) or CLIP ViT-B/32 (``clip``).
    """

    features: Kind = "lite0"
    family = "long"

    def unavailable(self) -> str | None:
        return features_missing(self.features)

    def identity(self) -> Mapping[str, Any]:
        return features_identity(self.features)


@register_scorer("first_window_consistency")
@dataclass(frozen=True)
class FirstWindowConsistency(_FromStart):
    """Cosine of the mean feature of the last 5 s window and that of the first.

    Features of frames are brought to length 1 before they are averaged. Windows follow one another; an incomplete last
    one is left out. The curve holds each window's cosine at all of its frames (1 at the first window's, NaN after the
    last); ``mean`` is that over the later windows. Windows rather than frames: a subject on its way across the picture
    is not a change. Skips a take below 10 s.

    Attributes:
        seconds: length of a window.
    """

    seconds: float = 5.0
    title: ClassVar[str] = "First-window consistency"
    source: ClassVar[str] = "ours, after the first-frame consistency of Context Forcing (arXiv 2602.06028)"

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        size = frames_of(self.seconds, take.video.fps)
        if take.frames < 2 * size:
            raise Skip(
                f"it needs two windows of {self.seconds:g} s, the video has {take.frames / take.video.fps:.2f} s"
            )
        return _Windows(self.features, take, runtime, size)


@register_scorer("first_frame_consistency")
@dataclass(frozen=True)
class FirstFrameConsistency(_FromStart):
    """Mean cosine of the features of the frames of the last second and of the first frame.

    ``at_10s``, ``at_20s`` and so on are the means over the frames within half a second of that time, as in the paper,
    which prints them times 100 for DINOv2 and CLIP at 10 to 60 s. The curve holds the cosine of every frame. Skips a
    take below 2 s.
    """

    title: ClassVar[str] = "First-frame consistency"
    source: ClassVar[str] = "Context Forcing (arXiv 2602.06028), section 4"

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        if take.frames < frames_of(2.0, take.video.fps):
            raise Skip(f"the last second and the first frame lie {take.frames / take.video.fps:.2f} s apart at most")
        return _FirstFrame(self.features, take, runtime)


class _Features:
    def __init__(self, kind: Kind, take: Take, runtime: Runtime) -> None:
        self.kind, self.take, self.runtime = kind, take, runtime

    def push(self, part: Part) -> None:
        rows = feature_rows(part, self.kind, self.runtime).astype(np.float64)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        for at, row in enumerate(rows, part.start):
            self.take_in(at, row)

    @abstractmethod
    def take_in(self, at: int, row: Unit) -> None: ...


class _Windows(_Features):
    """Two sums of features: that of the first window and that of the present one."""

    def __init__(self, kind: Kind, take: Take, runtime: Runtime, size: int) -> None:
        super().__init__(kind, take, runtime)
        self.size = size
        self.curve = np.full(take.frames, np.nan)
        self.first: Unit | None = None
        self.sum: Unit | None = None

    def take_in(self, at: int, row: Unit) -> None:
        # One by one and in order, so that the sums do not depend on the chunks.
        self.sum = row.copy() if at % self.size == 0 or self.sum is None else self.sum + row
        if (at + 1) % self.size == 0:
            if self.first is None:
                self.first = self.sum
            lengths = float(np.linalg.norm(self.first) * np.linalg.norm(self.sum))
            self.curve[at + 1 - self.size : at + 1] = float(self.first @ self.sum) / max(lengths, 1e-12)

    def close(self) -> Measurement:
        later = self.curve[self.size :: self.size]
        later = later[~np.isnan(later)]
        return Measurement(float(later[-1]), len(later), self.curve, {"mean": float(later.mean())})


class _FirstFrame(_Features):
    def __init__(self, kind: Kind, take: Take, runtime: Runtime) -> None:
        super().__init__(kind, take, runtime)
        self.curve = np.full(take.frames, np.nan)
        self.first: Unit | None = None

    def take_in(self, at: int, row: Unit) -> None:
        if self.first is None:
            self.first = row
        self.curve[at] = float(self.first @ row)

    def close(self) -> Measurement:
        fps = self.take.video.fps
        half, second = round(fps / 2), frames_of(1.0, fps)
        extra = {}
        for seconds in range(10, int(len(self.curve) / fps) + 1, 10):
            middle = round(seconds * fps)
            extra[f"at_{seconds}s"] = mean(self.curve[middle - half : middle + half + 1])
        return Measurement(mean(self.curve[-second:]), second, self.curve, extra)
