"""Self-attention for training: a clean and a noisy copy of a clip side by side in one forward pass.

Block i of either copy attends to the clean frames before it, as far as a window allows, and to itself. That is what a
block sees in a rollout, where its past is in the cache. Matrix products and a softmax beat masked SDPA on a CPU.

Shapes: B batch, L tokens of one copy, H heads, D head dimension, N latent frames, I blocks, T tokens of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from irope.rope import rope_cos_sin, rotate

BLOCK_FRAMES = 3


@dataclass(frozen=True)
class Window:
    """What a block sees of its past, in latent frames.

    Args:
        past: recent frames, None for all of them.
        sink: first frames that stay visible.
        near_sink: the sink's temporal index follows the window (it sits right before the recent frames) instead of
            staying 0; that is where a rolling cache with relative indices puts it.
        leak: clean frames were themselves computed with the full past, as the keys and values of a flushed cache are.
    """

    past: int | None = None
    sink: int = 0
    near_sink: bool = False
    leak: bool = False

    def sees(self, frames: int) -> Tensor:
        """Past frames that each block sees at their own index, bool [I, N]; a near sink is left to `sink_index`."""
        frame = torch.arange(frames)
        start = torch.arange(0, frames, BLOCK_FRAMES)[:, None]
        if self.past is None:
            return frame < start
        recent = frame >= (start - self.past).clamp_min(self.sink)
        sink = (frame < self.sink) & torch.tensor(not self.near_sink)
        return (frame < start) & (recent | sink)

    def sink_index(self, frames: int) -> Tensor | None:
        """Temporal indices [I, sink] of the sink as each block sees it, None unless it is a near one."""
        if self.past is None or not self.sink or not self.near_sink:
            return None
        start = torch.arange(0, frames, BLOCK_FRAMES)[:, None]
        return (start - self.past - self.sink).clamp_min(0) + torch.arange(self.sink)


class TeacherForcing:
    """The ``attend`` callable of one training step over [clean N | noisy N] frames; N is a multiple of the block."""

    def __init__(
        self, frames: int, grid: tuple[int, int], rope_dims: tuple[int, int, int], window: Window, device: torch.device
    ) -> None:
        if frames % BLOCK_FRAMES:
            raise ValueError(f"teacher forcing needs whole blocks of {BLOCK_FRAMES} frames, got {frames} frames")
        per_frame = grid[0] * grid[1]
        self.blocks, self.tokens = frames // BLOCK_FRAMES, BLOCK_FRAMES * per_frame
        cos, sin = rope_cos_sin(list(range(frames)), grid, rope_dims)
        self.cos, self.sin = cos.repeat(2, 1, 1).to(device), sin.repeat(2, 1, 1).to(device)
        clean = Window() if window.leak else window
        seen = torch.stack([clean.sees(frames), window.sees(frames)])  # [2, I, N]
        bias = torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf)
        self.past_bias = bias.repeat_interleave(per_frame, dim=2)[:, :, None].to(device)  # [2, I, 1, L]
        self.sink_tokens = 0
        index = window.sink_index(frames)
        if index is not None:
            self.sink_tokens = window.sink * per_frame
            angles = [rope_cos_sin(row.tolist(), grid, rope_dims) for row in index]
            self.sink_cos = torch.stack([pair[0] for pair in angles]).to(device)  # [I, sink tokens, 1, D/2]
            self.sink_sin = torch.stack([pair[1] for pair in angles]).to(device)
            exists = torch.arange(window.sink) < torch.arange(0, frames, BLOCK_FRAMES)[:, None]
            exists = torch.stack([exists & torch.tensor(not window.leak), exists])
            bias = torch.zeros(exists.shape).masked_fill_(~exists, -torch.inf)
            self.sink_bias = bias.repeat_interleave(per_frame, dim=2)[:, :, None].to(device)  # [2, I, 1, sink tokens]

    def __call__(self, layer: int, q_BLHD: Tensor, k_BLHD: Tensor, v_BLHD: Tensor) -> Tensor:
        length, width = q_BLHD.shape[1] // 2, q_BLHD.shape[-1]
        q = (rotate(q_BLHD, self.cos, self.sin) * width**-0.5).transpose(1, 2)  # [B, H, 2L, D]
        k, v = rotate(k_BLHD, self.cos, self.sin).transpose(1, 2), v_BLHD.transpose(1, 2)

        def blocks(x: Tensor) -> Tensor:
            return x.unflatten(2, (2, self.blocks, self.tokens))

        past = (q @ k[:, :, :length].mT).unflatten(2, (2, self.blocks, self.tokens))
        own = blocks(q) @ blocks(k).mT
        scores = [past + self.past_bias.to(past.dtype), own]
        if self.sink_tokens:
            k_sink = k_BLHD[:, : self.sink_tokens]
            k_sink = torch.stack([rotate(k_sink, c, s) for c, s in zip(self.sink_cos, self.sink_sin, strict=True)], 1)
            near = blocks(q) @ k_sink.permute(0, 3, 1, 4, 2)[:, :, None]
            scores.append(near + self.sink_bias.to(near.dtype))
        weight = torch.cat(scores, dim=-1).softmax(-1)
        w_past, w_own, w_sink = weight.split([length, self.tokens, self.sink_tokens], dim=-1)
        out = blocks((w_past.flatten(2, 4)) @ v[:, :, :length]) + w_own @ blocks(v)
        if self.sink_tokens:
            out = out + blocks(w_sink.flatten(2, 4) @ v[:, :, : self.sink_tokens])
        return out.flatten(2, 4).transpose(1, 2)
