"""Several videos in one roll-out: what a checkpoint of it holds of each, and back.

The state of one video is that of a roll-out of it alone, so it may go on in any company, or in none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

State = Mapping[str, Tensor]
"""Tensors of `irope.rollout.Rollout.state`."""

_DECODER = re.compile(r"decoder\.(\d+)\.(.*)")


def of_one(state: State, video: int) -> dict[str, Tensor]:
    """The state of one video of a batch."""
    found = {}
    for name, tensor in state.items():
        if match := _DECODER.fullmatch(name):
            if int(match[1]) == video:
                found[f"decoder.0.{match[2]}"] = tensor
        else:
            found[name] = tensor.narrow(_axis(name), video, 1)
    return found


def together(states: Sequence[State]) -> dict[str, Tensor]:
    """The state of a batch from those of its videos, all after the same block."""
    found: dict[str, Tensor] = {}
    for name, tensor in states[0].items():
        if not name.startswith("decoder."):
            found[name] = torch.cat([state[name] for state in states], dim=_axis(name)) if len(states) > 1 else tensor
    for video, state in enumerate(states):
        for name, tensor in state.items():
            if match := _DECODER.fullmatch(name):
                found[f"decoder.{video}.{match[2]}"] = tensor
    return found


def _axis(name: str) -> int:
    """Which axis counts videos: in an arena, but for queries, layers come first."""
    return 1 if name.startswith("arena.") and not name.startswith("arena.queries.") else 0
