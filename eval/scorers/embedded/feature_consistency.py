"""Whether what is shown stays the same, by features of the whole picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eval.lite0_scorer import Lite0Scorer
from eval.registry import register_scorer
from eval.scorer import Rows


@register_scorer("feature_consistency")
@dataclass(frozen=True)
class FeatureConsistency(Lite0Scorer):
    """The formula of VBench's subject consistency on pooled features of EfficientNet-Lite0, whole picture.

    A frozen video has the value 1: read it beside motion. Of the embedded world, 60 random scenes, two pictures of one
    scene with the subject elsewhere are closer than pictures with another shape in 99.6 % of the cases, another
    background 100 %, hue alone 95 %, colour of the subject 89 % (at 224 pixels 99 %, 100 %, 97 %, 92 %, for seven
    times the work; at 96 pixels 97 %, 99 %, 87 %, 87 %).
    """

    title: ClassVar[str] = "Feature consistency"
    source: ClassVar[str] = "formula of VBench (arXiv 2311.17982), features of EfficientNet-Lite0 (arXiv 1905.11946)"

    def of(self, rows: Rows) -> Rows:
        from eval.lite0 import FEATURES

        return rows[:, :FEATURES]
