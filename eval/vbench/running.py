"""How networks are run: in batches that fit into memory, and in half precision where that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BUDGET = 2 << 30
"""Bytes that the intermediate results of one batch of frame pairs may take, about."""


def batches(total: int, most: int) -> Iterator[slice]:
    """Slices of at most ``most`` that cover ``range(total)``."""
    for start in range(0, total, most):
        yield slice(start, min(start + most, total))


def fitting(most: int, bytes_each: int) -> int:
    """How many of at most ``most`` fit the budget; one always goes."""
    return max(1, min(most, BUDGET // bytes_each))


def autocast(device: torch.device, half: bool) -> AbstractContextManager[object]:
    """Half precision for what a network computes within: float16 on a GPU, bfloat16 elsewhere. Or no change."""
    import torch

    kind = torch.float16 if device.type == "cuda" else torch.bfloat16
    return torch.autocast(device.type, dtype=kind, enabled=half)


def unseen_initial_values() -> AbstractContextManager[object]:
    """Networks are built within: what they draw before their weights are loaded leaves the global generator alone."""
    import torch

    return torch.random.fork_rng(devices=[])
