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

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max  # 448

Quantised = tuple[Tensor, Tensor]
"""e4m3 values [rows, columns] and their scales, float32 [rows, 1]."""


def quantise(x: Tensor) -> Quantised:
    """Scale every row so that its largest value is the largest that e4m3 has, and round."""
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


class Linear(nn.Linear):
    """A linear layer that can be quantised; its parameters stay, under their names and as they were."""

    quantised: Quantised | None = None

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.quantised is None else linear(x, self.quantised, self.bias)


@torch.no_grad()
def quantise_layers(model: nn.Module) -> None:
    """Quantise every `Linear` of a model, and what its attention has side by side, where the model is now."""
    for layer in _quantisable(model):
        layer.quantised = quantise(layer.weight)


@torch.no_grad()
def restore_layers(model: nn.Module) -> None:
    for layer in _quantisable(model):
        layer.quantised = None


def _quantisable(model: nn.Module) -> Iterator[Linear]:
    return (module for module in model.modules() if isinstance(module, Linear))
