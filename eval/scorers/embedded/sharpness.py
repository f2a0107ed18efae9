"""How sharp the frames are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eval.picture import COLUMNS, PictureScorer
from eval.registry import register_scorer
from eval.scorer import Rows


@register_scorer("sharpness")
@dataclass(frozen=True)
class Sharpness(PictureScorer):
    """1 - perceptual blur, 0..1, mean over the frames; noise counts as sharp, so look at `noise` too."""

    title: ClassVar[str] = "Sharpness"
    better = "higher"
    source: ClassVar[str] = "Crété-Roffet et al. 2007, The blur effect"

    def of(self, rows: Rows) -> Rows:
        return rows[:, COLUMNS.index("sharpness")]
