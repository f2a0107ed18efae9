"""How fast a block can be at best: FLOPs of a pass over the matrix rate that this device was measured at.

A pass is one forward of the network over a block's frames against a window of key frames; a block is the denoising
passes and the context pass. At a batch of one the work is compute-bound on a large GPU (weights of 1.3B in bfloat16 are
read in under a millisecond a pass), so bytes are reported beside and not added.

Shape letters: n query tokens, m key tokens, d model width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from irope.transformer import WanConfig

PASSES = 5
"""Four denoising steps and the context pass."""
PIXEL_FRAMES = 4
"""Pixel frames of a latent frame."""
ATTENTION = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
"""PyTorch's fused kernels, in the order in which `irope.transformer.attention_backends` asks for them."""


@dataclass(frozen=True)
class PassFlops:
    """FLOPs of one pass: projections, feed-forward, patches and head; self-attention; cross-attention."""

    linear: float
    attention: float
    cross: float

    @property
    def total(self) -> float:
        return self.linear + self.attention + self.cross


def pass_flops(config: WanConfig, tokens: int, frames: int, window: int) -> PassFlops:
    """FLOPs of ``frames`` query frames of ``tokens`` tokens against ``window`` key frames, the own ones included.

    Linear: q k v o and cross q o (6 d^2), feed-forward (2 d f), patches in and out. Attention: 4 n m d a layer.
    """
    n, m, d = frames * tokens, window * tokens, config.dim
    patch = config.patch_size[0] * config.patch_size[1] * config.patch_size[2]
    layer = 2 * n * (6 * d * d + 2 * d * config.ffn_dim)
    ends = 2 * n * d * patch * (config.in_dim + config.out_dim)
    return PassFlops(
        linear=config.num_layers * layer + ends,
        attention=config.num_layers * 4 * n * m * d,
        cross=config.num_layers * 4 * n * config.text_len * d,
    )


def block_flops(config: WanConfig, tokens: int, frames: int, window: int, passes: int = PASSES) -> float:
    """FLOPs of one block at a full window."""
    return passes * pass_flops(config, tokens, frames, window).total


def text_flops(config: WanConfig) -> float:
    """FLOPs of the cross-attention keys and values of one prompt, its embedding included."""
    d = config.dim
    return config.num_layers * 4 * config.text_len * d * d + 2 * config.text_len * (config.text_dim * d + d * d)


def recache_flops(config: WanConfig, tokens: int, frames: int) -> float:
    """FLOPs of KV Recache: one pass of ``frames`` frames that see each other, and the new prompt's keys and values."""
    return pass_flops(config, tokens, frames, frames).total + text_flops(config)


def frame_bytes(config: WanConfig, tokens: int, itemsize: int = 2) -> int:
    """Bytes of the keys and values of one latent frame over all layers."""
    return 2 * config.num_layers * tokens * config.dim * itemsize


def weight_bytes(config: WanConfig, itemsize: int = 2) -> int:
    """Bytes of the matrices that every pass reads."""
    return config.num_layers * (6 * config.dim**2 + 2 * config.dim * config.ffn_dim) * itemsize


@dataclass(frozen=True)
class Roof:
    """What a device reaches at best: FLOP/s of a large matrix product, bytes/s of a large copy (read + written)."""

    matmul: float
    copy: float

    def block_seconds(self, config: WanConfig, tokens: int, frames: int, window: int) -> float:
        """The least time of a block, denoising and context pass, without decoding."""
        return block_flops(config, tokens, frames, window) / self.matmul

    def share(self, seconds: float, config: WanConfig, tokens: int, frames: int, window: int) -> float:
        """Which part of the roof a block of ``seconds`` reaches, 0..1."""
        return self.block_seconds(config, tokens, frames, window) / seconds

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def frames_per_second(seconds: float, frames: int = 3) -> float:
    """Pixel frames per second of blocks of ``frames`` latent frames that take ``seconds``."""
    return PIXEL_FRAMES * frames / seconds


def timed(work: Callable[[], object], device: torch.device, least: float = 0.3) -> float:
    """Seconds of one call, the device's work finished: median of 5 calls, of more while ``least`` seconds last."""
    taken: list[float] = []
    work()
    while len(taken) < 5 or sum(taken) < least:
        start = now(device)
        work()
        taken.append(now(device) - start)
    return sorted(taken)[len(taken) // 2]


def now(device: torch.device) -> float:
    """Seconds on a clock: wall time once the GPU's work is finished; on a CPU, which others share, CPU time."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure_roof(device: torch.device, dtype: torch.dtype = torch.bfloat16, size: int = 8192) -> Roof:
    """Rate of a ``size`` cubed matrix product of normal numbers, and of a copy of 16 times that matrix."""
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    product = timed(lambda: torch.matmul(a, b, out=out), device)
    source = a.repeat(16, 1)
    target = torch.empty_like(source)
    copied = timed(lambda: target.copy_(source), device)
    return Roof(matmul=2 * size**3 / product, copy=2 * source.nbytes / copied)


def measure_attention(
    device: torch.device, dtype: torch.dtype, config: WanConfig, queries: int, keys: int
) -> dict[str, float | None]:
    """FLOP/s of attention without a mask, [B, L, N, K] as a cache holds it, by kernel; None where one refuses or errs.

    A kernel errs where its last queries are more than 2 % (relative norm) from the same in float32.
    """
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = (
        torch.randn(1, length, config.num_heads, config.head_dim, device=device, generator=generator)
        .to(dtype)
        .transpose(1, 2)
        for length in (queries, keys, keys)
    )
    last = slice(-64, None)
    weights = torch.softmax(q[:, :, last].float() @ k.float().mT * config.head_dim**-0.5, dim=-1)
    wanted = weights @ v.float()
    found: dict[str, float | None] = {}
    for name, backend in ATTENTION.items():
        try:
            with sdpa_kernel(backend):
                made = F.scaled_dot_product_attention(q, k, v)[:, :, last].float()
                seconds = timed(lambda: F.scaled_dot_product_attention(q, k, v), device)
        except RuntimeError:
            found[name] = None
        else:
            right = bool((made - wanted).norm() < 0.02 * wanted.norm())
            found[name] = 4 * queries * keys * config.dim / seconds if right else None
    return found
