"""How noisy the frames are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eval.picture import COLUMNS, PictureScorer
from eval.registry import register_scorer
from eval.scorer import Rows


@register_scorer("noise")
@dataclass(frozen=True)
class Noise(PictureScorer):
    """Standard deviation of the noise in grey levels of 255, mean over the frames; fine texture counts a little."""

    title: ClassVar[str] = "Noise"
    better = "lower"
    source: ClassVar[str] = "Immerkær 1996, Fast noise variance estimation; median over blocks"

    def of(self, rows: Rows) -> Rows:
        return rows[:, COLUMNS.index("noise")]
