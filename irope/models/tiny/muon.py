"""Muon for the matrices of the transformer, AdamW for everything else, on float32 master weights.

A matrix update is the momentum with its singular values pushed towards 1, by the quintic Newton-Schulz iteration.
Matrices of one shape are stacked, so that the iteration is a few batched products.
"""

from __future__ import annotations

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(update_KRC: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values of K stacked matrices [K, R, C] towards 1 (they end within about 0.7 to 1.2)."""
    a, b, c = _QUINTIC
    x = update_KRC.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


def is_matrix(name: str, tensor: Tensor) -> bool:
    """True for the weights that Muon handles: the square and feed-forward matrices of the blocks."""
    return tensor.ndim == 2 and ".blocks." in f".{name}"


class MuonAdam:
    """One optimizer over a dictionary of named float32 weights; its state is a flat dictionary of tensors.

    Args:
        weights: updated in place.
        muon_lr, adam_lr: step sizes at multiplier 1.
    """

    def __init__(self, weights: dict[str, Tensor], muon_lr: float, adam_lr: float) -> None:
        self.weights = weights
        self.muon_lr, self.adam_lr = muon_lr, adam_lr
        self.momentum, self.beta = 0.95, (0.9, 0.98)
        self.state = {f"m.{name}": torch.zeros_like(w) for name, w in weights.items()}
        self.state |= {f"v.{name}": torch.zeros_like(w) for name, w in weights.items() if not is_matrix(name, w)}
        self._stacks: dict[tuple[int, ...], list[str]] = {}
        for name, weight in weights.items():
            if is_matrix(name, weight):
                self._stacks.setdefault(tuple(weight.shape), []).append(name)

    @torch.no_grad()
    def step(self, grads: dict[str, Tensor], count: int, multiplier: float) -> None:
        """Apply float32 gradients: step ``count`` (from 1), both rates scaled by ``multiplier``."""
        for shape, names in self._stacks.items():
            for name in names:
                self.state[f"m.{name}"].mul_(self.momentum).add_(grads[name])
            ahead = torch.stack([grads[name] + self.momentum * self.state[f"m.{name}"] for name in names])
            rate = self.muon_lr * multiplier * max(1.0, shape[0] / shape[1]) ** 0.5
            for name, update in zip(names, orthogonalize(ahead), strict=True):
                self.weights[name].sub_(update, alpha=rate)
        first, second = self.beta
        for name, weight in self.weights.items():
            if is_matrix(name, weight):
                continue
            mean = self.state[f"m.{name}"].lerp_(grads[name], 1 - first)
            square = self.state[f"v.{name}"].mul_(second).addcmul_(grads[name], grads[name], value=1 - second)
            denominator = (square / (1 - second**count)).sqrt_().add_(1e-8)
            weight.addcdiv_(mean, denominator, value=-self.adam_lr * multiplier / (1 - first**count))
