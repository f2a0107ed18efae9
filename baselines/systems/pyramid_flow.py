"""Pyramid Flow, flow matching over a pyramid of resolutions: a chain of its clips, each from the last frame."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from baselines.systems.environment import Project
from baselines.systems.subprocess_system import RUNNERS, SubprocessSystem
from irope.systems import SystemSettingsError, register_system

STRIDE = 8
"""Frames of a latent, which the first one has only one of."""
SIZES = {"768p": (768, 1280), "384p": (384, 640)}
LATENTS = {"768p": (16, 31), "384p": (16,)}
"""Lengths that a variant was trained for: 121 and 241 frames."""
MODELS = {"miniflux": "pyramid_flux", "sd3": "pyramid_mmdit"}
"""Names of the weights, and what the project's code calls their architecture."""


@register_system("pyramid_flow")
@dataclass(frozen=True)
class PyramidFlow(SubprocessSystem):
    """Pyramid Flow in its own environment, clips of 5 s (or 10 s: latents=31) chained by their last frame.

    The ∞-RoPE paper scores it at 5 s only; its supplement says that it is reset every 5 s, which is what a chain does.
    """

    title: ClassVar[str] = "Pyramid Flow"
    fps: ClassVar[int] = 24
    size: ClassVar[tuple[int, int]] = SIZES["768p"]
    native_seconds: ClassVar[float] = 5.0
    licence: ClassVar[str] = "MIT (code); weights: see their model card"
    source: ClassVar[str] = "arXiv 2410.05954, github.com/jy0205/Pyramid-Flow"
    needs: ClassVar[tuple[str, ...]] = ("rain1011/pyramid-flow-miniflux",)
    runner: ClassVar[Path] = RUNNERS / "pyramid_flow.py"

    model: Literal["miniflux", "sd3"] = "miniflux"
    variant: Literal["768p", "384p"] = "768p"
    latents: int = 16
    first_frame_steps: int = 20
    steps: int = 10
    guidance: float = 7.0
    video_guidance: float = 5.0
    image_video_guidance: float = 4.0

    def __post_init__(self) -> None:
        if self.latents not in LATENTS[self.variant]:
            valid = " or ".join(map(str, LATENTS[self.variant]))
            raise SystemSettingsError(
                f"system 'pyramid_flow': latents={self.latents} is no length of variant={self.variant}; valid: {valid}"
            )

    def picture(self) -> tuple[int, int]:
        return SIZES[self.variant]

    def clip_frames(self) -> int:
        return 1 + STRIDE * (self.latents - 1)

    def settings(self) -> dict[str, Any]:
        stages = 3
        return asdict(self) | {
            "model": MODELS[self.model],
            "first_frame_steps": [self.first_frame_steps] * stages,
            "steps": [self.steps] * stages,
        }

    def project(self) -> Project:
        return Project(
            key="pyramid_flow",
            label="Pyramid Flow",
            url="github.com/jy0205/Pyramid-Flow",
            entry="pyramid_dit",
            code=("pyramid_dit", "video_vae", "diffusion_schedulers", "trainer_misc"),
            hub=f"rain1011/pyramid-flow-{self.model}",
            files=(f"diffusion_transformer_{self.variant}/*", "causal_video_vae/*", "text_encoder*/*", "tokenizer*/*"),
        )
