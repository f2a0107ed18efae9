"""Dynamic degree: whether enough moves in a video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from eval.registry import register_scorer
from eval.scorer import Accumulator, Frames, Measurement, Part, Runtime, Scorer, Skip, Take
from eval.vbench import raft, weights
from eval.vbench.raft import MovingPairs

if TYPE_CHECKING:
    from eval.vbench.raft import Raft

MARGIN = {"float32": 0.01, "half": 0.05}
"""Pairs this close to the threshold, relative to it, are computed again as stock VBench does, so that none is counted
otherwise because of rounding."""


@register_scorer("dynamic_degree")
@dataclass(frozen=True)
class DynamicDegree(Scorer):
    """1 if at least round(n / 4) of n frames, 8 a second, differ by fast motion from the next; otherwise 0.

    A pair moves if the mean length of the fastest twentieth of its RAFT flow exceeds 6 pixels of 256. The curve holds
    that length, in pixels, at the later frame of each pair whose length is known. ``extra``: ``pairs`` of frames in the
    take, ``pairs_computed``, ``pairs_moving`` among those, ``threshold`` in pixels and, where all pairs are known,
    ``motion``, their mean length.

    Attributes:
        early: stop as soon as no further pair can change the verdict, which stays that of stock VBench; false
            computes every pair, for the mean motion.

    Raises Skip for pictures of fewer than 121 pixels a side, whose flow is NaN in RAFT: stock VBench calls that static.
    """

    early: bool = True

    title: ClassVar[str] = "Dynamic degree"
    family = "vbench"
    source: ClassVar[str] = "VBench (arXiv 2311.17982), dynamic_degree.py; RAFT (arXiv 2003.12039)"
    rate: ClassVar[bool] = True

    def unavailable(self) -> str | None:
        return weights.lacking("dynamic_degree")

    def identity(self) -> Mapping[str, Any]:
        return weights.identity("dynamic_degree")

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        height, width = take.video.height, take.video.width
        if min(height, width) < raft.LEAST_SIDE:
            raise Skip(f"RAFT needs pictures of at least {raft.LEAST_SIDE} pixels a side, these have {width}x{height}")
        return _Flow(raft.load(runtime), take, runtime, self.early)


class _Flow:
    def __init__(self, network: Raft, take: Take, runtime: Runtime, early: bool) -> None:
        self.network, self.early, self.batch = network, early, runtime.batch
        self.step = max(1, round(take.video.fps / 8))
        self.rule = MovingPairs(-(-take.frames // self.step))
        self.threshold = raft.threshold(take.video.height, take.video.width)
        self.margin = MARGIN[runtime.precision] * self.threshold
        self.curve = np.full(take.frames, np.nan)
        self.last: Frames | None = None  # the last sampled frame, [1, H, W, 3]

    def push(self, part: Part) -> None:
        first = -part.start % self.step
        run, at = part.frames[first :: self.step], part.start + first
        if not len(run) or self._enough:
            return
        if self.last is not None:
            run, at = np.concatenate([self.last, run]), at - self.step
        pair = 0
        while pair < len(run) - 1 and not self._enough:
            unknown = self._unknown(part, at, pair, len(run) - 1)
            if unknown:
                self._compute(part, at + pair * self.step, run[pair : pair + unknown + 1])
            for i in range(pair, pair + max(1, unknown)):
                self._count(part, at + i * self.step)
            pair += max(1, unknown)
        self.last = run[-1:].copy()

    @property
    def _enough(self) -> bool:
        return self.early and self.rule.verdict is not None

    def _unknown(self, part: Part, at: int, pair: int, pairs: int) -> int:
        """How many pairs in a row to compute: none that another take has, none that may prove needless."""
        most = min(pairs - pair, self.rule.unavoidable if self.early else pairs)
        for i in range(most):
            if self._known(part, at + (pair + i) * self.step) is not None:
                return i
        return most

    def _known(self, part: Part, at: int) -> float | None:
        first = part.take.start + at
        known: float | None = part.pairs.get("raft", first, first + self.step)
        return known

    def _compute(self, part: Part, at: int, run: Frames) -> None:
        for i, length in enumerate(self.network.motion(run, self.batch)):
            if abs(length - self.threshold) <= self.margin:
                length = self.network.motion_as_stock(run[i : i + 2])
            first = part.take.start + at + i * self.step
            part.pairs.put("raft", first, first + self.step, length)

    def _count(self, part: Part, at: int) -> None:
        length = self._known(part, at)
        assert length is not None
        self.curve[at + self.step] = length
        self.rule.add(length > self.threshold)

    def close(self) -> Measurement:
        rule = self.rule
        extra = {
            "pairs": float(rule.pairs),
            "pairs_computed": float(rule.seen),
            "pairs_moving": float(rule.moving),
            "threshold": self.threshold,
        }
        if rule.pairs and rule.seen == rule.pairs:
            extra["motion"] = float(np.nanmean(self.curve))
        notes: tuple[str, ...] = ()
        if not rule.pairs:
            notes = ("a single frame sampled: VBench calls it static",)
        elif not rule.needed:
            notes = ("two frames sampled: VBench asks no pair of them to move and calls every such video dynamic",)
        return Measurement(float(bool(rule.verdict)), curve=self.curve, extra=extra, notes=notes)
