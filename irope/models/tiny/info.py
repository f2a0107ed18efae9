"""What a weights file of the embedded model says about itself, read without torch: plans need no more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from safetensors import SafetensorError, safe_open

from irope.errors import WeightsError

FORMAT = "irope-tiny-1"
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


def read_metadata(path: Path) -> tuple[Mapping[str, str], TinyInfo]:
    """The facts in the header of a weights file, raw and read.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file is damaged or not one of this model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}")
    try:
        with safe_open(str(path), "np") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except SafetensorError as error:
        raise WeightsError(f"{path} is no readable safetensors file ({error}); is it complete?") from error
    if (found := metadata.get("format")) != FORMAT:
        raise WeightsError(f"{path} does not hold an embedded model (format {found!r}, not {FORMAT!r})")
    try:
        known = {field.name for field in fields(TinyInfo)}
        facts = {key: value for key, value in json.loads(metadata["info"]).items() if key in known}
        return metadata, TinyInfo(**{**facts, "sampler_steps": tuple(facts["sampler_steps"])})
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its metadata is damaged ({error!r})") from error
