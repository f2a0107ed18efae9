"""A folder of small weights, laid out as published, from which ``model=wan_1_3b`` makes videos in seconds on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.diffusers_kit import import_diffusers
from tests.wan_kit import GEOMETRY, random_state, save_pt, write_config

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "fox", "runs", "walks", "in", "snow"]
OVERRIDES = ("model=wan_1_3b", "video.model.height=64", "video.model.width=64", "video.model.dtype=float32")


def write_text_encoder(folder: Path, width: int = GEOMETRY.text_dim) -> Path:
    """A random umT5 of two layers, saved by transformers."""
    import_diffusers("transformers")
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=len(WORDS), d_model=width, d_kv=4, d_ff=24, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        UMT5EncoderModel(config).save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path) -> Path:
    """Words apart, an end token behind them."""
    tokenizers: Any = __import__("tokenizers")
    model = tokenizers.models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_vae(folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = import_diffusers().AutoencoderKLWan(base_dim=8).eval().requires_grad_(False)
        vae.decoder.conv_out.weight.mul_(6)
    vae.save_pretrained(folder)
    return folder


def write_weights(root: Path) -> tuple[str, ...]:
    """Everything that a run needs; returns the overrides that use it."""
    repo = root / "Wan-AI" / "Wan2.1-T2V-1.3B-Diffusers"
    write_text_encoder(repo / "text_encoder")
    write_tokenizer(repo / "tokenizer")
    write_vae(repo / "vae")
    state = random_state()
    checkpoints = root / "gdhe17" / "Self-Forcing" / "checkpoints"
    save_pt(checkpoints / "self_forcing_dmd.pt", {"generator_ema": {f"model.{k}": v for k, v in state.items()}})
    return (*OVERRIDES, f"sys.weights={root}", f"video.model.config={write_config(root / 'config.json')}")


def write_placeholders(root: Path, *files: str) -> None:
    """Files that only have a name and a content of their own: enough for plans, which read no weights."""
    common = ("models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl/tokenizer.json", "Wan2.1_VAE.pth")
    for file in (*(f"Wan-AI/Wan2.1-T2V-1.3B/{name}" for name in common), *files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(f"placeholder of {file}")
