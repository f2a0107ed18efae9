"""The state of a training run as one file, so that a run that was stopped goes on to the bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Parts = Mapping[str, Mapping[str, Tensor]]
"""What a run holds, by part: weights, their average, the optimizer."""


def save_state(path: Path, parts: Parts, step: int, recipe: Mapping[str, object]) -> None:
    """Write all tensors as ``<part>/<name>``; an interrupted write never replaces the file of before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    tensors = {name: tensor.cpu().contiguous() for name, tensor in _flat(parts).items()}
    save_file(tensors, str(part), {"step": str(step), "recipe": json.dumps(recipe)})
    part.replace(path)


@torch.no_grad()
def load_state(path: Path, parts: Parts, recipe: Mapping[str, object]) -> int:
    """Fill the tensors of ``parts`` from a file; returns its step.

    Raises:
        ValueError: that was a run of another recipe.
    """
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
        found = json.loads(metadata["recipe"])
        if differs := [key for key in recipe if found.get(key) != recipe[key]]:
            raise ValueError(f"{path} holds a run with other settings: {', '.join(differs)}. Use another --out.")
        for name, tensor in _flat(parts).items():
            tensor.copy_(file.get_tensor(name))
    return int(metadata["step"])


def _flat(parts: Parts) -> dict[str, Tensor]:
    return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
