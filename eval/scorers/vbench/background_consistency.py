"""Background consistency: how alike the CLIP features of the frames are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from eval.registry import register_scorer
from eval.scorer import Accumulator, Measurement, Part, Runtime, Scorer, Take
from eval.scorers.consistency import ConsistencyTerms
from eval.vbench.networks import clip_features
from eval.vbench.weights import identity, lacking


@register_scorer("background_consistency")
@dataclass(frozen=True)
class BackgroundConsistency(Scorer):
    """Consistency (`ConsistencyTerms`) of CLIP ViT-B/32 image features; the mean over videos weighs every frame alike.

    Raises Skip for a take of one frame.
    """

    title: ClassVar[str] = "Background"
    family = "vbench"
    source: ClassVar[str] = "VBench (arXiv 2311.17982), background_consistency.py"
    pooled: ClassVar[Literal["videos", "frames"]] = "frames"

    def unavailable(self) -> str | None:
        return lacking("background_consistency")

    def identity(self) -> Mapping[str, Any]:
        return identity("background_consistency")

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        return _Background(ConsistencyTerms(take.frames), runtime)


@dataclass
class _Background:
    terms: ConsistencyTerms
    runtime: Runtime

    def push(self, part: Part) -> None:
        self.terms.push(clip_features("ViT-B-32", part, self.runtime))

    def close(self) -> Measurement:
        return self.terms.close()
