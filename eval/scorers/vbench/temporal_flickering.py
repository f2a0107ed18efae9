"""Temporal flickering: how little neighbouring frames differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eval.registry import register_scorer
from eval.scorer import Accumulator, Frames, Measurement, Part, Runtime, Scorer, Skip, Take


@register_scorer("temporal_flickering")
@dataclass(frozen=True)
class TemporalFlickering(Scorer):
    """1 - mean absolute difference of neighbouring frames / 255. Needs no weights.

    Raises Skip for a take of one frame.
    """

    title: ClassVar[str] = "Flickering"
    family = "vbench"
    source: ClassVar[str] = "VBench (arXiv 2311.17982), temporal_flickering.py"

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        if take.frames < 2:
            raise Skip("one frame has no neighbour")
        return _Differences(take.frames)


class _Differences:
    def __init__(self, frames: int) -> None:
        self.curve = np.full(frames, np.nan)
        self.last: Frames | None = None

    def push(self, part: Part) -> None:
        frames = part.frames
        before = frames[:-1] if self.last is None else np.concatenate([self.last, frames[:-1]])
        after = frames[1:] if self.last is None else frames
        start = part.start + (self.last is None)
        for at, (a, b) in enumerate(zip(before, after, strict=True), start):
            # |a - b| of uint8 without a wider copy: the larger minus the smaller.
            self.curve[at] = np.subtract(np.maximum(a, b), np.minimum(a, b)).mean(dtype=np.float64)
        self.last = frames[-1:].copy()

    def close(self) -> Measurement:
        differences = self.curve[1:]
        return Measurement(float(1 - differences.mean() / 255), len(differences), 1 - self.curve / 255)
