"""A LoRA merged into the weights at load: W + alpha/rank · B A, in float32, then one rounding to the target dtype.

LongLive publishes one of rank 256 on all ten linear layers of each block. Its code keeps the two factors apart in
bfloat16; merged weights differ from that by rounding only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from irope.errors import WeightsError
from irope.models.wan import checkpoint
from irope.models.wan.names import from_diffusers, is_diffusers, unwrapped

NESTED = "generator_lora"
_FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<which>[AB])\.(?:default\.)?weight$")


@dataclass(frozen=True)
class Lora:
    """Low-rank changes of a model's linear layers.

    Attributes:
        factors: module -> (A [rank, in], B [out, rank]), in the dtype of the file.
        scale: alpha / rank.
    """

    factors: Mapping[str, tuple[Tensor, Tensor]]
    scale: float
    rank: int
    where: str

    def merged(self, read: Callable[[str], Tensor]) -> Callable[[str], Tensor]:
        """``read`` with the change added to the weights it concerns, which come out in float32."""

        def changed(name: str) -> Tensor:
            weight = read(name)
            factors = self.factors.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
            if factors is None:
                return weight
            a, b = (factor.float() for factor in factors)
            return torch.addmm(weight.float(), b, a, alpha=self.scale)

        return changed

    def check(self, wanted: Mapping[str, tuple[int, ...]]) -> None:
        """See that every change fits a weight of the model. WeightsError names the first that does not."""
        for module, (a, b) in self.factors.items():
            shape = wanted.get(f"{module}.weight")
            if shape is None or len(shape) != 2:
                raise WeightsError(f"{self.where}: it changes {module!r}, which is no linear layer of this model")
            if (len(b), a.shape[1]) != shape:
                raise WeightsError(
                    f"{self.where}: {module!r} is changed by [{len(b)}, {a.shape[1]}], its weight is {list(shape)}; "
                    f"is the LoRA for another model?"
                )


def read_lora(path: Path, alpha: float | None = None, rank: int | None = None) -> Lora:
    """Read a LoRA in PEFT's naming, flat or nested under ``generator_lora``, .pt or .safetensors.

    Args:
        alpha: scale times rank; None: ``lora_alpha`` of an adapter_config.json beside the file, else the rank.
        rank: that it must have; None: any.

    Raises:
        WeightsError: no LoRA, half of a pair is missing, or the rank is not the same or not the wanted one.
    """
    tensors = _tensors(path)
    plain = {name: unwrapped(name.removeprefix("base_model.").removeprefix("model.")) for name in tensors}
    if is_diffusers(plain.values()):
        plain = {name: from_diffusers(found) for name, found in plain.items()}
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _FACTOR.match(plain[name])
        if match is None:
            raise WeightsError(
                f"{path}: key {name!r} is no lora_A or lora_B of a layer; is it a LoRA as PEFT writes it?"
            )
        pairs.setdefault(match["module"], {})[match["which"]] = tensor
    factors = {module: _pair(pair, module, path) for module, pair in pairs.items()}
    ranks = sorted({len(a) for a, _ in factors.values()})
    if len(ranks) != 1 or rank not in (None, ranks[0]):
        expected = f"as published it is {rank}: is it another LoRA?" if rank else "they must have the same"
        raise WeightsError(f"{path}: its layers have rank {' and '.join(map(str, ranks))}, {expected}")
    if alpha is None:
        alpha = _configured_alpha(path.with_name("adapter_config.json"), ranks[0])
    return Lora(factors, alpha / ranks[0], ranks[0], str(path))


def _tensors(path: Path) -> dict[str, Tensor]:
    if checkpoint.is_safetensors(path):
        shapes, read, _ = checkpoint.open_safetensors((path,))
        return {name: read(name) for name in shapes}
    found = checkpoint.open_pickle(path)
    if isinstance(found, dict) and isinstance(found.get(NESTED), dict):
        found = found[NESTED]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(f"{path} holds no LoRA: expected {NESTED}, or lora_A and lora_B of layers")
    return found


def _pair(pair: Mapping[str, Tensor], module: str, path: Path) -> tuple[Tensor, Tensor]:
    if lacking := sorted({"A", "B"} - pair.keys()):
        raise WeightsError(f"{path}: {module!r} has no lora_{lacking[0]}; is the file complete?")
    a, b = pair["A"], pair["B"]
    if a.ndim != 2 or b.ndim != 2 or len(a) != b.shape[1]:
        raise WeightsError(
            f"{path}: the ranks of {module!r} do not agree: lora_A {list(a.shape)} is [rank, in], "
            f"lora_B {list(b.shape)} is [out, rank]"
        )
    return a, b


def _configured_alpha(path: Path, rank: int) -> float:
    """``lora_alpha`` of PEFT's own file, if it lies beside the LoRA; else the rank, which is a scale of 1."""
    if not path.is_file():
        return float(rank)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found, alpha = int(values.get("r", rank)), float(values.get("lora_alpha", rank))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is no adapter_config.json ({error!r})") from error
    if found != rank:
        raise WeightsError(f"{path} says rank {found}, the weights beside it have {rank}")
    return alpha
