"""Rotary position embedding: the only place in the project with angles.

Shape letters: B batch, L tokens, F frames, H heads, D head dimension, P = D/2 rotation pairs.

Wan2.1 rotates *adjacent* channel pairs and splits them over time, row and column; each axis has its own frequencies
theta^(-2j/d_axis). Only the temporal index differs between cache policies. Angles are float64, cosine and sine are
float32, and the rotated result is rounded once to the dtype of the input (fidelity notes: a float32 angle is off by
.025 rad at index 1e6, a bfloat16 cosine adds 15-30 % error).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

THETA = 10000.0


def split_head_dim(head_dim: int) -> tuple[int, int, int]:
    """Channels of one head given to (time, row, column), as Wan splits them: 128 -> (44, 42, 42).

    Raises:
        ValueError: the head dimension is odd or too small to give every axis a pair.
    """
    if head_dim % 2 or head_dim < 6:
        raise ValueError(f"head_dim must be even and at least 6 to rotate over (time, row, column), got {head_dim}")
    space = 2 * (head_dim // 6)
    return head_dim - 2 * space, space, space


def axis_angles(index_N: Tensor, dim: int, theta: float = THETA) -> Tensor:
    """Angles [N, dim/2], float64: index times theta^(-2j/dim)."""
    exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=index_N.device) / dim
    return index_N.to(torch.float64)[:, None] * theta**-exponent


def temporal_angles(index: Sequence[float], dim: int, head_theta: Sequence[float] | None = None) -> Tensor:
    """Temporal angles [F, 1, dim/2], or [F, H, dim/2] when every head has a base of its own (LoL), float64, on the CPU.

    The index may be any finite number; float64 keeps it exact far beyond 2^24.
    """
    index_F = torch.tensor(index, dtype=torch.float64)
    if head_theta is None:
        return axis_angles(index_F, dim)[:, None]
    return torch.stack([axis_angles(index_F, dim, theta) for theta in head_theta], dim=1)


def spatial_angles(grid: tuple[int, int], dims: tuple[int, int, int]) -> Tensor:
    """Row and column angles [rows*columns, (dims[1]+dims[2])/2] of the tokens of one frame, float64, on the CPU."""
    rows, columns = grid
    row_angles = axis_angles(torch.arange(rows), dims[1])
    column_angles = axis_angles(torch.arange(columns), dims[2])
    return torch.cat(
        [row_angles[:, None].expand(-1, columns, -1), column_angles[None].expand(rows, -1, -1)], dim=-1
    ).flatten(0, 1)


def join_angles(temporal_FHP: Tensor, spatial_SP: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin), float32, [F*S, H or 1, P], of every token of F frames; ``spatial_SP`` is [S, P] or [F, S, P]."""
    frames, heads, _ = temporal_FHP.shape
    spatial_FSP = spatial_SP if spatial_SP.dim() == 3 else spatial_SP.expand(frames, -1, -1)
    tokens = spatial_FSP.shape[1]
    angles = torch.cat(
        [
            temporal_FHP[:, None].expand(-1, tokens, -1, -1),
            spatial_FSP[:, :, None].expand(-1, -1, heads, -1),
        ],
        dim=-1,
    ).flatten(0, 1)
    return angles.cos().float(), angles.sin().float()


def rope_cos_sin(
    index: Sequence[float],
    grid: tuple[int, int],
    dims: tuple[int, int, int],
    head_theta: Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """(cos, sin), float32, [F*rows*columns, 1 or H, P] for frames at the temporal indices ``index`` (one per frame)."""
    return join_angles(temporal_angles(index, dims[0], head_theta), spatial_angles(grid, dims))


def unit(angles: Tensor, dtype: torch.dtype) -> Tensor:
    """cos + i sin of float64 angles, each rounded to float32, in ``dtype`` (complex64 or complex128)."""
    return torch.complex(angles.cos().float(), angles.sin().float()).to(dtype)


def join_phases(temporal_FHP: Tensor, spatial_SP: Tensor) -> Tensor:
    """`join_angles` for phases that `unit` made, where they are: [F*S, H or 1, P]; ``spatial_SP`` [S, P] or [F, S, P].

    Few numbers decide the temporal part, so they are what is sent to a device; the spatial part stays there.
    """
    spatial_FSP = spatial_SP.expand(len(temporal_FHP), *spatial_SP.shape[-2:])
    tokens, heads = spatial_FSP.shape[1], temporal_FHP.shape[1]
    parts = [temporal_FHP[:, None].expand(-1, tokens, -1, -1), spatial_FSP[:, :, None].expand(-1, -1, heads, -1)]
    return torch.cat(parts, dim=-1).flatten(0, 1)


def turn(x_BLHD: Tensor, phase: Tensor) -> Tensor:
    """Rotate adjacent channel pairs by ``phase`` = cos + i sin, complex, broadcastable to [B, L, H, P].

    Multiplies in the precision of the phase and rounds once to the dtype of the input; the conjugate turns back.
    """
    pairs_BLHP = torch.view_as_complex(x_BLHD.to(phase.real.dtype).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs_BLHP * phase).flatten(-2).to(x_BLHD.dtype)  # one kernel instead of ten


def phases(length: int, dims: tuple[int, int, int]) -> Tensor:
    """Unit complex numbers of the indices 0 .. length-1, complex128 [length, P]: the published code's table.

    The columns of time, row and column stand side by side, each with its own frequencies.
    """
    angles = torch.cat([axis_angles(torch.arange(length), dim) for dim in dims], dim=1)
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x_BLHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate adjacent channel pairs by the angles behind ``cos`` and ``sin`` ([L, 1 or H, P] or [B, L, 1 or H, P]).

    Multiplies in float32 (float64 for a float64 input) and rounds once to the dtype of the input.
    """
    work = torch.float64 if x_BLHD.dtype == torch.float64 else torch.float32
    return turn(x_BLHD, torch.complex(cos.to(work), sin.to(work)))


def rotate_as_published(x_BLHD: Tensor, index_F: Tensor, grid: Tensor, table: Tensor) -> Tensor:
    """What `turn` does, with the published casts and copies: complex128 throughout, an empty tail joined on, a stack.

    Args:
        index_F: temporal index of every frame, on the device.
        grid: (frames, rows, columns) of each video, int64 [B, 3], on the CPU.
        table: from `phases`, on the device.
    """
    space = table.shape[1] // 3
    widths = [table.shape[1] - 2 * space, space, space]
    turned = []
    for video_LHD, size in zip(x_BLHD, grid.tolist(), strict=True):
        spread = []
        for axis, (phase, at) in enumerate(
            zip(table.split(widths, dim=1), (index_F, slice(size[1]), slice(size[2])), strict=True)
        ):
            shape = [1, 1, 1, -1]
            shape[axis] = size[axis]
            spread.append(phase[at].view(shape).expand(*size, -1))
        phase_L1P = torch.cat(spread, dim=-1).flatten(0, 2)[:, None]
        pairs_LHP = torch.view_as_complex(video_LHD[: len(phase_L1P)].double().unflatten(-1, (-1, 2)))
        whole = torch.view_as_real(pairs_LHP * phase_L1P).flatten(-2)
        turned.append(torch.cat([whole, video_LHD[len(phase_L1P) :]]))
    return torch.stack(turned).to(x_BLHD.dtype)
