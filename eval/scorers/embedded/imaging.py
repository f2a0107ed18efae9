"""One number for the looks of single frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eval.picture import COLUMNS, PictureScorer
from eval.registry import register_scorer
from eval.scorer import Rows


@register_scorer("imaging")
@dataclass(frozen=True)
class Imaging(PictureScorer):
    """sharpness x 1 / (1 + noise / tolerated) x (1 - clipped share), each frame, then the mean; 0..1.

    Blur lowers the first factor, noise the second (more than it raises the first), over-exposure and over-saturation
    the third.

    Attributes:
        tolerated: noise, in grey levels, that halves the value.
    """

    tolerated: float = 10.0

    title: ClassVar[str] = "Imaging (embedded)"
    source: ClassVar[str] = "product of sharpness, noise and clipping, each with its source"

    def of(self, rows: Rows) -> Rows:
        sharp, noise, clipped = (rows[:, COLUMNS.index(name)] for name in ("sharpness", "noise", "clipped"))
        return sharp / (1 + noise / self.tolerated) * (1 - clipped)
