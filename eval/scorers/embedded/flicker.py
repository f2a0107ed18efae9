"""How much neighbouring frames differ, under a name of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eval.registry import register_scorer
from eval.scorer import Accumulator, Runtime, Scorer, Take
from eval.scorers.vbench.temporal_flickering import TemporalFlickering


@register_scorer("flicker")
@dataclass(frozen=True)
class Flicker(Scorer):
    """The formula of VBench's temporal flickering, which needs no weights; here for any video, also moving ones."""

    title: ClassVar[str] = "1 - flicker"
    family = "embedded"
    source: ClassVar[str] = "formula of VBench (arXiv 2311.17982), temporal_flickering.py"

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        return TemporalFlickering().open(take, runtime)
