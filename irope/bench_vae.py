"""How long the Wan decoder takes for a block: from the published way of running it to the fastest."""

from __future__ import annotations

import traceback
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from irope.bench_rollout import BLOCK, Geometry
from irope.bench_statistics import Spread
from irope.models.wan.vae import WanCodec
from irope.roofline import now

LADDER: dict[str, dict[str, Any]] = {
    "one latent a call, channels first (as published)": {"channels_last": False},
    "channels last": {},
    "three latents a call": {"latents_per_call": BLOCK},
    "three latents a call, compiled": {"latents_per_call": BLOCK, "compiled": True},
    "three latents a call, cuDNN tries its kernels": {"latents_per_call": BLOCK, "tries": True},
}
"""The last rung shows what cuDNN's first choice costs. Nothing else here uses it: which kernel wins may change from run
to run, and with it the rounding of a video."""
_STREAM = 4
"""Blocks of a stream before it is steady: the first latent is decoded by itself, a compiler begins with the second, and
may begin anew with the first features that it made itself."""


def random_vae(device: torch.device, dtype: torch.dtype, small: bool) -> Any:
    """The decoder's architecture with the random weights that diffusers begins with."""
    from irope.models.wan.parts import import_extra

    module = import_extra("diffusers")
    with torch.random.fork_rng(devices=[]):
        return module.AutoencoderKLWan(base_dim=4 if small else 96).to(device, dtype).eval()


def channels_first(codec: WanCodec) -> None:
    for layer in codec.vae.decoder.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Conv3d)):
            layer.weight.data = layer.weight.data.contiguous()


def ladder(
    device: torch.device, dtype: torch.dtype, geometry: Geometry, blocks: int, small: bool
) -> tuple[dict[str, Any], WanCodec]:
    """Milliseconds of a block for every rung, and the codec of the fastest that a roll-out may use.

    ``difference`` is the mean one to the frames of the first rung, in steps of 255.
    """
    generator = torch.Generator(device).manual_seed(0)
    shape = (1, BLOCK, 16, geometry.height, geometry.width)
    latents = torch.randn(shape, device=device, generator=generator)
    vae = random_vae(device, dtype, small)
    found: dict[str, Any] = {}
    first: Tensor | None = None
    best, least = None, float("inf")
    for name, options in LADDER.items():
        if small and options.get("compiled"):
            continue  # a compiler costs minutes
        settings = {key: value for key, value in options.items() if key not in ("channels_last", "tries")}
        codec = WanCodec(deepcopy(vae), **settings)
        if not options.get("channels_last", True):
            channels_first(codec)
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = options.get("tries", False)
        try:
            warm_up, taken, frames = _stream(codec, latents, device, blocks)
        except Exception as error:  # above all of a compiler: the rungs below it still count
            traceback.print_exc()
            found[name] = {"failed": type(error).__name__}
            continue
        finally:
            torch.backends.cudnn.benchmark = before
        spread = Spread.of(taken)
        first = frames if first is None else first
        found[name] = {
            "block_ms": asdict(spread),
            "latent_ms": spread.median / BLOCK,
            "warm_up_s": warm_up,
            "difference": float((frames.float() - first.float()).abs().mean()),
        }
        if spread.median < least and not options.get("tries"):
            best, least = codec, spread.median
    if best is None:
        raise RuntimeError(f"no way of decoding runs here: {found}")
    return found, best


@torch.inference_mode()  # as in a roll-out: a compiler would begin anew for tensors of another mode
def _stream(codec: WanCodec, latents: Tensor, device: torch.device, blocks: int) -> tuple[float, list[float], Tensor]:
    """Seconds of the first blocks of a stream together, and of each one after; frames of the last of the first."""
    begun = now(device)
    decode = codec.decoder()
    for _ in range(_STREAM):
        frames = decode(latents).cpu()
    warm_up = now(device) - begun
    return warm_up, [_once(decode, latents, device) for _ in range(blocks)], frames


def _once(decode: Any, latents: Tensor, device: torch.device) -> float:
    start = now(device)
    decode(latents).cpu()
    return now(device) - start
