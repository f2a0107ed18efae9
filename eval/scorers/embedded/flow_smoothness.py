"""Whether motion is smooth: can a frame be told from its neighbours?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from eval.flow import between, flow_identity, pair_flow, working_rows
from eval.picture import need_cv2
from eval.registry import register_scorer
from eval.scorer import Accumulator, Frames, Measurement, Part, Runtime, Scorer, Skip, Take


@register_scorer("flow_smoothness")
@dataclass(frozen=True)
class FlowSmoothness(Scorer):
    """1 - mean absolute difference / 255 of every odd frame and the one that optical flow puts between its neighbours.

    The rule of VBench's motion smoothness with DIS flow in place of a learned interpolation, at the working size of
    `eval.flow`. Raises Skip for a take of fewer than three frames.
    """

    title: ClassVar[str] = "Flow smoothness"
    family = "embedded"
    source: ClassVar[str] = "rule of VBench (arXiv 2311.17982), motion_smoothness.py; flow of arXiv 1603.03590"

    def unavailable(self) -> str | None:
        return need_cv2()

    def identity(self) -> Mapping[str, Any]:
        return flow_identity()

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        if take.frames < 3:
            raise Skip("fewer than three frames have none in between")
        return _Between(take.frames)


class _Between:
    def __init__(self, frames: int) -> None:
        self.curve = np.full(frames, np.nan)
        self.even: Frames | None = None
        self.odd: Frames | None = None

    def push(self, part: Part) -> None:
        import cv2

        for at, frame in enumerate(working_rows(part), part.start):
            if at % 2:
                self.odd = frame.copy()
                continue
            if self.even is not None and self.odd is not None:
                middle = between(self.even, frame, pair_flow(part, at - 2, at, self.even, frame))
                self.curve[at - 1] = 1 - cv2.absdiff(middle, self.odd).mean(dtype=np.float64) / 255
            self.even = frame.copy()

    def close(self) -> Measurement:
        known = self.curve[1:-1:2]
        return Measurement(float(known.mean()), len(known), self.curve)
