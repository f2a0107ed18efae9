"""The text encoder and the VAE as published: flat files of named tensors for classes of transformers and diffusers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from irope.errors import WeightsError
from irope.models.wan.checkpoint import is_safetensors, open_pickle, open_safetensors
from irope.models.wan.layout import weight_files
from irope.torchvision_operators import import_torchvision

NEEDS = "pip install -c constraints.txt -e '.[wan]'"


@dataclass(frozen=True)
class Part:
    """The tensors of a file, its shards or its folder, under the names of the class that runs them.

    Attributes:
        shapes: of every tensor.
        read: a tensor by its name, on the CPU, in the dtype of the file.
        where: the file or the folder, for messages.
        folder: of the files, where a ``config.json`` may be.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Tensor]
    where: Path
    folder: Path

    def check(self, module: nn.Module, what: str) -> None:
        """See that the file has exactly the names and shapes of ``module``; no tensor is read.

        Raises:
            WeightsError: ``what`` the file should hold, and the first key that is missing, misshapen or unexpected.
        """
        wanted = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
        for name, shape in wanted.items():
            if name not in self.shapes:
                found = len(self.shapes.keys() & wanted.keys())
                raise WeightsError(
                    f"{self.where} is not {what}: key {name!r} is missing ({found} of {len(wanted)} keys found); "
                    f"to see which files there are run: irope weights"
                )
            if self.shapes[name] != shape:
                raise WeightsError(
                    f"{self.where} is not {what}: key {name!r} has shape {list(self.shapes[name])}, needed is "
                    f"{list(shape)}; to see which files there are run: irope weights"
                )
        if extra := sorted(self.shapes.keys() - wanted.keys()):
            raise WeightsError(
                f"{self.where} is not {what}: unexpected key {extra[0]!r} ({len(extra)} in all); to see which files "
                f"there are run: irope weights"
            )


def open_part(path: Path, folder: str, rename: Callable[[str], str]) -> Part:
    """Read names and shapes of a text encoder or a VAE.

    Args:
        path: see `irope.models.wan.layout.weight_files`.
        folder: its name in a diffusers repository.
        rename: key of the file -> key of the class.

    Raises:
        WeightsError: the file is missing, truncated, or holds no tensors.
    """
    files = weight_files(path, folder)
    where = files[0] if len(files) == 1 else files[0].parent
    if len(files) > 1 or is_safetensors(files[0]):
        shapes, read, _ = open_safetensors(files)
    else:
        tensors = open_pickle(files[0])
        if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
            raise WeightsError(
                f"{where} holds no tensors by name, as a text encoder or a VAE does; to see which files there are run: "
                f"irope weights"
            )
        shapes, read = {name: tuple(value.shape) for name, value in tensors.items()}, tensors.__getitem__
    names = {rename(name): name for name in shapes}
    return Part(
        shapes={new: shapes[old] for new, old in names.items()},
        read=lambda name: read(names[name]),
        where=where,
        folder=files[0].parent,
    )


def offload(module: nn.Module, device: torch.device) -> None:
    """Let a module's weights wait on the CPU, where they are; each layer's come to ``device`` for its call alone.

    accelerate's ``cpu_offload``: between calls parameters are on ``meta``, so ask a module for its state before this.
    What a call computes does not change.
    """
    import_extra("accelerate").cpu_offload(module, execution_device=device)


def import_extra(module: str) -> Any:
    """A module of the packages that the 1.3B model needs besides torch.

    Raises:
        WeightsError: it is not installed, or cannot be imported; says the first cause.
    """
    try:
        if module.partition(".")[0] in ("diffusers", "transformers"):
            import_torchvision()  # as they do where there is one
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # diffusers turns every failure on the way into a RuntimeError
        cause: BaseException = error
        while (deeper := cause.__cause__ or cause.__context__) is not None:
            cause = deeper
        package = module.partition(".")[0]
        raise WeightsError(
            f"model=wan_1_3b needs the package {package}, which cannot be imported here "
            f"({str(cause).strip().splitlines()[0]}); run: {NEEDS}"
        ) from error
