"""What is published where: ``conf/weights.yaml`` read, and what each method needs of it. Without torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from irope.catalog import CONF, method_entries, read_mapping
from irope.errors import WeightsError
from irope.registry import policies
from irope.settings import hint

DEFAULT = "self_forcing_dmd"
"""The generator of a method that was published with none of its own."""

_PLAIN_NAMES = ("model.pt", "diffusion_pytorch_model.safetensors")  # that anybody's weights may have


@dataclass(frozen=True)
class Published:
    """A file, or a folder of files, as published; ``conf/weights.yaml`` says what each field means.

    Attributes:
        kind: generator, lora, text_encoder, tokenizer, vae.
        size: bytes; None where it was not seen.
        rank: of a LoRA.
    """

    name: str
    kind: str
    repo: str
    file: str
    licence: str
    size: float | None = None
    note: str = ""
    ema: bool | None = None
    steps: tuple[int, ...] = (1000, 750, 500, 250)
    shift: float = 5.0
    warp: bool = True
    block: int = 3
    lora: str | None = None
    rank: int | None = None

    def path(self, root: Path) -> Path:
        """Where it lies below the root of the weights."""
        return root / self.repo / self.file

    def command(self, root: Path) -> str:
        """The command that downloads it to `path`; for the user to run, nothing here does."""
        what = ["--include", f"{self.file}*"] if self.file.endswith("/") else [self.file]
        return shlex.join(["hf", "download", self.repo, *what, "--local-dir", str(root / self.repo)])


@cache
def catalogue() -> Mapping[str, Published]:
    """Every entry by its name, in the order of the file."""
    found: dict[str, Published] = {}
    for kind, rows in read_mapping(CONF / "weights.yaml").items():
        for name, row in rows.items():
            values = {key: value for key, value in row.items() if key != "gb"}
            size = row["gb"] * 1e9 if "gb" in row else None
            steps = tuple(row.get("steps", Published.steps))
            found[name] = Published(name=name, kind=kind, size=size, **{**values, "steps": steps})
    return found


def entry(name: str) -> Published:
    """The entry of that name. WeightsError with the nearest one."""
    if name not in catalogue():
        raise WeightsError(f"no published weights are called {name!r}{hint(name, catalogue())}")
    return catalogue()[name]


def of_kind(kind: str) -> Iterator[Published]:
    """The entries of a kind; where only one of them is needed, the preferred one first."""
    return (found for found in catalogue().values() if found.kind == kind)


def entry_of_file(path: Path) -> Published | None:
    """The generator that a file is published as, by the end of its path; None if that fits no entry or several.

    ``self_forcing_dmd.pt`` is known wherever it lies; ``model.pt`` or ``causal_forcing.pt`` need their folder.
    """
    generators = [found for found in of_kind("generator") if not found.file.endswith("/")]
    whole = [found for found in generators if Path(*path.parts[-2:]) == Path(*Path(found.file).parts[-2:])]
    named = [found for found in generators if Path(found.file).name == path.name and path.name not in _PLAIN_NAMES]
    fits = whole or named
    return fits[0] if len(fits) == 1 else None


def generator_of(method: str) -> str | None:
    """Name of the weights that a method was published with; None for a system that has a generator of its own.

    A file in conf/method may say it (``generator:``), or the method it builds on, or the class of the policy.
    """
    file = CONF / "method" / f"{method}.yaml"
    if not file.is_file():
        policy = policies().get(method)
        return (policy.generator if policy else None) or DEFAULT
    values = read_mapping(file)
    if "system" in values:
        return None
    if values.get("generator"):
        return str(values["generator"])
    base = next((name for name in values.get("defaults", []) if isinstance(name, str) and name != "_self_"), None)
    return generator_of(base) if base else DEFAULT


def parts_of(generator: str) -> tuple[Published, ...]:
    """A generator's entry, with the LoRA that belongs to it."""
    found = entry(generator)
    return (found, entry(found.lora)) if found.lora else (found,)


def methods_with(generator: str) -> tuple[str, ...]:
    """Names of the methods that were published with these weights."""
    return tuple(found.name for found in method_entries() if generator_of(found.name) == generator)
