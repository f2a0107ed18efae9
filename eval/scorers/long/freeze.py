"""Freezes: frames that repeat the one before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eval.curves import runs
from eval.registry import register_scorer
from eval.scorer import Accumulator, Measurement, Part, Runtime, Scorer, Skip, Take
from eval.scorers.long.thumbnails import Neighbours, cell_rows

STILL = ("standing still",)
"""A prompt with one of these phrases asks for a picture that does not move; its frames are no freeze."""

_STRAY = 0.02
"""Share of the cells that may change in a frozen frame."""


@register_scorer("freeze")
@dataclass(frozen=True)
class Freeze(Scorer):
    """Share of frames (near-)identical to the one before; ``longest_seconds`` is the longest stretch of them.

    A frame is frozen if no cell of the picture (at most 32 x 32 cells of at least 8 x 8 pixels) changes its mean colour
    by more than ``tolerance``, 2 % of the cells aside, where a lossy codec brings blocks up to date. At 2 levels a
    still picture stored as H.264 at crf 18 is frozen in every frame, a pan over texture by 0.2 pixels a frame in none;
    what moves in less than 2 % of the picture is not seen. Segments whose prompt asks for a still subject are left out.

    Attributes:
        tolerance: grey levels, 0..255.
    """

    tolerance: float = 2.0
    title: ClassVar[str] = "Frozen"
    better = "lower"
    family = "long"
    source: ClassVar[str] = "ours"

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        if take.frames < 2:
            raise Skip("one frame has no neighbour")
        return _Freeze(take, self.tolerance)


class _Freeze:
    def __init__(self, take: Take, tolerance: float) -> None:
        self.take, self.tolerance = take, tolerance
        self.curve = np.full(take.frames, np.nan)
        self.neighbours = Neighbours()

    def push(self, part: Part) -> None:
        differences = self.neighbours.differences(cell_rows(part)).max(axis=3)
        changes = np.sort(differences.reshape(len(differences), -1), axis=1)  # NaN stays NaN
        largest = changes[:, -1 - int(_STRAY * changes.shape[1])]
        at = slice(part.start, part.start + len(differences))
        self.curve[at] = np.where(np.isnan(largest), np.nan, largest <= self.tolerance)

    def close(self) -> Measurement:
        for span in self.take.spans:
            if any(phrase in span.prompt.lower() for phrase in STILL):
                self.curve[span.start : span.stop] = np.nan
        counted = ~np.isnan(self.curve)
        if not counted.any():
            raise Skip("every prompt asks for a still subject")
        frozen = self.curve == 1
        longest = max((stop - start for start, stop in runs(frozen)), default=0)
        return Measurement(
            float(frozen.sum() / counted.sum()),
            int(counted.sum()),
            self.curve,
            {"longest_seconds": longest / self.take.video.fps},
        )
