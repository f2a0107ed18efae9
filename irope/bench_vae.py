"""How long the Wan decoder takes for a block: from the published way of running it to the fastest."""

from __future__ import annotations

import traceback
from copy import deepcopy
from dataclasses import asdict, dataclass
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from irope.bench_rollout import BLOCK, Geometry
from irope.bench_statistics import Spread
from irope.models.wan.vae import CONVOLUTIONS, Features, WanCodec
from irope.op_counter import OpCounter, Tally
from irope.roofline import now


@dataclass(frozen=True)
class Rung:
    """A way of decoding.

    Attributes:
        published: channels first and norms in the VAE's dtype, as the published code has them. diffusers casts norms to
            float32 and back, which a compiler makes free and nothing else does.
        tries: cuDNN tries its kernels, which shows what its first choice costs. Nothing else here does: which kernel
            wins may change from run to run, and with it the rounding of a video.
    """

    latents_per_call: int = 1
    compiled: bool = False
    published: bool = False
    tries: bool = False

    @property
    def for_videos(self) -> bool:
        """Whether a roll-out may use it."""
        return not self.published and not self.tries


LADDER = {
    "one latent a call, channels first (as published)": Rung(published=True),
    "three latents a call, channels last": Rung(latents_per_call=BLOCK),
    "three latents a call, channels last, compiled": Rung(latents_per_call=BLOCK, compiled=True),
    "three latents a call, channels last, cuDNN tries its kernels": Rung(latents_per_call=BLOCK, tries=True),
}
_STREAM = 4
"""Blocks of a stream before it is steady: the first latent is decoded by itself, a compiler begins with the second, and
may begin anew with the first features that it made itself."""


def random_vae(device: torch.device, dtype: torch.dtype, small: bool) -> Any:
    """The decoder's architecture with the random weights that diffusers begins with."""
    from irope.models.wan.parts import import_extra

    module = import_extra("diffusers")
    with torch.random.fork_rng(devices=[]):
        return module.AutoencoderKLWan(base_dim=4 if small else 96).to(device, dtype).eval()


def as_published(vae: Any) -> None:
    """Let the decoder of diffusers run the published operations: Wan2.1's norms stay in the dtype of the VAE."""
    for layer in vae.decoder.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Conv3d)):
            layer.weight.data = layer.weight.data.contiguous()
        elif type(layer).__name__ == "WanRMS_norm":
            layer.forward = MethodType(_norm, layer)


def _norm(layer: Any, x_BCFyx: Tensor) -> Tensor:
    return F.normalize(x_BCFyx, dim=1) * layer.scale * layer.gamma + layer.bias


def count_decoder(geometry: Geometry, published: bool) -> Tally:
    """What one latent frame of a steady stream asks of the device, on the ``meta`` device in bfloat16."""
    meta = torch.device("meta")
    with meta:
        vae = random_vae(meta, torch.bfloat16, small=False)
    if published:
        as_published(vae)
    features: Features = [None] * CONVOLUTIONS
    latent = torch.empty(1, 16, 1, geometry.height, geometry.width, dtype=torch.bfloat16, device=meta)
    for number in range(4):
        with OpCounter() as counter:
            z = vae.post_quant_conv(latent)
            vae.decoder(z, feat_cache=features, feat_idx=[0], first_chunk=number == 0)
    return counter.total


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
    for name, rung in LADDER.items():
        if small and rung.compiled:
            continue  # a compiler costs minutes
        codec = WanCodec(deepcopy(vae), rung.latents_per_call, compiled=rung.compiled)
        if rung.published:
            as_published(codec.vae)
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = rung.tries
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
        if spread.median < least and rung.for_videos:
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
