"""Subject consistency: how alike the DINO features of the frames are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from eval.registry import register_scorer
from eval.scorer import Accumulator, Measurement, Part, Runtime, Scorer, Take
from eval.scorers.consistency import ConsistencyTerms
from eval.vbench.networks import dino_features
from eval.vbench.weights import identity, lacking


@register_scorer("subject_consistency")
@dataclass(frozen=True)
class SubjectConsistency(Scorer):
    """Consistency (`ConsistencyTerms`) of DINO ViT-B/16 class features; the mean over videos weighs every frame alike.

    Raises Skip for a take of one frame.
    """

    title: ClassVar[str] = "Subject"
    family = "vbench"
    source: ClassVar[str] = "VBench (arXiv 2311.17982), subject_consistency.py"
    pooled: ClassVar[Literal["videos", "frames"]] = "frames"

    def unavailable(self) -> str | None:
        return lacking("subject_consistency")

    def identity(self) -> Mapping[str, Any]:
        return identity("subject_consistency")

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        return _Subject(ConsistencyTerms(take.frames), runtime)


@dataclass
class _Subject:
    terms: ConsistencyTerms
    runtime: Runtime

    def push(self, part: Part) -> None:
        self.terms.push(dino_features(part, self.runtime))

    def close(self) -> Measurement:
        return self.terms.close()
