"""The curriculum of the embedded model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from irope.models.tiny.teacher_forcing import BLOCK_FRAMES, Window

_PASTS = (1, 2, 3, 4, 5, 6, 9, 12, 14)
_SINKS = (0, 1, 1, 3)


@dataclass(frozen=True)
class Stage:
    """A stretch of training.

    Args:
        steps: optimizer steps.
        batch, frames: clips a step and latent frames a clip.
        rate_start, rate_end: learning-rate multiplier, linear in between.
        window_share: share of steps in which blocks see a window instead of their full past.
        resample_share: share of steps whose context carries the model's own faults.
        first_weight: weight of the first block in the loss.
        spread: see `irope.world.sample_staging`; a narrow one lets four sampler steps draw a sharp first frame.
        adds: what the stage is for, in a line.
    """

    name: str
    steps: int
    batch: int
    frames: int
    rate_start: float = 1.0
    rate_end: float = 1.0
    window_share: float = 0.0
    resample_share: float = 0.0
    first_weight: float = 1.0
    spread: float = 1.0
    adds: str = ""

    def __post_init__(self) -> None:
        if self.frames % BLOCK_FRAMES or self.frames < 2 * BLOCK_FRAMES or self.steps < 1 or self.batch < 1:
            raise ValueError(
                f'stage "{self.name}" needs steps, clips and two or more whole blocks of {BLOCK_FRAMES} latent frames, '
                f"got {self.steps} steps of {self.batch} clips of {self.frames} frames"
            )

    def rate(self, passed: float) -> float:
        return self.rate_start + (self.rate_end - self.rate_start) * passed

    def draw_window(self, rng: np.random.Generator) -> Window:
        """The window of one step; a third of them are the window of 6 frames with a sink of 1 that demos run with."""
        if rng.random() >= self.window_share:
            return Window()
        leak = bool(rng.random() < 0.3)
        if rng.random() < 1 / 3:
            return Window(past=2, sink=1, near_sink=True, leak=leak)
        past, sink = _PASTS[int(rng.integers(len(_PASTS)))], _SINKS[int(rng.integers(len(_SINKS)))]
        return Window(past=past, sink=sink, near_sink=bool(rng.random() < 0.7), leak=leak)


_SHARP: dict[str, Any] = {"first_weight": 2.0, "spread": 0.35}
SHIPPED_STAGES = (
    Stage("short", 900, batch=16, frames=9, adds="two-second clips: words, shapes and motion"),
    Stage("full", 700, batch=8, frames=21, adds="the whole horizon of 21 latent frames; a block sees its full past"),
    Stage(
        "base",
        1100,
        batch=8,
        frames=21,
        rate_end=0.1,
        adds="narrow starts, sizes and speeds, first block counted twice: sharp shapes in four sampler steps",
        **_SHARP,
    ),
    Stage(
        "windows",
        450,
        batch=8,
        frames=21,
        rate_start=0.5,
        rate_end=0.5,
        window_share=0.6,
        adds="in 60 % of the steps blocks see a random window, with or without a sink",
        **_SHARP,
    ),
    Stage(
        "stable",
        1050,
        batch=8,
        frames=21,
        rate_start=0.5,
        rate_end=0.0,
        window_share=0.7,
        resample_share=0.8,
        adds="in 80 % of the steps the past carries the model's own faults: long videos hold",
        **_SHARP,
    ),
)
