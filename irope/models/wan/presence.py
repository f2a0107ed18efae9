"""Which published weights are on this disk, and whether they are what they should be. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from irope.digests import digest, digest_of_files, known_digest
from irope.errors import WeightsError
from irope.models.wan.catalogue import Published
from irope.models.wan.layout import tokenizer_file, weight_files

Status = Literal["present", "missing", "incomplete"]


@dataclass(frozen=True)
class Presence:
    """What was found of one entry of the catalogue.

    Attributes:
        path: where it must lie.
        files: that make it up, as far as they are there.
        size: bytes of them.
        digest: SHA-256, that of several files over their names and digests; empty where it was not computed yet.
        problem: why it is incomplete, or what is odd about it.
    """

    entry: Published
    status: Status
    path: Path
    files: tuple[Path, ...] = ()
    size: int = 0
    digest: str = ""
    problem: str = ""


def look(entry: Published, root: Path, compute_digest: bool = False) -> Presence:
    """Look for one entry below the root of the weights.

    Args:
        compute_digest: read the files where their digest is not known yet: some seconds for every 10 GB.
    """
    path = entry.path(root)
    if not path.exists():
        return Presence(entry, "missing", path)
    try:
        files = (tokenizer_file(path),) if entry.kind == "tokenizer" else weight_files(path, path.name)
    except WeightsError as error:
        return Presence(entry, "incomplete", path, problem=str(error))
    size = sum(file.stat().st_size for file in files)
    known = compute_digest or all(known_digest(file) for file in files)
    found = (digest(files[0]) if len(files) == 1 else digest_of_files(files)) if known else ""
    less = entry.size is not None and entry.kind != "tokenizer" and size < 0.97 * entry.size
    problem = (
        f"smaller than published, {entry.size / 1e9:.3g} GB: cut short, or saved again?" if less and entry.size else ""
    )
    return Presence(entry, "present", path, files, size, found, problem)


def check(entry: Published, root: Path) -> str:
    """Hold names and shapes of an entry that is there to the model it is for; reads headers, and no weights.

    Returns:
        What the file is, in words.

    Raises:
        WeightsError: naming the architecture the file is of, or the first key at fault.
    """
    from irope.models.wan import checkpoint
    from irope.models.wan.model import empty_transformer

    path = entry.path(root)
    wanted = {name: tuple(parameter.shape) for name, parameter in empty_transformer().named_parameters()}
    match entry.kind:
        case "generator":
            weights = checkpoint.open_weights(path, entry.ema)
            checkpoint.check(weights, wanted)
            kept = [f"of {', '.join(sorted([weights.copy, *weights.others]))} takes {weights.copy}"] * bool(
                weights.copy
            )
            return ", ".join(
                [f"{len(wanted)} tensors in {' and '.join(weights.dtypes)}, {weights.naming} names", *kept]
            )
        case "lora":
            from irope.models.wan.lora import read_lora

            lora = read_lora(path, rank=entry.rank)
            lora.check(wanted)
            return f"{len(lora.factors)} layers of rank {lora.rank}, scale {lora.scale:g}"
        case "text_encoder":
            from irope.models.wan.parts import open_part
            from irope.models.wan.t5_names import from_original

            part = open_part(path, path.name, from_original)
            shape, layers = part.shapes.get("shared.weight", ()), _layers(part.shapes)
            if shape != (256384, 4096) or layers != 24:
                raise WeightsError(
                    f"{path} is no umT5-xxl encoder: its embedding is {list(shape)} and it has {layers} layers, "
                    f"needed are [256384, 4096] and 24"
                )
            return f"{len(part.shapes)} tensors, {layers} layers"
        case "vae":
            from irope.models.wan.vae import open_vae

            part, _ = open_vae(path)
            return f"{len(part.shapes)} tensors"
        case _:
            return tokenizer_file(path).name


def _layers(names: Iterable[str]) -> int:
    return len({name.split(".")[2] for name in names if name.startswith("encoder.block.")})
