"""Motion, to be shown beside every score that a frozen video would win."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eval.registry import register_scorer
from eval.scorer import Accumulator, Measurement, Part, Runtime, Scorer, Skip, Take
from eval.scorers.long.thumbnails import Steps


@register_scorer("motion")
@dataclass(frozen=True)
class Motion(Scorer):
    """Mean absolute difference of neighbouring frames, both averaged over a grid of cells; grey levels (0..255).

    Of at most 32 x 32 cells of at least 8 x 8 pixels each: in large pictures grain and codec noise average out, which
    makes it a measure of motion where 1 - flickering is one of noise as well; at 64 x 64 noise of 15 levels still
    doubles it. Ranks nothing: it says what a consistency is worth.
    """

    title: ClassVar[str] = "Motion (grey levels)"
    better = None
    family = "long"
    source: ClassVar[str] = "ours"

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        if take.frames < 2:
            raise Skip("one frame does not move")
        return _Motion(take)


class _Motion:
    def __init__(self, take: Take) -> None:
        self.steps = Steps(take.frames)

    def push(self, part: Part) -> None:
        self.steps.push(part)

    def close(self) -> Measurement:
        curve = self.steps.curve
        return Measurement(float(np.mean(curve[1:])), len(curve) - 1, curve)
