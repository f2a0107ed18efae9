"""Whether the surroundings stay the same, by features of the border of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eval.lite0_scorer import Lite0Scorer
from eval.registry import register_scorer
from eval.scorer import Rows


@register_scorer("border_consistency")
@dataclass(frozen=True)
class BorderConsistency(Lite0Scorer):
    """The same formula on the outer ring of a middle map of EfficientNet-Lite0; see `eval.lite0.features`.

    What passes before the background hardly shows: of 60 random scenes of the embedded world, a picture with the
    subject elsewhere has a cosine of 0.996, with another subject 0.995, with another background 0.46.
    """

    title: ClassVar[str] = "Border consistency"
    source: ClassVar[str] = "formula of VBench (arXiv 2311.17982), features of EfficientNet-Lite0 (arXiv 1905.11946)"

    def of(self, rows: Rows) -> Rows:
        from eval.lite0 import FEATURES

        return rows[:, FEATURES:]
