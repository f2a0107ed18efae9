"""MAGI-1, chunk-by-chunk autoregressive: one call for the whole video, as its keys and values are kept all along."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import ClassVar, Literal

from baselines.systems.chain import Clip
from baselines.systems.environment import Project
from baselines.systems.subprocess_system import RUNNERS, SubprocessSystem
from irope.systems import ImpossibleError, SystemPlan, SystemSettingsError, register_system

CHUNK = 24
"""Frames that are denoised together: 6 latents."""
LATENTS_PER_CHUNK = 6
LONGEST_S = 60
"""What is reported of it in the ∞-RoPE paper."""
KV_BYTES_PER_TOKEN = 34 * 8 * 128 * 2 * 2
"""Of the 4.5B model: layers, key heads, channels of a head, keys and values, bytes of bfloat16: 139 KB."""
PATCH = 16
"""Pixels of a token in both directions: 8 of the autoencoder, 2 of the transformer."""


@register_system("magi_1")
@dataclass(frozen=True)
class Magi1(SubprocessSystem):
    """MAGI-1 4.5B in its own environment, one call of 24-frame chunks; up to 60 s, as its cache keeps everything."""

    title: ClassVar[str] = "MAGI-1 4.5B"
    fps: ClassVar[int] = 24
    size: ClassVar[tuple[int, int]] = (720, 720)
    native_seconds: ClassVar[float] = 4.0
    licence: ClassVar[str] = "Apache-2.0"
    source: ClassVar[str] = "arXiv 2505.13211, github.com/SandAI-org/MAGI-1"
    needs: ClassVar[tuple[str, ...]] = ("sand-ai/MAGI-1",)
    one_prompt: ClassVar[bool] = True
    continues: ClassVar[bool] = False
    runner: ClassVar[Path] = RUNNERS / "magi_1.py"

    model: Literal["4.5B_distill", "4.5B_base"] = "4.5B_distill"
    height: int = 720
    width: int = 720
    steps: int = 64
    special_tokens: bool = True
    allow_long: bool = False

    def __post_init__(self) -> None:
        for name, value in (("height", self.height), ("width", self.width)):
            if value < PATCH or value % PATCH:
                nearest = max(PATCH, round(value / PATCH) * PATCH)
                raise SystemSettingsError(f"system 'magi_1': {name}={value} is no multiple of {PATCH}; try {nearest}")
        if self.steps < 4 or self.steps % 4:
            raise SystemSettingsError(f"system 'magi_1': steps={self.steps} is no multiple of 4, as its window needs")

    def picture(self) -> tuple[int, int]:
        return self.height, self.width

    def clips(self, frames: int) -> tuple[Clip, ...]:
        return (Clip(0, 0, ceil(frames / CHUNK) * CHUNK, 0),)

    def cache_bytes(self, frames: int) -> int:
        """Of keys and values, which lie in pinned memory of the host for the whole video from the start."""
        tokens = self.height // PATCH * (self.width // PATCH) * LATENTS_PER_CHUNK
        return ceil(frames / CHUNK) * tokens * KV_BYTES_PER_TOKEN

    def plan(self, seconds: float) -> SystemPlan:
        plan = super().plan(seconds)
        memory = f"{self.cache_bytes(plan.frames_kept) / 1e9:.0f} GB of pinned host memory"
        if seconds > LONGEST_S and not self.allow_long:
            raise ImpossibleError(
                f"{self.title} keeps the keys and values of the whole video: {seconds:g} s take {memory}; "
                f"nearest valid: {LONGEST_S} s, the longest reported; video.method.system.allow_long=true tries it"
            )
        notes = (f"{plan.frames_made // CHUNK} chunks", f"{memory} for keys and values", *plan.notes)
        return SystemPlan(plan.calls, plan.frames_made, plan.frames_kept, notes)

    def project(self) -> Project:
        weights = (f"ckpt/magi/{self.model}", "ckpt/vae", "ckpt/t5")
        return Project(
            key="magi_1",
            label="MAGI-1",
            url="github.com/SandAI-org/MAGI-1",
            entry="inference/pipeline/entry.py",
            code=("inference",),
            hub=self.needs[0],
            files=tuple(f"{folder}/**/*" for folder in weights),
        )
