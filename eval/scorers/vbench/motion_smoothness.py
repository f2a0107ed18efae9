"""Motion smoothness: how well every other frame can be guessed from its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from eval.registry import register_scorer
from eval.scorer import Accumulator, Frames, Measurement, Part, Runtime, Scorer, Skip, Take
from eval.vbench import amt, weights

if TYPE_CHECKING:
    from eval.vbench.amt import Amt


@register_scorer("motion_smoothness")
@dataclass(frozen=True)
class MotionSmoothness(Scorer):
    """1 - mean absolute difference / 255 of the odd frames and those that AMT-S puts between their neighbours.

    A last odd frame has no right neighbour and is not scored. The curve holds the terms, at the odd frames.
    Raises Skip for fewer than three frames, where stock VBench stops with an assertion, and for pictures of fewer than
    113 pixels a side, where it scores what is left of a NaN.
    """

    title: ClassVar[str] = "Motion smoothness"
    family = "vbench"
    source: ClassVar[str] = "VBench (arXiv 2311.17982), motion_smoothness.py; AMT-S (arXiv 2304.09790)"

    def unavailable(self) -> str | None:
        return weights.lacking("motion_smoothness")

    def identity(self) -> Mapping[str, Any]:
        return weights.identity("motion_smoothness")

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        if take.frames < 3:
            raise Skip(f"a frame between two others is needed, there are {take.frames} frames")
        height, width = take.video.height, take.video.width
        if min(height, width) < amt.LEAST_SIDE:
            raise Skip(f"AMT needs pictures of at least {amt.LEAST_SIDE} pixels a side, these have {width}x{height}")
        return _Triplets(amt.load(runtime), take.frames, runtime.batch)


class _Triplets:
    def __init__(self, network: Amt, frames: int, batch: int) -> None:
        self.network, self.batch = network, batch
        self.errors = np.full(frames, np.nan)
        self.kept: Frames | None = None  # from the last even frame on: one frame or two

    def push(self, part: Part) -> None:
        frames, start = part.frames, part.start
        if self.kept is not None:
            frames, start = np.concatenate([self.kept, frames]), start - len(self.kept)
        odd = range(1, len(frames) - 1, 2)
        at = part.take.start + start
        new = [i for i in odd if part.pairs.get("amt", at + i - 1, at + i + 1) is None]
        if new:
            middle = np.array(new)
            found = self.network.errors(frames[middle - 1], frames[middle], frames[middle + 1], self.batch)
            for i, error in zip(new, found, strict=True):
                part.pairs.put("amt", at + i - 1, at + i + 1, error)
        for i in odd:
            self.errors[start + i] = part.pairs.get("amt", at + i - 1, at + i + 1)
        self.kept = frames[(len(frames) - 1) // 2 * 2 :].copy()

    def close(self) -> Measurement:
        errors = self.errors[1:-1:2]
        return Measurement(float((255.0 - errors.mean()) / 255.0), len(errors), (255.0 - self.errors) / 255.0)
