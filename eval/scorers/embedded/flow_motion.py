"""How much moves, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from eval.flow import flow_identity, pair_flow, top_motion, working_rows
from eval.picture import need_cv2
from eval.registry import register_scorer
from eval.scorer import Accumulator, Frames, Measurement, Part, Rows, Runtime, Scorer, Skip, Take

RATE = 8
"""Pairs per second that are looked at, as in VBench's dynamic degree."""

THRESHOLD = 6 / 256
"""Motion of a pair, in short sides, above which it counts as moving: VBench's number."""


@register_scorer("flow_motion")
@dataclass(frozen=True)
class FlowMotion(Scorer):
    """Mean motion of the fastest 5 % of the pixels, in short sides per second, of frames an eighth of a second apart.

    Shown beside consistency, so that a frozen video cannot win silently. Raises Skip for fewer than two such frames.
    """

    title: ClassVar[str] = "Motion"
    better: ClassVar[Literal["higher", "lower"] | None] = None
    family = "embedded"
    source: ClassVar[str] = "motion of VBench's dynamic_degree.py (arXiv 2311.17982) by flow of arXiv 1603.03590"

    def unavailable(self) -> str | None:
        return need_cv2()

    def identity(self) -> Mapping[str, Any]:
        return flow_identity()

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        return _Moves(self, take)

    def judge(self, moved: Rows, curve: Rows, rate: float) -> Measurement:
        """The measurement, of the motion of every pair in short sides; ``rate`` pairs a second."""
        return Measurement(float(moved.mean() * rate), len(moved), curve * rate)


class _Moves:
    """Motion of each pair of frames ``step`` apart, in short sides, put down at the later frame."""

    def __init__(self, scorer: FlowMotion, take: Take) -> None:
        self.scorer = scorer
        self.step = max(1, round(take.video.fps / RATE))
        self.rate = take.video.fps / self.step
        if take.frames <= self.step:
            raise Skip(f"motion needs two frames {self.step} apart")
        self.curve = np.full(take.frames, np.nan)
        self.last: Frames | None = None

    def push(self, part: Part) -> None:
        for at, frame in enumerate(working_rows(part), part.start):
            if at % self.step:
                continue
            if self.last is not None:
                moved = pair_flow(part, at - self.step, at, self.last, frame)
                self.curve[at] = top_motion(moved) / min(frame.shape[:2])
            self.last = frame.copy()

    def close(self) -> Measurement:
        return self.scorer.judge(self.curve[self.step :: self.step], self.curve, self.rate)
