"""The arithmetic between matrix products: norms, modulation, gates. One kernel each where `irope.kernels` has one.

Shape letters: B batch, F latent frames, S tokens per frame, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from irope import kernels


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm of the last axis with the published rounding: normalise in float32, round, then scale."""
    return F.rms_norm(x.float(), x.shape[-1:], eps=eps).type_as(x) * weight


def layer_norm(x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def modulate(x_BFSD: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``scale`` is the 1 + scale of the published code."""
    return (x_BFSD * scale + shift).type_as(x_BFSD)


def norm_modulate(x_BFSD: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """LayerNorm and `modulate`, in one kernel where there is one and no compiler makes it."""
    if _by_kernel(x_BFSD):
        return kernels.norm_modulate(x_BFSD, shift, scale, eps)
    return modulate(layer_norm(x_BFSD, eps), shift, scale)


def gated_sum(x_BFSD: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + y * gate, in one kernel where there is one and no compiler makes it."""
    if _by_kernel(x_BFSD):
        return kernels.gated_sum(x_BFSD, y, gate)
    return x_BFSD + (y.view(x_BFSD.shape) * gate).type_as(x_BFSD)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU (the tanh approximation) of a linear layer; on a GPU inside the matrix product, rounded once.

    There `_addmm_activation` is the tanh approximation, on a CPU the exact GELU, so that it must not be taken here.
    """
    if x.is_cuda and x.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        return torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True).unflatten(0, x.shape[:-1])
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


def _by_kernel(x: Tensor) -> bool:
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    return kernels.usable(x.device, x.dtype)
