"""Whether a video moves at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eval.registry import register_scorer
from eval.scorer import Measurement, Rows
from eval.scorers.embedded.flow_motion import THRESHOLD, FlowMotion


@register_scorer("flow_dynamic")
@dataclass(frozen=True)
class FlowDynamic(FlowMotion):
    """1 if at least a quarter of the pairs (and one) move by more than 6/256 of the short side, else 0.

    The rule of VBench's dynamic degree, where of two frames none need move. ``moving`` is the share of moving pairs.
    """

    title: ClassVar[str] = "Moving"
    better = "higher"
    rate: ClassVar[bool] = True

    def judge(self, moved: Rows, curve: Rows, rate: float) -> Measurement:
        count, frames = int((moved > THRESHOLD).sum()), len(moved) + 1
        verdict = count >= max(1, round(4 * frames / 16))
        return Measurement(float(verdict), len(moved), curve / THRESHOLD, {"moving": count / len(moved)})
