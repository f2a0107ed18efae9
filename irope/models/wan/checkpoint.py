"""Published checkpoints as named tensors that are read one at a time: .pt, .safetensors, shards, diffusers folders.

A file is opened by its header alone and memory-mapped; `load_into` casts tensor by tensor, so that loading takes the
memory of one copy in the target dtype and of the largest tensor.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from irope.errors import WeightsError
from irope.models.wan.diagnosis import other_architecture
from irope.models.wan.layout import weight_files
from irope.models.wan.names import is_diffusers, published_names

EMA, PLAIN = "generator_ema", "generator"
_INNER = ("model", "state_dict")  # one more level that some files have


@dataclass(frozen=True)
class Weights:
    """The tensors of a checkpoint under their published names; none is read before it is asked for.

    Attributes:
        shapes: of every tensor.
        read: a tensor by its name, on the CPU, in the dtype of the file.
        where: the file, for messages.
        copy: which nested dictionary was taken, ``generator_ema`` for example; empty for a flat file.
        others: the nested dictionaries that were not.
        naming: original or diffusers.
        dtypes: of the tensors in the file, for example ``float32``.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Tensor]
    where: str
    copy: str
    others: tuple[str, ...]
    naming: str
    dtypes: tuple[str, ...]


def open_weights(path: Path, ema: bool | None = None, strict_ema: bool = False, folder: str = "transformer") -> Weights:
    """Read the names and shapes of a checkpoint.

    Args:
        path: see `irope.models.wan.layout.weight_files`.
        ema: which of ``generator_ema`` and ``generator`` is meant where both are there; None: the EMA copy.
        strict_ema: there is no falling back on the other one.

    Raises:
        WeightsError: the file is missing, truncated, no weights, or holds no generator.
    """
    files = weight_files(path, folder)
    where = str(files[0] if len(files) == 1 else files[0].parent)
    if len(files) > 1 or is_safetensors(files[0]):
        shapes, read, dtypes = open_safetensors(files)
        copy, others = "", tuple[str, ...]()
    else:
        tensors, copy, others = _descend(open_pickle(files[0]), ema, strict_ema, where)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        dtypes = {_dtype(tensor.dtype) for tensor in tensors.values()}
        read = tensors.__getitem__
    renamed = published_names(shapes, where)
    return Weights(
        shapes={name: shapes[found] for name, found in renamed.items()},
        read=lambda name: read(renamed[name]),
        where=where + (f" ({copy})" if copy else ""),
        copy=copy,
        others=others,
        naming="diffusers" if is_diffusers(shapes) else "original",
        dtypes=tuple(sorted(dtypes)),
    )


def check(weights: Weights, wanted: Mapping[str, tuple[int, ...]], in_dim: int = 16) -> None:
    """See that a generator has exactly the ``wanted`` names and shapes; no tensor is read.

    Raises:
        WeightsError: naming the architecture that the file is of, or the first key that is missing, unexpected or
            misshapen.
    """
    dim = wanted["patch_embedding.weight"][0]
    if other := other_architecture(weights.shapes, dim, in_dim):
        raise WeightsError(f"{weights.where} holds {other}; to see which ones fit run: irope weights")
    for name, shape in wanted.items():
        if name not in weights.shapes:
            raise WeightsError(
                f"{weights.where}: key {name!r} is missing ({len(weights.shapes.keys() & wanted.keys())} of "
                f"{len(wanted)} keys found); is the download complete, is it a generator?"
            )
        if weights.shapes[name] != shape:
            raise WeightsError(
                f"{weights.where}: key {name!r} has shape {list(weights.shapes[name])}, this model needs {list(shape)}"
            )
    if extra := sorted(weights.shapes.keys() - wanted.keys()):
        raise WeightsError(
            f"{weights.where}: unexpected key {extra[0]!r} ({len(extra)} in all); is it another model's file?"
        )


def load_into(module: nn.Module, read: Callable[[str], Tensor], device: torch.device | str, dtype: torch.dtype) -> None:
    """Give a module that was made on ``meta`` its weights: each tensor is read, cast and moved before the next one."""
    for name, parameter in list(module.named_parameters()):
        # A copy, also where the file has this dtype already: a parameter must not change or vanish with the file.
        tensor = read(name).to(device, dtype, copy=True)
        owner, _, last = name.rpartition(".")
        setattr(module.get_submodule(owner), last, nn.Parameter(tensor, requires_grad=parameter.requires_grad))


def is_safetensors(path: Path) -> bool:
    """By its first bytes: the length of a JSON header, then the header."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def open_safetensors(
    files: tuple[Path, ...],
) -> tuple[dict[str, tuple[int, ...]], Callable[[str], Tensor], set[str]]:
    shapes: dict[str, tuple[int, ...]] = {}
    place: dict[str, Path] = {}
    dtypes: set[str] = set()
    for path in files:
        try:
            with safe_open(str(path), "pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    part = file.get_slice(name)
                    shapes[name], place[name] = tuple(part.get_shape()), path
                    dtypes.add(_SAFETENSORS_DTYPES.get(part.get_dtype(), part.get_dtype().lower()))
        except SafetensorError as error:
            raise WeightsError(f"{path} is truncated or no safetensors file ({error}); download it again") from error

    def read(name: str) -> Tensor:
        # Opened for each tensor: an open handle keeps what it has read in memory.
        with safe_open(str(place[name]), "pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor

    return shapes, read, dtypes


_SAFETENSORS_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


def open_pickle(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            whole = file.read(2) == b"PK"
        if whole or path.suffix in (".pt", ".pth", ".ckpt", ".bin"):
            raise WeightsError(
                f"{path} is truncated or no file of torch.save ({path.stat().st_size:,} bytes, its end is not that of "
                f"an archive); download it again"
            )
        raise WeightsError(f"{path} holds no weights: neither safetensors nor a file of torch.save")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors{_named_in(error)}, which is refused because reading it could run code; "
            f"ask its authors for the tensors alone, as .safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read ({str(error).splitlines()[0]}); download it again") from error


def _named_in(error: Exception) -> str:
    """The class that torch refused, which it says somewhere in a page of advice."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f" ({found[1]})" if found else ""


def _descend(found: Any, ema: bool | None, strict: bool, where: str) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """The dictionary of tensors, the name of the nested one it came from, and the names of those left."""
    nested = {str(key): value for key, value in found.items() if _is_state(value)} if isinstance(found, dict) else {}
    if not nested and strict:
        raise WeightsError(f"{where}: video.model.ema chooses between nested copies, but this file has none")
    if nested:
        wanted = PLAIN if ema is False else EMA
        order = (wanted,) if strict else (wanted, EMA if wanted == PLAIN else PLAIN, *_INNER)
        name = next((name for name in order if name in nested), None)
        if name is None:
            choice = f"video.model.ema={str(ema).lower()}: " if strict else ""
            lora = "; a LoRA is given as video.model.lora" if any("lora" in key for key in nested) else ""
            raise WeightsError(
                f"{choice}{where} holds {', '.join(sorted(nested))} and no {' or '.join(order[:2])}{lora}"
            )
        inner, _, _ = _descend(nested[name], None, False, where)
        return inner, name, tuple(sorted(nested.keys() - {name}))
    tensors = {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        kind = type(found).__name__
        raise WeightsError(f"{where} holds no weights: expected named tensors, found a {kind} without them")
    return tensors, "", ()


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(v, (Tensor, dict)) for v in value.values())


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
