"""NOVA, frame-by-frame autoregressive without vector quantisation: a chain of its clips, each from the last frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from baselines.systems.environment import Project
from baselines.systems.subprocess_system import RUNNERS, SubprocessSystem
from irope.systems import SystemSettingsError, register_system

STRIDE = 4
"""Frames of a latent, which the first one has only one of."""


@register_system("nova")
@dataclass(frozen=True)
class Nova(SubprocessSystem):
    """NOVA 0.6B in its own environment, clips of 33 frames chained by their last frame.

    One call for a long video would be another thing: the time embedding is rescaled to the length it was trained at
    whatever the length is, and the cache grows without bound.
    """

    title: ClassVar[str] = "NOVA 0.6B"
    fps: ClassVar[int] = 12
    size: ClassVar[tuple[int, int]] = (480, 768)
    native_seconds: ClassVar[float] = 2.75
    licence: ClassVar[str] = "Apache-2.0"
    source: ClassVar[str] = "arXiv 2412.14169, github.com/baaivision/NOVA"
    needs: ClassVar[tuple[str, ...]] = ("BAAI/nova-d48w1024-osp480",)
    runner: ClassVar[Path] = RUNNERS / "nova.py"

    latents: int = 9
    steps: int = 64
    diffusion_steps: int = 25
    guidance: float = 5.0
    motion_flow: int = 5
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        if self.latents < 2:
            raise SystemSettingsError(f"system 'nova': latents={self.latents} is too short; nearest valid: 2")

    def clip_frames(self) -> int:
        return 1 + STRIDE * (self.latents - 1)

    def project(self) -> Project:
        return Project(
            key="nova",
            label="NOVA",
            url="github.com/baaivision/NOVA",
            entry="diffnext",
            code=("diffnext",),
            hub=self.needs[0],
            files=("**/*.safetensors",),
        )
