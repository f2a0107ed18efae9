"""Drift of imaging quality: computed from the per-frame curve of whichever imaging scorer the protocol has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eval.curves import Curve, first_and_last, frames_of, slopes, window_means
from eval.registry import register_scorer
from eval.scorer import Derived, Measurement, Skip, Take


@dataclass(frozen=True)
class _OfCurve(Derived):
    """A number made of another scorer's curve, in that scorer's units.

    Attributes:
        of_score: the scorer, ``imaging_quality`` (VBench) or ``imaging`` (embedded).
        seconds: length of a window.
    """

    of_score: str = "imaging_quality"
    seconds: float = 5.0

    @property
    def of(self) -> Sequence[str]:
        return (self.of_score,)

    def derive(self, take: Take, found: Mapping[str, Measurement]) -> Measurement:
        curve = found[self.of_score].curve
        if curve is None:
            raise Skip(f"{self.of_score} has no value for each frame")
        size = frames_of(self.seconds, take.video.fps)
        windows = len(curve) // size
        if windows < 2:
            raise Skip(f"it needs two windows of {self.seconds:g} s, the video has {len(curve) / take.video.fps:.2f} s")
        if np.isnan(window_means(np.asarray(curve, np.float64), size)).any():
            raise Skip(f"{self.of_score} has windows without a value")
        return self.measure(np.asarray(curve, np.float64), size, take.video.fps)

    @abstractmethod
    def measure(self, curve: Curve, size: int, fps: float) -> Measurement: ...


@register_scorer("imaging_drift")
@dataclass(frozen=True)
class ImagingDrift(_OfCurve):
    """|mean of the first 5 s - mean of the last 5 s| of the imaging score. Skips a take below 10 s."""

    title: ClassVar[str] = "Drift (first-last)"
    better = "lower"
    source: ClassVar[str] = "Rolling Forcing (arXiv 2509.25161)"

    def measure(self, curve: Curve, size: int, fps: float) -> Measurement:
        first, last = first_and_last(curve, size)
        return Measurement(abs(first - last), 1, extra={"first": first, "last": last})


@register_scorer("imaging_slope")
@dataclass(frozen=True)
class ImagingSlope(_OfCurve):
    """Change of the imaging score per minute, Theil-Sen over the means of 5 s windows; negative while it decays.

    ``least_squares`` is the ordinary regression slope of the same means. Skips a take below 10 s.
    """

    title: ClassVar[str] = "Slope per minute"
    better = "higher"
    source: ClassVar[str] = "ours, with the estimator of Sen (JASA 63, 1968)"

    def measure(self, curve: Curve, size: int, fps: float) -> Measurement:
        robust, least_squares = slopes(curve, size, fps)
        return Measurement(robust, 1, extra={"least_squares": least_squares, "windows": float(len(curve) // size)})


@register_scorer("imaging_spread")
@dataclass(frozen=True)
class ImagingSpread(_OfCurve):
    """Standard deviation of the imaging score over consecutive windows of 2 s; the paper has 30 of them in 60 s.

    The paper does not say which: the value divides by n, ``sample`` by n - 1. An incomplete last window is left out.
    Skips a take below 4 s.
    """

    title: ClassVar[str] = "Drift (std of 2 s)"
    better = "lower"
    source: ClassVar[str] = "Reward Forcing (arXiv 2512.04678), section 4.1"
    seconds: float = 2.0

    def measure(self, curve: Curve, size: int, fps: float) -> Measurement:
        means = window_means(curve, size)
        return Measurement(
            float(means.std()), 1, extra={"sample": float(means.std(ddof=1)), "windows": float(len(means))}
        )
