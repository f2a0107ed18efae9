"""The matrix products of a layer: q, k, v and o of attention with the norms of q and k, and the feed-forward.

Shape letters: B batch, L tokens, D width, N heads, K head dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irope import fp8
from irope.fp8 import Linear, Quantisable
from irope.pointwise import linear_gelu, rms_norm

if TYPE_CHECKING:
    from irope.transformer import WanConfig


class RMSNorm(nn.Module):
    """`rms_norm` over the full width."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class AttentionProjections(Quantisable):
    """q, k, v, o with RMSNorm on q and k over the full width, before the split into heads."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.head_shape = (config.num_heads, config.head_dim)
        self.q = Linear(config.dim, config.dim)
        self.k = Linear(config.dim, config.dim)
        self.v = Linear(config.dim, config.dim)
        self.o = Linear(config.dim, config.dim)
        self.norm_q = RMSNorm(config.dim, config.eps)
        self.norm_k = RMSNorm(config.dim, config.eps)
        self._fused: tuple[Tensor, Tensor, Tensor] | None = None  # see `side_by_side`

    def queries(self, x: Tensor) -> Tensor:
        """[B, tokens in one or two axes, D] -> [B, L, N, K]."""
        return self.norm_q(self.q(x)).view(len(x), -1, *self.head_shape)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = (len(x), -1, *self.head_shape)
        return self.norm_k(self.k(x)).view(shape), self.v(x).view(shape)

    def project(self, x: Tensor) -> Tensor:
        """q, k and v before their norms, [B, L, 3, D], in one matrix product."""
        weight, bias, _ = self.side_by_side()
        y = F.linear(x, weight, bias) if self.quantised is None else fp8.linear(x, self.quantised, bias)
        return y.view(len(x), -1, 3, weight.shape[1])

    def split(self, y_BL3D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`queries` and `keys_values` of what `project` gave, in one norm."""
        norms = self.side_by_side()[2]
        q, k = rms_norm(y_BL3D[:, :, :2], norms, self.norm_q.eps).unflatten(-1, self.head_shape).unbind(2)
        return q, k, y_BL3D[:, :, 2].unflatten(-1, self.head_shape)

    def side_by_side(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight [3D, D] and bias [3D] of q, k and v, and the norms of q and k [2, D]."""
        if self._fused is not None and not torch.is_grad_enabled():
            return self._fused
        q, k, v = self.q, self.k, self.v
        norms = torch.stack([self.norm_q.weight, self.norm_k.weight])
        return torch.cat([q.weight, k.weight, v.weight]), torch.cat([q.bias, k.bias, v.bias]), norms

    def output(self, x_BLNK: Tensor) -> Tensor:
        return self.o(x_BLNK.flatten(2))

    def quantise(self) -> None:
        """Rows of q, k and v side by side; each of the three has its part of them."""
        parts = (self.q, self.k, self.v)
        self.quantised = fp8.quantise(torch.cat([part.weight for part in parts]))
        for part, values, scales in zip(parts, *(rows.chunk(3) for rows in self.quantised), strict=True):
            part.quantised = values, scales

    @torch.no_grad()
    def fuse(self) -> None:
        """Let the parameters of q, k and v, still under their own names, be parts of one tensor. Costs no memory.

        Training goes on with them one by one. What moves or replaces parameters takes them apart; then fuse again.
        """
        parts = (self.q.weight, self.k.weight, self.v.weight), (self.q.bias, self.k.bias, self.v.bias)
        norms = self.norm_q.weight, self.norm_k.weight
        if self._fused is not None and all(
            part.data_ptr() == row.data_ptr() and part.device == row.device
            for group, rows in zip((*parts, norms), self._rows(), strict=True)
            for part, row in zip(group, rows, strict=True)
        ):
            return
        with torch.inference_mode(False):  # a tensor made for inference could not be trained any more
            self._fused = None
            self._fused = self.side_by_side()
            for group, rows in zip((*parts, norms), self._rows(), strict=True):
                for part, row in zip(group, rows, strict=True):
                    part.data = row

    def _rows(self) -> tuple[tuple[Tensor, ...], ...]:
        assert self._fused is not None
        weight, bias, norms = self._fused
        return weight.chunk(3), bias.chunk(3), norms.unbind()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> AttentionProjections:
        self._fused = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fused": None}


class FeedForward(nn.Sequential):
    """Linear, GELU (the tanh approximation), linear; a sequence for the sake of the published names of its weights."""

    def __init__(self, config: WanConfig) -> None:
        first, last = Linear(config.dim, config.ffn_dim), Linear(config.ffn_dim, config.dim)
        super().__init__(first, nn.GELU(approximate="tanh"), last)

    def forward(self, x: Tensor) -> Tensor:
        first, gelu, last = self
        y = linear_gelu(x, first.weight, first.bias) if first.quantised is None else gelu(first(x))
        return last(y)
