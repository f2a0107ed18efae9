"""Imaging quality: how good single frames look, whatever they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from eval.registry import register_scorer
from eval.scorer import Accumulator, Measurement, Part, Runtime, Scorer, Take
from eval.vbench import musiq, weights

if TYPE_CHECKING:
    from eval.vbench.musiq import Musiq


@register_scorer("imaging_quality")
@dataclass(frozen=True)
class ImagingQuality(Scorer):
    """Mean quality of the frames by MUSIQ-SPAQ / 100.

    Attributes:
        preprocessing: pictures whose ``longer`` or ``shorter`` side exceeds 512 pixels are made that small before;
            ``shorter_centercrop`` also cuts a square out of them; ``None`` leaves them as they are.
    """

    preprocessing: musiq.Preprocessing = "longer"

    title: ClassVar[str] = "Imaging"
    family = "vbench"
    source: ClassVar[str] = "VBench (arXiv 2311.17982), imaging_quality.py; MUSIQ (arXiv 2108.05997)"

    def unavailable(self) -> str | None:
        return weights.lacking("imaging_quality")

    def identity(self) -> Mapping[str, Any]:
        return weights.identity("imaging_quality")

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        # A CPU is faster with one picture at a time: 0.33 s against 0.45 s in batches of 8 at 512x288.
        batch = 1 if runtime.device == "cpu" else runtime.batch
        return _Quality(musiq.load(runtime), self.preprocessing, take.frames, batch)


class _Quality:
    def __init__(self, network: Musiq, preprocessing: musiq.Preprocessing, frames: int, batch: int) -> None:
        self.network, self.preprocessing, self.batch = network, preprocessing, batch
        self.curve = np.full(frames, np.nan)

    def push(self, part: Part) -> None:
        found = part.rows(
            ("musiq", self.preprocessing),
            lambda frames: self.network.scores(frames, self.preprocessing, self.batch),
        )
        self.curve[part.start : part.start + len(found)] = found / 100

    def close(self) -> Measurement:
        return Measurement(float(self.curve.mean()), len(self.curve), self.curve)
