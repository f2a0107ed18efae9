"""How colourful the frames are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eval.picture import COLUMNS, PictureScorer
from eval.registry import register_scorer
from eval.scorer import Rows


@register_scorer("colourfulness")
@dataclass(frozen=True)
class Colourfulness(PictureScorer):
    """0 for grey, above 80 for garish. Ranks nothing by itself: that it grows over time is the fault."""

    title: ClassVar[str] = "Colourfulness"
    better = None
    source: ClassVar[str] = "Hasler and Süsstrunk 2003, Measuring colourfulness"

    def of(self, rows: Rows) -> Rows:
        return rows[:, COLUMNS.index("colourful")]
