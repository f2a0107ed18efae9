"""Wan2.1-T2V-1.3B, bidirectional: the model that the causal generators were distilled from; 5 s and no longer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from baselines.systems.pipeline import Pipeline
from irope.systems import register_system


@register_system("wan_2_1")
@dataclass(frozen=True)
class Wan21(Pipeline):
    """Wan2.1-T2V-1.3B as published, not causal, 81 frames at once."""

    title: ClassVar[str] = "Wan2.1-T2V-1.3B"
    fps: ClassVar[int] = 16
    size: ClassVar[tuple[int, int]] = (480, 832)
    native_seconds: ClassVar[float] = 5.0
    licence: ClassVar[str] = "Apache-2.0"
    source: ClassVar[str] = "arXiv 2503.20314, github.com/Wan-Video/Wan2.1"
    needs: ClassVar[tuple[str, ...]] = ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers",)
    pipeline: ClassVar[str] = "WanPipeline"
    native: ClassVar[int] = 81

    guidance: float = 6.0
    shift: float = 8.0

    def prepare(self, pipe: Any) -> None:
        scheduler = type(pipe.scheduler)
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, flow_shift=self.shift)
