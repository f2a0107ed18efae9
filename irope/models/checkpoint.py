"""Strict loading of weights, with the key, the expected and the found shape in the message."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from irope.errors import WeightsError


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load ``tensors`` into ``module``; every key must be there with its shape.

    Raises:
        WeightsError: naming the first missing, unexpected or misshapen key, and ``where`` it came from.
    """
    wanted = module.state_dict()
    for key, tensor in wanted.items():
        if key not in tensors:
            raise WeightsError(f"{where}: key {key!r} is missing ({len(tensors)} of {len(wanted)} keys found)")
        if tensors[key].shape != tensor.shape:
            raise WeightsError(
                f"{where}: key {key!r} has shape {list(tensors[key].shape)}, this model needs {list(tensor.shape)}; "
                f"is the file for another size of the model?"
            )
    if extra := sorted(set(tensors) - set(wanted)):
        raise WeightsError(f"{where}: unexpected key {extra[0]!r} ({len(extra)} in all); is it another model's file?")
    module.load_state_dict(dict(tensors))
