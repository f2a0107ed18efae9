"""The embedded model as one file: transformer, text encoder and codec, with how to sample and how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from irope.models.checkpoint import WeightsError, load_strict
from irope.models.tiny.codec import TinyCodec
from irope.models.tiny.net import TinyNet
from irope.models.tiny.text import TinyTextEncoder
from irope.transformer import CausalWanTransformer, WanConfig

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


@dataclass(frozen=True)
class TinyModel:
    """Everything a rollout needs."""

    transformer: CausalWanTransformer
    text_encoder: TinyTextEncoder
    codec: TinyCodec
    info: TinyInfo


def save_tiny(path: Path, weights: Mapping[str, Tensor], codec: TinyCodec, geometry: WanConfig, info: TinyInfo) -> None:
    """Write a model file: net weights in float16, ``codec.`` tensors in float32, facts in the metadata."""
    tensors = {name: w.detach().half().cpu().contiguous() for name, w in weights.items()}
    tensors |= {f"codec.{name}": w.cpu().contiguous() for name, w in codec.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "geometry": json.dumps(asdict(geometry)),
        "words": json.dumps(TinyTextEncoder(1, 1).words),
        "info": json.dumps(asdict(info)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file(tensors, str(part), metadata)
    part.replace(path)


def weights_path(name: str = SHIPPED) -> Path:
    """The packaged weights file of a checkpoint; raises FileNotFoundError naming those that exist."""
    path = WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        found = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))) or "none"
        raise FileNotFoundError(f'no packaged weights "{name}" of the embedded model; there are: {found}')
    return path


def load_tiny(
    path: str | Path | None = None, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> TinyModel:
    """Load the embedded model, by default the packaged one, in evaluation mode.

    Args:
        path: a weights file; None for the packaged ``stable`` checkpoint.
        dtype: of transformer and text encoder; the codec stays float32.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file is damaged or not one of this model; names the key and the shapes at fault.
    """
    path = Path(path) if path is not None else weights_path()
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                found = metadata.get("format")
                raise WeightsError(f"{path} does not hold an embedded model (format {found!r}, not {FORMAT!r})")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise WeightsError(f"{path} is no readable safetensors file ({error}); is it complete?") from error
    try:
        geometry = WanConfig.from_dict(json.loads(metadata["geometry"]))
        known = {field.name for field in fields(TinyInfo)}
        facts = {key: value for key, value in json.loads(metadata["info"]).items() if key in known}
        info = TinyInfo(**{**facts, "sampler_steps": tuple(facts["sampler_steps"])})
        words = tuple(json.loads(metadata["words"]))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its metadata is damaged ({error!r})") from error
    net = TinyNet(geometry)
    if words != net.text.words:
        raise WeightsError(f"{path} was trained on another vocabulary than this version of irope")
    load_strict(net, {name: w for name, w in tensors.items() if not name.startswith("codec.")}, str(path))
    net = net.to(device, dtype).eval().requires_grad_(False)
    codec = TinyCodec(geometry.in_dim)
    parts = {name.removeprefix("codec."): w for name, w in tensors.items() if name.startswith("codec.")}
    load_strict(codec, parts, f"{path} (codec)")
    return TinyModel(net.wan, net.text, codec.to(device).eval(), info)
