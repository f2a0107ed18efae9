"""What a weights file of the embedded model says about itself, read without torch: plans need no more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from irope.errors import WeightsError

FORMAT = "irope-tiny-2"
HEADER = "irope"
"""The one key of the file's metadata: safetensors writes several in random order, and same weights are same bytes."""

WEIGHTS = Path(__file__).parent / "weights"
SHIPPED = "stable"


@dataclass(frozen=True)
class TinyInfo:
    """What the weights file says about itself.

    Args:
        checkpoint: name of the training stage it was saved after.
        sampler_steps, sampler_shift: nominal timesteps (of 1000) and the shift that warps them.
        fps, horizon, block: frames a second; latent frames seen in training; latent frames a block.
        height, width: of a latent frame.
        recipe: settings of the training run; ``trained_steps`` of it were done, ``recipe_hash`` names it.
    """

    checkpoint: str
    recipe: Mapping[str, object]
    recipe_hash: str
    trained_steps: int
    sampler_steps: tuple[int, ...] = (1000, 750, 500, 250)
    sampler_shift: float = 3.0
    fps: int = 16
    horizon: int = 21
    block: int = 3
    height: int = 8
    width: int = 8


def weights_path(name: str = SHIPPED) -> Path:
    """The packaged weights file of a checkpoint; raises FileNotFoundError naming those that exist."""
    path = WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        found = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))) or "none"
        raise FileNotFoundError(f'no packaged weights "{name}" of the embedded model; there are: {found}')
    return path


def read_metadata(path: Path) -> tuple[Mapping[str, Any], TinyInfo]:
    """The facts in the header of a weights file: raw (format, geometry, words, info), and info read.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file is damaged, not one of this model, or of an older version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}")
    try:
        with safe_open(str(path), "np") as file:
            header: dict[str, str] = file.metadata() or {}
    except SafetensorError as error:
        raise WeightsError(f"{path} is no readable safetensors file ({error}); is it complete?") from error
    if header.get("format") == "irope-tiny-1":
        raise WeightsError(
            f"{path} is of an older irope, whose codec had no trained decoder (format irope-tiny-1, not {FORMAT}); "
            "use the packaged weights, or train anew with: irope train tiny"
        )
    try:
        facts = json.loads(header.get(HEADER, "{}"))
        if (found := facts.get("format")) != FORMAT:
            raise WeightsError(f"{path} does not hold an embedded model (format {found!r}, not {FORMAT!r})")
        return facts, to_info(facts["info"])
    except WeightsError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its metadata is damaged ({error!r})") from error


def to_info(facts: Mapping[str, Any]) -> TinyInfo:
    """Read the values of a `TinyInfo` back; unknown ones are left out."""
    known = {field.name for field in fields(TinyInfo)}
    values = {key: value for key, value in facts.items() if key in known}
    return TinyInfo(**{**values, "sampler_steps": tuple(values["sampler_steps"])})
