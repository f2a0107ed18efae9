"""SkyReels-V2 with diffusion forcing: windows that overlap, each denoised with the end of the one before in view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from baselines.systems.chain import Clip, chain, moved_prompts, shots_of
from baselines.systems.pipeline import Pipeline, kept
from irope.systems import ImpossibleError, Request, SystemPlan, SystemSettingsError, register_system

SHORT = 121
"""Frames up to which a video is asked for as it is; a longer one with an overlap more, as its authors' examples have it
(257, 737 and 1457 frames for 10, 30 and 60 s)."""
TEXT = 512
"""Tokens of a prompt, as the pipeline has it."""


@register_system("skyreels_v2")
@dataclass(frozen=True)
class SkyReelsV2(Pipeline):
    """SkyReels-V2 diffusion forcing 1.3B, 540p, windows of 97 frames that overlap by 17.

    A video of any length: the pipeline carries latents from window to window, and they are decoded here as a stream.
    Skywork's own program decodes each window and encodes the overlap again, so its frames are others. Several prompts
    are not its authors' either: from the nearest window on the text is another one.
    """

    title: ClassVar[str] = "SkyReels-V2 DF 1.3B"
    fps: ClassVar[int] = 24
    size: ClassVar[tuple[int, int]] = (544, 960)
    native_seconds: ClassVar[float] = 5.0
    licence: ClassVar[str] = "SkyReels-V2 licence"
    source: ClassVar[str] = "arXiv 2504.13074, github.com/SkyworkAI/SkyReels-V2"
    needs: ClassVar[tuple[str, ...]] = ("Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers",)
    pipeline: ClassVar[str] = "SkyReelsV2DiffusionForcingPipeline"
    native: ClassVar[int] = SHORT
    one_prompt: ClassVar[bool] = False

    height: int = 544
    width: int = 960
    steps: int = 30
    guidance: float = 6.0
    shift: float = 8.0
    window: int = 97
    overlap: int = 17
    add_noise: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window", "overlap"):
            value = getattr(self, name)
            if value < 1 or value != self.whole(value):
                raise SystemSettingsError(
                    f"system {self.name!r}: {name}={value}: expected 1 + {self.stride} k frames; nearest valid: "
                    f"{self.whole(max(1, value))}"
                )
        if self.overlap >= self.window:
            raise SystemSettingsError(
                f"system {self.name!r}: overlap={self.overlap} leaves nothing new of window={self.window}; "
                f"nearest valid: {self.window - self.stride}"
            )

    def plan(self, seconds: float) -> SystemPlan:
        frames = self.frames(seconds)
        if frames < 1:
            raise ImpossibleError(f"{self.title}: {seconds:g} s are no frame at {self.rate()} frames per second")
        made = self.whole(frames)
        if made > max(SHORT, self.window):
            made = self.whole(frames + self.overlap)
        return SystemPlan(len(self.windows(made)), made, kept(made, frames))

    def windows(self, frames: int) -> tuple[Clip, ...]:
        """The windows that ``frames`` frames take; the last may be shorter than here."""
        return chain(frames, self.window, self.overlap)

    def following(self, pipe: Any, request: Request, plan: SystemPlan) -> Callable[[int], dict[str, Any]]:
        """After the last step of a window, the text of the next one."""
        texts = [
            pipe.encode_prompt(shot.prompt, do_classifier_free_guidance=False, max_sequence_length=TEXT)[0]
            for shot in request.shots[1:]
        ]
        shots = iter(self._shots(request, plan)[1:])

        def text(step: int) -> dict[str, Any]:
            if step + 1 < pipe.num_timesteps or not (shot := next(shots, 0)):
                return {}
            return {"prompt_embeds": texts[shot - 1].to(pipe.transformer.dtype)}

        return text

    def remarks(self, request: Request, plan: SystemPlan) -> tuple[str, ...]:
        starts = [shot.start for shot in request.shots]
        return tuple(moved_prompts(self.windows(plan.frames_made), self._shots(request, plan), starts))

    def _shots(self, request: Request, plan: SystemPlan) -> list[int]:
        """Number of the shot of every window."""
        shots = [(shot.start, shot.stop) for shot in request.shots]
        return shots_of(self.windows(plan.frames_made), shots, self.title)

    def prepare(self, pipe: Any) -> None:
        scheduler = type(pipe.scheduler)
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, flow_shift=self.shift)

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | {
            "base_num_frames": self.window,
            "overlap_history": self.overlap,
            "addnoise_condition": self.add_noise,
            "fps": self.fps,
        }
