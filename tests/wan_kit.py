"""Small checkpoints in every format in which the 1.3B generators are published."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from irope.transformer import CausalWanTransformer, WanConfig
from tests.diffusers_kit import import_diffusers

GEOMETRY = WanConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=2, text_len=12, text_dim=20, freq_dim=32)

Tensors = dict[str, Tensor]


def random_state(geometry: WanConfig = GEOMETRY, seed: int = 0) -> Tensors:
    """A generator's state dict, float32, every tensor large enough to matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = CausalWanTransformer(geometry)
    made = {}
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            made[name] = 1 + 0.3 * noise
        else:
            made[name] = noise / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.3 * noise
    return made


def write_config(path: Path, geometry: WanConfig = GEOMETRY) -> Path:
    """A config.json as the original repository has it."""
    path.write_text(json.dumps({"_class_name": "WanModel", "model_type": "t2v", **asdict(geometry)}))
    return path


def other(state: Mapping[str, Tensor]) -> Tensors:
    """Weights that a loader would notice to be the wrong copy."""
    return {name: tensor + 1 for name, tensor in state.items()}


def _prefixed(state: Mapping[str, Tensor], prefix: str) -> Tensors:
    return {prefix + name: tensor for name, tensor in state.items()}


def save_pt(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def save_safetensors(path: Path, state: Mapping[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(state), path)
    return path


def save_shards(folder: Path, state: Mapping[str, Tensor], stem: str = "diffusion_pytorch_model") -> Path:
    """Two shards and their index, as `diffusers` and the Hugging Face hub have them."""
    names = sorted(state)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    weight_map = {}
    for number, part in enumerate(parts, 1):
        file = f"{stem}-{number:05d}-of-00002.safetensors"
        save_safetensors(folder / file, {name: state[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def diffusers_model(geometry: WanConfig = GEOMETRY) -> Any:
    """diffusers' own transformer with random weights."""
    model = import_diffusers().WanTransformer3DModel(
        patch_size=geometry.patch_size,
        num_attention_heads=geometry.num_heads,
        attention_head_dim=geometry.head_dim,
        in_channels=geometry.in_dim,
        out_channels=geometry.out_dim,
        text_dim=geometry.text_dim,
        freq_dim=geometry.freq_dim,
        ffn_dim=geometry.ffn_dim,
        num_layers=geometry.num_layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        eps=geometry.eps,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.3
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


FORMATS: dict[str, Callable[[Path, Tensors], Path]] = {
    "flat .pt": lambda folder, state: save_pt(folder / "flat.pt", state),
    "Self-Forcing": lambda folder, state: save_pt(
        folder / "self_forcing_dmd.pt",
        {
            "generator": _prefixed(other(state), "model."),
            "generator_ema": _prefixed(state, "model."),
            "critic": _prefixed(other(state), "model."),
            "step": 600,
        },
    ),
    "FSDP": lambda folder, state: save_pt(
        folder / "ema_model.pt",
        {
            "generator_ema": {
                "model._fsdp_wrapped_module." + name.replace("blocks.0.", "blocks.0._fsdp_wrapped_module."): tensor
                for name, tensor in state.items()
            }
        },
    ),
    "generator only": lambda folder, state: save_pt(
        folder / "model.pt", {"generator": _prefixed(state, "model."), "critic": other(state)}
    ),
    "model in generator": lambda folder, state: save_pt(folder / "nested.pt", {"generator": {"model": state}}),
    ".safetensors": lambda folder, state: save_safetensors(folder / "a.safetensors", state),
    "shards": save_shards,
}
