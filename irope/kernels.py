"""Triton kernels for what lies between matrix products and attention. Optional: without Triton plain torch does it.

Shape letters: B batch, L tokens of a call, S tokens per frame, D width, N heads, K head dimension, M tokens held.

They round where plain torch rounds (`irope.transformer.rms_norm`, `irope.rope.turn`, `modulate`): float32 inside, one
rounding to the model's dtype after normalising, after the weight, after the rotation.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # an optional package: a CPU, or a torch built without it
    triton = None

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton makes kernels that a CPU carries out; it, too, looks when a kernel is made, which is now."""
OFF = os.environ.get("IROPE_KERNELS") == "0"
"""A way to go on where a kernel does not work on a GPU that nobody here has tried."""


@cache
def usable(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels run there: on a GPU, or on a CPU where Triton interprets them (``TRITON_INTERPRET=1``).

    ``IROPE_KERNELS=0`` lets plain torch do the work everywhere.
    """
    known = dtype in (torch.bfloat16, torch.float32)
    return triton is not None and known and not OFF and (device.type == "cuda" or INTERPRETED)


if triton is not None:

    @triton.jit
    def _pairs(x, block: tl.constexpr):  # type: ignore[no-untyped-def]
        return tl.split(tl.reshape(x, (block // 2, 2)))

    @triton.jit
    def _norm_turn_store(  # type: ignore[no-untyped-def]
        y, norms, phase, slots, queries, keys, values,
        length, tokens, width, head_dim, phase_heads, buffer_stride, eps,
        block: tl.constexpr,
    ):  # fmt: skip
        """One token of one video: program (token, video, part) with part 0 for q, 1 for k, 2 for v."""
        token, video, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
        channel = tl.arange(0, block)
        inside = channel < width
        x = tl.load(y + ((video.to(tl.int64) * length + token) * 3 + part) * width + channel, mask=inside, other=0.0)
        dtype = x.dtype
        slot = tl.load(slots + token // tokens)
        target = video.to(tl.int64) * buffer_stride + (slot.to(tl.int64) * tokens + token % tokens) * width + channel
        kept = inside & (channel * 0 + slot >= 0)
        if part == 2:
            tl.store(values + target, x, mask=kept)
        else:
            wide = x.to(tl.float32)
            scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / width + eps)
            weight = tl.load(norms + part * width + channel, mask=inside, other=0.0)
            normed = ((wide * scale).to(dtype).to(tl.float32) * weight.to(tl.float32)).to(dtype)
            a, b = _pairs(normed.to(tl.float32), block)
            pair = tl.arange(0, block // 2)
            half = head_dim // 2
            head = tl.where(phase_heads > 1, pair // half, 0)
            at = ((token.to(tl.int64) * phase_heads + head) * half + pair % half) * 2
            whole = pair < width // 2
            cos = tl.load(phase + at, mask=whole, other=0.0)
            sin = tl.load(phase + at + 1, mask=whole, other=0.0)
            turned = tl.reshape(tl.join(a * cos - b * sin, a * sin + b * cos), (block,)).to(dtype)
            if part == 0:
                row = (video.to(tl.int64) * length + token) * width + channel
                tl.store(queries + row, turned, mask=inside)
            else:
                tl.store(keys + target, turned, mask=kept)

    @triton.jit
    def _row(length, tokens, videos, frames):  # type: ignore[no-untyped-def]
        """Which row of a [videos, frames, D] modulation a token has; one that all frames or videos share is 0."""
        row = tl.program_id(0).to(tl.int64)
        return (row // length * (videos > 1)) * frames + (row % length // tokens) * (frames > 1)

    @triton.jit
    def _norm_modulate(  # type: ignore[no-untyped-def]
        x, shift, scale, out, length, tokens, width, videos, frames, eps, block: tl.constexpr, wide: tl.constexpr
    ):
        """One token: LayerNorm(x) * scale + shift."""
        row = tl.program_id(0).to(tl.int64) * width
        channel = tl.arange(0, block)
        inside = channel < width
        value = tl.load(x + row + channel, mask=inside, other=0.0)
        dtype = value.dtype
        value = value.to(tl.float32)
        centred = tl.where(inside, value - tl.sum(value, axis=0) / width, 0.0)
        normed = centred * tl.rsqrt(tl.sum(centred * centred, axis=0) / width + eps)
        at = _row(length, tokens, videos, frames) * width + channel
        factor = tl.load(scale + at, mask=inside, other=0.0).to(tl.float32)
        offset = tl.load(shift + at, mask=inside, other=0.0).to(tl.float32)
        product = normed.to(dtype).to(tl.float32) * factor
        if not wide:  # a modulation in float32 rounds once, at the end
            product = product.to(dtype).to(tl.float32)
        tl.store(out + row + channel, (product + offset).to(dtype), mask=inside)

    @triton.jit
    def _gated_sum(  # type: ignore[no-untyped-def]
        x, y, gate, out, length, tokens, width, videos, frames, block: tl.constexpr
    ):
        """One token: x + y * gate."""
        row = tl.program_id(0).to(tl.int64) * width
        channel = tl.arange(0, block)
        inside = channel < width
        value = tl.load(x + row + channel, mask=inside, other=0.0)
        factor = tl.load(gate + _row(length, tokens, videos, frames) * width + channel, mask=inside, other=0.0)
        change = tl.load(y + row + channel, mask=inside, other=0.0).to(tl.float32) * factor.to(tl.float32)
        change = change.to(value.dtype).to(tl.float32)
        tl.store(out + row + channel, (value.to(tl.float32) + change).to(value.dtype), mask=inside)

    @triton.jit
    def _quantise_rows(x, values, scales, width, largest, block: tl.constexpr):  # type: ignore[no-untyped-def]
        """One row: its scale, and what is left, in e4m3."""
        row = tl.program_id(0).to(tl.int64)
        column = tl.arange(0, block)
        inside = column < width
        wide = tl.load(x + row * width + column, mask=inside, other=0.0).to(tl.float32)
        scale = tl.math.div_rn(tl.maximum(tl.max(tl.abs(wide), axis=0), 1e-12), largest)
        tl.store(values + row * width + column, tl.math.div_rn(wide, scale).to(tl.float8e4nv), mask=inside)
        tl.store(scales + row, scale)


def norm_turn_store(
    y_BL3D: Tensor, norms_2D: Tensor, eps: float, phase: Tensor, slots_F: Tensor, keys_BMNK: Tensor, values_BMNK: Tensor
) -> Tensor:
    """Queries [B, L, N, K], normalised and rotated; keys, treated alike, and values go into their slots.

    Args:
        y_BL3D: q, k and v of a call as they leave their projection, contiguous.
        norms_2D: weights of the RMSNorm of q and of k.
        phase: cos + i sin, complex64 [L, 1 or N, K/2].
        slots_F: int32, the slot of every frame of the call; -1: its keys and values are not kept.
        keys_BMNK, values_BMNK: of one layer, written in place.
    """
    assert y_BL3D.is_contiguous()
    batch, length, _, width = y_BL3D.shape
    heads, head_dim = keys_BMNK.shape[2:]
    queries = y_BL3D.new_empty(batch, length, heads, head_dim)
    _norm_turn_store[length, batch, 3](
        y_BL3D, norms_2D, torch.view_as_real(phase), slots_F, queries, keys_BMNK, values_BMNK,
        length, length // len(slots_F), width, head_dim, phase.shape[1], keys_BMNK.stride(0), eps,
        block=_power_of_two(width), num_warps=4,
    )  # fmt: skip
    return queries


def norm_modulate(x_BFSD: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """LayerNorm without affine, times ``scale`` (1 + scale of the published code), plus ``shift``.

    Args:
        shift, scale: [B or 1, F or 1, 1, D].
    """
    assert x_BFSD.is_contiguous()
    out = torch.empty_like(x_BFSD)
    wide = shift.dtype != x_BFSD.dtype
    _norm_modulate[(x_BFSD.numel() // x_BFSD.shape[-1],)](
        x_BFSD, shift.contiguous(), scale.contiguous(), out, *_sizes(x_BFSD, shift), eps,
        block=_power_of_two(x_BFSD.shape[-1]), wide=wide, num_warps=4,
    )  # fmt: skip
    return out


def gated_sum(x_BFSD: Tensor, y_BFSD: Tensor, gate: Tensor) -> Tensor:
    """x + y * gate; ``gate`` [B or 1, F or 1, 1, D]."""
    assert x_BFSD.is_contiguous()
    assert y_BFSD.is_contiguous()
    out = torch.empty_like(x_BFSD)
    _gated_sum[(x_BFSD.numel() // x_BFSD.shape[-1],)](
        x_BFSD, y_BFSD, gate.contiguous(), out, *_sizes(x_BFSD, gate),
        block=_power_of_two(x_BFSD.shape[-1]), num_warps=4,
    )  # fmt: skip
    return out


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """e4m3 values of [rows, columns] and the scale of every row, float32 [rows, 1]; see `irope.fp8.quantise`."""
    x = x.contiguous()
    rows, width = x.shape
    values = torch.empty_like(x, dtype=torch.float8_e4m3fn)
    scales = x.new_empty(rows, 1, dtype=torch.float32)
    _quantise_rows[(rows,)](
        x, values, scales, width, torch.finfo(values.dtype).max, block=_power_of_two(width), num_warps=8
    )
    return values, scales


def _sizes(x_BFSD: Tensor, modulation: Tensor) -> tuple[int, ...]:
    """Tokens of a video and of a frame, width, and how many videos and frames have a modulation of their own."""
    _, frames, tokens, width = x_BFSD.shape
    return frames * tokens, tokens, width, *modulation.shape[:2]


def _power_of_two(width: int) -> Any:
    return 1 << (width - 1).bit_length()
