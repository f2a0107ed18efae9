"""LTX-Video: a fast diffusion model with a VAE of its own; about 5 s and no longer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from baselines.systems.pipeline import Pipeline
from irope.systems import Out, register_system


@register_system("ltx_video")
@dataclass(frozen=True)
class LTXVideo(Pipeline):
    """LTX-Video 2B, 768x512 at 24 fps, 121 frames at once."""

    title: ClassVar[str] = "LTX-Video 2B"
    fps: ClassVar[int] = 24
    size: ClassVar[tuple[int, int]] = (512, 768)
    native_seconds: ClassVar[float] = 5.0
    licence: ClassVar[str] = "LTX-Video Open Weights licence"
    source: ClassVar[str] = "arXiv 2501.00103, github.com/Lightricks/LTX-Video"
    needs: ClassVar[tuple[str, ...]] = ("Lightricks/LTX-Video",)
    pipeline: ClassVar[str] = "LTXPipeline"
    stride: ClassVar[int] = 8
    grid: ClassVar[int] = 32
    native: ClassVar[int] = 121

    height: int = 512
    width: int = 768
    guidance: float = 3.0

    def arguments(self) -> dict[str, Any]:
        return {"frame_rate": self.fps, "output_type": "np"}

    def deliver(self, pipe: Any, latents_BCFhw: Any, out: Out, heed: Any) -> None:
        """The pipeline has decoded already, [B, M, H, W, 3] in 0..1: five seconds fit into memory."""
        frames = latents_BCFhw[0]
        out((frames * 255).round().astype("uint8"))
