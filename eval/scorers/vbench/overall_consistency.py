"""Overall consistency: how well a video fits its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from eval.registry import register_scorer
from eval.scorer import Accumulator, Measurement, Part, Runtime, Scorer, Skip, Take
from eval.vbench import viclip, weights


@register_scorer("overall_consistency")
@dataclass(frozen=True)
class OverallConsistency(Scorer):
    """Cosine of the ViCLIP features of eight frames, evenly sampled, and of the prompt.

    Raises Skip where the take has no prompt or several.
    """

    title: ClassVar[str] = "Overall consistency"
    family = "vbench"
    source: ClassVar[str] = "VBench (arXiv 2311.17982), overall_consistency.py; ViCLIP (arXiv 2307.06942)"

    def unavailable(self) -> str | None:
        return weights.lacking("overall_consistency")

    def identity(self) -> Mapping[str, Any]:
        return weights.identity("overall_consistency")

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        prompts = sorted({span.prompt for span in take.spans if span.prompt.strip()})
        if not prompts:
            raise Skip("its prompt is not known")
        if len(prompts) > 1:
            raise Skip(f"it has {len(prompts)} prompts, and this measure compares a whole video with one")
        return _Similarity(prompts[0], take.frames, runtime)


class _Similarity:
    def __init__(self, prompt: str, frames: int, runtime: Runtime) -> None:
        self.prompt, self.runtime = prompt, runtime
        self.sample = viclip.Sample(0, frames)

    def push(self, part: Part) -> None:
        self.sample.push(part)

    def close(self) -> Measurement:
        return Measurement(viclip.load(self.runtime).similarity(self.sample.tensor(), self.prompt))
