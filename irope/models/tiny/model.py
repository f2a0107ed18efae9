"""The embedded model as one file: transformer, text encoder and codec, with how to sample and how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from irope.errors import WeightsError
from irope.models.checkpoint import load_strict
from irope.models.tiny.codec import TinyCodec
from irope.models.tiny.info import FORMAT, HEADER, TinyInfo, read_metadata, weights_path
from irope.models.tiny.net import TinyNet
from irope.models.tiny.text import TinyTextEncoder
from irope.transformer import CausalWanTransformer, WanConfig


@dataclass(frozen=True)
class TinyModel:
    """Everything a rollout needs."""

    transformer: CausalWanTransformer
    text_encoder: TinyTextEncoder
    codec: TinyCodec
    info: TinyInfo


def save_tiny(path: Path, weights: Mapping[str, Tensor], codec: TinyCodec, geometry: WanConfig, info: TinyInfo) -> None:
    """Write a model file: net weights and decoder in float16, the rest of ``codec.`` in float32, facts as metadata.

    The same arguments give the same bytes.
    """
    tensors = {name: w.detach().half().cpu().contiguous() for name, w in weights.items()}
    tensors |= {f"codec.{name}": w for name, w in codec.tensors().items()}
    facts = {
        "format": FORMAT,
        "geometry": asdict(geometry),
        "words": TinyTextEncoder(1, 1).words,
        "info": asdict(info),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file(tensors, str(part), {HEADER: json.dumps(facts)})
    part.replace(path)


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
    facts, info = read_metadata(path)
    with safe_open(str(path), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    try:
        geometry = WanConfig.from_dict(facts["geometry"])
        words = tuple(facts["words"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its metadata is damaged ({error!r})") from error
    net = TinyNet(geometry)
    if words != net.text.words:
        raise WeightsError(f"{path} was trained on another vocabulary than this version of irope")
    load_strict(net, {name: w for name, w in tensors.items() if not name.startswith("codec.")}, str(path))
    net = net.to(device, dtype).eval().requires_grad_(False)
    parts = {name.removeprefix("codec."): w for name, w in tensors.items() if name.startswith("codec.")}
    codec = TinyCodec.from_tensors(parts, f"{path} (codec)")
    return TinyModel(net.wan, net.text, codec.to(device).eval(), info)
