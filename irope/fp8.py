"""Linear layers in FP8 (e4m3), one scale for every row: an approximation, never the default, part of a video's key.

A row of activations is scaled by its largest value when it arrives, a row of weights once. Products are summed in
float32, scaled back and rounded once. On a GPU `torch._scaled_mm` does it; elsewhere the same arithmetic is carried
out in float32 on the quantised numbers, so that the error can be measured without one.

Attention, norms, modulation, embeddings and the head stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from irope import kernels

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max  # 448

Quantised = tuple[Tensor, Tensor]
"""e4m3 values [rows, columns] and their scales, float32 [rows, 1]."""


def quantise(x: Tensor) -> Quantised:
    """Scale every row so that its largest value is the largest that e4m3 has, and round.

    One kernel where there is one. A compiler joins it with what makes the rows: norm and modulation, or GELU.
    """
    if not torch.compiler.is_compiling() and kernels.usable(x.device, x.dtype):
        return kernels.quantise_rows(x)
    wide = x.float()
    scale = wide.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / LARGEST
    return (wide / scale).to(E4M3), scale


def linear(x: Tensor, weight: Quantised, bias: Tensor) -> Tensor:
    """``x @ weight.T + bias`` for x [..., columns] and a quantised weight; [..., rows] in the dtype of x."""
    values, scales = weight
    x_values, x_scales = quantise(x.flatten(0, -2))
    if x.is_cuda and x.dtype == torch.bfloat16:
        y = torch._scaled_mm(x_values, values.t(), x_scales, scales.t(), bias, out_dtype=x.dtype)
    else:
        y = ((x_values.float() @ values.float().t()) * x_scales * scales.t() + bias.float()).to(x.dtype)
    return y.unflatten(0, x.shape[:-1])


class Quantisable(nn.Module):
    """A module whose weight can be quantised beside its parameters, which stay, under their names and as they were."""

    quantised: Quantised | None = None

    def quantise(self) -> None:
        raise NotImplementedError


class Linear(nn.Linear, Quantisable):
    """A linear layer that can be quantised."""

    def quantise(self) -> None:
        self.quantised = quantise(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.quantised is None else linear(x, self.quantised, self.bias)


@torch.no_grad()
def quantise_layers(model: nn.Module) -> None:
    """Quantise what can be of a model, where it is now; a module comes after its parts, whose rows it may join."""
    for module in reversed(list(_quantisable(model))):
        module.quantise()


def restore_layers(model: nn.Module) -> None:
    for module in _quantisable(model):
        module.quantised = None


def _quantisable(model: nn.Module) -> Iterator[Quantisable]:
    return (module for module in model.modules() if isinstance(module, Quantisable))
