"""The first stage of training: the codec is fitted to the world, then the correction of its decoder is trained.

The result goes to a file of its own and into every model file whose latents it made. The same recipe gives the same
bits on one machine with one number of threads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from irope.models.tiny.codec import TinyCodec, pixel_frames, to_cells
from irope.models.tiny.data import HUE_DRIFT, PAUSE_SHARE, fit_codec, to_video
from irope.world import render, sample_scene, sample_staging
from irope.world.scene import ACTIONS

ADDS = "principal components of the world's cells as latents; a decoder that draws the edges they miss"
"""What the stage is for, in a line."""

_CLIPS, _FRESH = 1 << 21, 1 << 22  # keys of two streams of clips: those of this stage and those it is judged on
_HEADER = "irope-codec"


@dataclass(frozen=True)
class DecoderConfig:
    """How the correction is trained: AdamW on the mean squared error of pixels.

    Args:
        width: channels of its layers.
        steps, clips, frames: optimizer steps, clips a step, latent frames a clip.
        rate: the learning rate after ``warmup`` steps; it falls to 0 over the run.
        noise: latents carry noise of up to this deviation, which the correction learns to take out: generated latents
            have errors of their own, and the seams of cells would show in a plain background.
        weight_decay: of AdamW.
    """

    width: int = 128
    steps: int = 800
    clips: int = 8
    frames: int = 5
    rate: float = 6e-3
    warmup: int = 50
    noise: float = 0.2
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class CodecConfig:
    """Everything that decides a codec; ``fit_clips`` clips decide its components."""

    channels: int = 24
    seed: int = 0
    fit_clips: int = 250
    decoder: DecoderConfig = DecoderConfig()


@dataclass(frozen=True)
class CodecProgress:
    """A report on the last steps: what noisy latents of clips decode to, in decibels (PSNR)."""

    step: int
    steps: int
    psnr: float


def train_codec(
    config: CodecConfig,
    report: Callable[[CodecProgress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    report_every: int = 50,
) -> TinyCodec:
    """Fit and train a codec; raises KeyboardInterrupt once ``stop`` says True."""
    settings = config.decoder
    codec = fit_codec(config.channels, config.seed, config.fit_clips, settings.width)
    net = codec.correction.requires_grad_(True)
    net.initialize(config.seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / settings.warmup) * (1 - step / settings.steps)
    )
    errors: list[float] = []
    for step in range(settings.steps):
        if stop():
            raise KeyboardInterrupt(f"stopped at step {step + 1} of the codec, which will begin anew")
        latents, missed = _batch(codec, settings, config.seed, step)
        loss = (net(latents) - missed).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        errors.append(loss.item())
        if report and (step + 1) % report_every == 0:
            report(CodecProgress(step + 1, settings.steps, decibel(float(np.mean(errors)) / 4)))
            errors = []
    net.requires_grad_(False)
    for weight in net.parameters():
        weight.copy_(weight.half())  # as in a file
    return codec


@torch.no_grad()
def _batch(codec: TinyCodec, settings: DecoderConfig, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Noisy latents [B, C, h, w] and what their linear decode misses of the true cells, [B, V, h, w]."""
    generators = [np.random.default_rng([seed, step, clip, _CLIPS]) for clip in range(settings.clips)]
    video = torch.cat([_clip(rng, settings.frames) for rng in generators])
    latents = codec.encode(video).flatten(0, 1)
    generator = torch.Generator().manual_seed(int(generators[0].integers(2**62)))
    level = settings.noise * torch.rand(len(latents), 1, 1, 1, generator=generator)
    noisy = latents + level * torch.randn(latents.shape, generator=generator)
    missed = to_cells(video).flatten(0, 1) - codec.linear(noisy)
    return noisy, missed.permute(0, 3, 1, 2)


def _clip(rng: np.random.Generator, latent_frames: int) -> Tensor:
    scene, staging = sample_scene(rng), sample_staging(rng, hue_drift=HUE_DRIFT, pause_share=PAUSE_SHARE)
    return to_video(render(scene, staging, pixel_frames(latent_frames))[0])


@torch.no_grad()
def codec_psnr(codec: TinyCodec, clips: int = 64, seed: int = 0, spread: float = 1.0) -> tuple[float, float]:
    """What fresh clips of 81 frames lose in the codec, decibels of uint8 pixels: over all clips, and mean over clips.

    The clips are of prompts that training never saw, the actions in turn; their backgrounds drift in hue. ``spread``:
    see `irope.world.sample_staging`.
    """
    errors = []
    for clip in range(clips):
        rng = np.random.default_rng([seed, clip, _FRESH])
        scene = sample_scene(rng, held_out=True, action=ACTIONS[clip % len(ACTIONS)])
        staging = sample_staging(rng, hue_drift=HUE_DRIFT, pause_share=PAUSE_SHARE, spread=spread)
        frames, _ = render(scene, staging, pixel_frames(21))
        decoded = codec.decode(codec.encode(to_video(frames)))[0].numpy()
        errors.append(pixel_error(decoded, frames))
    return decibel(float(np.mean(errors))), float(np.mean([decibel(error) for error in errors]))


def pixel_error(decoded: NDArray[np.uint8], true: NDArray[np.uint8]) -> float:
    """Mean squared difference of two videos over the square of the range, 255."""
    return float(np.square(decoded.astype(np.float64) - true).mean()) / 255**2


def decibel(error: float) -> float:
    """PSNR of a `pixel_error`, or of the mean of several."""
    return float(-10 * np.log10(error))


def prepare_codec(
    path: Path,
    config: CodecConfig,
    report: Callable[[CodecProgress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TinyCodec:
    """The codec of ``path``, or a new one that is then written there; a file is complete or not there.

    Raises:
        ValueError: the file holds a codec of another recipe.
    """
    recipe = json.loads(json.dumps(asdict(config)))
    if path.exists():
        codec, found = read_codec(path)
        if differs := [key for key, value in recipe.items() if found.get(key) != value]:
            raise ValueError(f"{path} holds a codec with other settings: {', '.join(differs)}. Use another --out.")
        return codec
    codec = train_codec(config, report, stop)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file(codec.tensors(), str(part), {_HEADER: json.dumps(recipe)})
    part.replace(path)
    return codec


def read_codec(path: Path) -> tuple[TinyCodec, Mapping[str, object]]:
    """A codec file and its recipe; raises ValueError when it is none."""
    with safe_open(str(path), "pt") as file:
        header = file.metadata() or {}
        if _HEADER not in header:
            raise ValueError(f"{path} holds no codec; make one with: irope train tiny --stage codec --out FOLDER")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    return TinyCodec.from_tensors(tensors, str(path)), json.loads(header[_HEADER])


def full_recipe(recipe: Mapping[str, object], decoder: object) -> tuple[dict[str, object], str]:
    """The recipe that a model file quotes, with that of its decoder; and the hash that names it."""
    whole = {**recipe, "decoder": decoder}
    return whole, hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]
