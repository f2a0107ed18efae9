"""Which files hold the weights at a path: one file, shards with an index, or a folder as diffusers writes it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from irope.errors import WeightsError

INDEX = ".safetensors.index.json"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")


def weight_files(path: Path, folder: str = "transformer") -> tuple[Path, ...]:
    """The files that hold the weights at ``path``, sorted; reads no more than an index.

    Args:
        path: a file, one of its shards, an index, or a folder with one of these, itself or in its ``folder``.

    Raises:
        WeightsError: nothing there, several candidates, a broken index, or a shard that is missing.
    """
    if path.is_dir():
        return _of_folder(path, folder)
    if not path.exists():
        raise WeightsError(f"no weights at {path}; run: irope weights")
    if path.name.endswith(INDEX):
        return _of_index(path)
    if _SHARD.search(path.name):
        indices = sorted(path.parent.glob(f"*{INDEX}"))
        if not indices:
            raise WeightsError(f"{path} is one shard of several and its index (*{INDEX}) is not beside it")
        return _of_index(indices[0])
    return (path,)


def _of_folder(path: Path, folder: str) -> tuple[Path, ...]:
    if (path / folder).is_dir():
        return _of_folder(path / folder, folder)
    inside = f", itself or in {folder}/" if path.name != folder else ""
    if indices := sorted(path.glob(f"*{INDEX}")):
        return _of_index(indices[0])
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(files) == 1:
        return weight_files(files[0])
    if not files:
        endings = ", ".join(SUFFIXES)
        raise WeightsError(f"{path} holds no weights{inside} (a file ending in {endings}); run: irope weights")
    names = ", ".join(file.name for file in files[:4])
    raise WeightsError(f"{path} holds {len(files)} files of weights ({names}): name the one that is meant")


def _of_index(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(f"{index} is no index of shards ({error!r}); download it again") from error
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise WeightsError(
            f"{index.parent}: {len(missing)} of {len(names)} shards are missing: {', '.join(missing)}; "
            f"the same download again fetches what is not there"
        )
    return tuple(index.parent / name for name in names)


def tokenizer_file(path: Path) -> Path:
    """``tokenizer.json``, itself or in the folder at ``path``: all of a tokenizer that is read.

    Raises:
        WeightsError: there is none.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise WeightsError(f"{path} holds no tokenizer.json; run: irope weights")
    return file
