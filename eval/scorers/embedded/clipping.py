"""How much of the frames has lost detail at an end of the range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eval.picture import COLUMNS, PictureScorer
from eval.registry import register_scorer
from eval.scorer import Rows


@register_scorer("clipping")
@dataclass(frozen=True)
class Clipping(PictureScorer):
    """Share of the pixels with a channel at its end (1 or less, 254 or more): over-exposed, black or over-saturated."""

    title: ClassVar[str] = "Clipped"
    better = "lower"
    source: ClassVar[str] = "share of clipped pixels"

    def of(self, rows: Rows) -> Rows:
        return rows[:, COLUMNS.index("clipped")]
