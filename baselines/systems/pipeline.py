"""Systems that diffusers runs in this process: weights from the folder as published, one call of the pipeline a video.

Frames depend on settings, weights, prompt and seed alone. Noise is drawn on the CPU, so that it is the same on every
device; pipelines that also draw from the hidden generator of torch find it in a state that the seed decides, and it is
put back afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from irope.systems import (
    Beat,
    ImpossibleError,
    Interrupted,
    Out,
    Place,
    Request,
    RunInfo,
    Stop,
    System,
    SystemPlan,
    SystemSettingsError,
    weights_folder,
)

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "model_index.json"
PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
"""Folders of a published repository that a pipeline is made of; the rest of some is much larger."""


@dataclass(frozen=True)
class Pipeline(System):
    """A diffusers pipeline with Wan's or another VAE.

    Attributes:
        pipeline: name of the class in diffusers.
        stride: frames of a latent; a video has 1 + stride * k frames. ``grid``: height and width are multiples of it.
        native: frames of one call, the longest video without another one.
    """

    pipeline: ClassVar[str]
    stride: ClassVar[int] = 4
    grid: ClassVar[int] = 16
    native: ClassVar[int]

    # Subclasses order their own fields; these come first.
    height: int = 480
    width: int = 832
    steps: int = 50
    guidance: float = 5.0
    negative_prompt: str = ""
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < self.grid or value % self.grid:
                below = max(self.grid, value // self.grid * self.grid)
                raise SystemSettingsError(
                    f"system {self.name!r}: {name}={value} is no multiple of {self.grid}; nearest valid: "
                    f"{below} or {below + self.grid}"
                )
        if self.dtype not in ("bfloat16", "float16", "float32"):
            raise SystemSettingsError(
                f"system {self.name!r}: dtype={self.dtype}: expected bfloat16, float16 or float32"
            )

    def picture(self) -> tuple[int, int]:
        return self.height, self.width

    def plan(self, seconds: float) -> SystemPlan:
        """One call. A frame more than asked for is kept: the first latent has one frame only."""
        frames = self.frames(seconds)
        made = self.whole(frames)
        if frames < 1 or made > self.native:
            raise ImpossibleError(
                f"{self.title} makes videos of up to {self.native} frames ({self.native / self.rate():.2f} s), "
                f"asked for {seconds:g} s"
            )
        return SystemPlan(1, made, kept(made, frames))

    def whole(self, frames: int) -> int:
        """Frames of whole latents, at least ``frames``."""
        return 1 + -(-max(0, frames - 1) // self.stride) * self.stride

    def check(self, place: Place) -> None:
        self.folder(place)

    def digest(self, place: Place) -> Mapping[str, Any]:
        from irope.provenance import package_versions

        version = dict(package_versions()).get("diffusers")
        return {self.needs[0]: _digest(self.folder(place)), "diffusers": version}

    def folder(self, place: Place) -> Path:
        """The published weights. WeightsError with the command that downloads them if they are not there, or a part."""
        return weights_folder(place, self.needs[0], [INDEX, *(f"{part}/*" for part in PARTS)])

    def generate(self, request: Request, out: Out, beat: Beat, stop: Stop) -> RunInfo:
        import torch

        device = _device(request.place.device)
        pipe = _loaded(self.pipeline, self.folder(request.place), self.dtype, device)
        self.prepare(pipe)
        plan = self.plan(request.seconds)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()

        def heed(*told: Any) -> dict[str, Any]:
            beat()
            if stop():
                raise Interrupted(f"{self.name}: stopped; it starts over")
            return following(told[1]) if told else {}

        with torch.inference_mode(), _hidden_seed(request.seed, device):
            following = self.following(pipe, request, plan)
            result = pipe(
                prompt=request.prompt,
                negative_prompt=self.negative_prompt,
                height=self.height,
                width=self.width,
                num_frames=plan.frames_made,
                num_inference_steps=self.steps,
                guidance_scale=self.guidance,
                generator=torch.Generator("cpu").manual_seed(request.seed),
                callback_on_step_end=heed,
                **self.arguments(),
            )
            self.deliver(pipe, result.frames, out, heed)
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
        return RunInfo(plan.calls, _versions(), peak, self.remarks(request, plan))

    def prepare(self, pipe: Any) -> None:
        """Set what of the pipeline is a setting of ours."""

    def following(self, pipe: Any, request: Request, plan: SystemPlan) -> Callable[[int], dict[str, Any]]:
        """What the pipeline takes over after a step of this number; here nothing."""
        return lambda _step: {}

    def remarks(self, request: Request, plan: SystemPlan) -> tuple[str, ...]:
        """What a reader of the sidecar should know."""
        return ()

    def arguments(self) -> dict[str, Any]:
        """What else the pipeline is called with."""
        return {"output_type": "latent"}

    def deliver(self, pipe: Any, latents_BCFhw: Tensor, out: Out, heed: Any) -> None:
        """Decode latents with Wan's VAE, some at a time, so that a long video is never held as pixels."""
        from irope.models.wan.vae import WanCodec

        decoder = WanCodec(pipe.vae).decoder()
        for latents in latents_BCFhw.transpose(1, 2).split(5, dim=1):
            out(decoder(latents)[0].cpu().numpy())
            heed()


def kept(made: int, frames: int) -> int:
    """Frames that stay of those made: all where that is what was asked for but the one of the first latent."""
    return made if made - frames <= 1 else frames


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


@lru_cache(maxsize=1)
def _loaded(kind: str, folder: Path, dtype: str, device: str) -> Any:
    """The pipeline of a folder, the VAE in float32 as its authors run it; one at a time stays loaded.

    Raises:
        WeightsError: diffusers is missing, or the folder is not what the pipeline needs.
    """
    import torch

    from irope.errors import WeightsError
    from irope.models.wan.parts import import_extra

    import_extra("accelerate")  # diffusers cannot keep parts of a model in float32 without it
    diffusers = import_extra("diffusers")
    try:
        pipe = getattr(diffusers, kind).from_pretrained(
            folder, torch_dtype={"default": getattr(torch, dtype), "vae": torch.float32}, local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{folder}: {kind} cannot be loaded from it: {' '.join(str(error).split())}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def hidden_seed(seed: int) -> int:
    """Seed of what a pipeline draws from torch's own generators, apart from the noise of the latents.

    On the CPU torch looks at 32 bits of a seed only, so a large number added to it would change nothing.
    """
    return int.from_bytes(sha256(f"hidden {seed}".encode()).digest()[:4], "big")


@contextmanager
def _hidden_seed(seed: int, device: str) -> Iterator[None]:
    """torch's own generators in a state that the seed decides; afterwards as they were."""
    import torch

    own = hidden_seed(seed)
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.set_rng_state(torch.Generator().manual_seed(own).get_state())
        for index in devices:
            state = torch.Generator(f"cuda:{index}").manual_seed(own).get_state()
            torch.cuda.set_rng_state(state, index)
        yield


def _digest(folder: Path) -> str:
    """One digest of what a published folder holds for the pipeline."""
    from irope.digests import digest

    files = [folder / INDEX, *(path for part in PARTS for path in sorted((folder / part).rglob("*")))]
    files = [path for path in files if path.is_file()]
    lines = "".join(f"{path.relative_to(folder).as_posix()} {digest(path)}\n" for path in files)
    return sha256(lines.encode()).hexdigest()


def _versions() -> dict[str, str]:
    from irope.provenance import package_versions

    return {name: version for name, version in package_versions() if name in ("diffusers", "transformers", "torch")}
