"""A generator: everything a roll-out needs of a model, whatever the model is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from irope.config import Choice
from irope.models.checkpoint import WeightsError, file_digest
from irope.rollout import VideoCodec
from irope.script import Clock
from irope.transformer import CausalWanTransformer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Generator:
    """A loaded model.

    Attributes:
        encode_text: prompt -> text features [1, text_len, text_dim].
        check_prompt: raises a `UserError` for a prompt the model cannot read, without encoding it.
        steps, shift: nominal denoising steps and how the timesteps are shifted.
        frame_shape: (channels, height, width) of a latent frame.
        horizon: latent frames seen in training, f_limit.
        digest: SHA-256 of the weights; part of every video's key.
    """

    name: str
    transformer: CausalWanTransformer
    codec: VideoCodec
    encode_text: Callable[[str], Tensor]
    check_prompt: Callable[[str], object]
    steps: tuple[int, ...]
    shift: float
    frame_shape: tuple[int, int, int]
    clock: Clock
    horizon: int
    digest: str


def device_from(config: DictConfig) -> torch.device:
    """``sys.device``; ``auto`` is a GPU where there is one."""
    name = Choice(config, "sys.device").one_of("auto", "cpu", "cuda")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise WeightsError("sys.device=cuda, but torch sees no GPU here; nearest valid: sys.device=cpu")
    return torch.device(name)


def load_generator(config: DictConfig) -> Generator:
    """Load the model of ``video.model``.

    Raises:
        WeightsError: weights missing, truncated, or for another model.
        ConfigError: a value of ``video.model`` is not valid.
    """
    dtype = DTYPES[Choice(config, "video.model.dtype").one_of(*DTYPES)]
    device = device_from(config)
    Choice(config, "video.model.name").one_of("tiny")
    from irope.models.tiny.model import load_tiny, weights_path
    from irope.world.scene import parse_prompt

    weights = Choice(config, "video.model.weights").text()
    try:
        path = Path(weights) if weights else weights_path(str(Choice(config, "video.model.checkpoint").text()))
        model = load_tiny(path, device, dtype)
    except FileNotFoundError as error:
        key = "video.model.weights" if weights else "video.model.checkpoint"
        raise WeightsError(f"{key}: {error}; to train a checkpoint run: irope train tiny") from error
    geometry = model.transformer.config
    return Generator(
        name=f"tiny/{model.info.checkpoint}",
        transformer=model.transformer,
        codec=model.codec,
        encode_text=lambda prompt: model.text_encoder([prompt]),
        check_prompt=parse_prompt,
        steps=model.info.sampler_steps,
        shift=model.info.sampler_shift,
        frame_shape=(geometry.in_dim, model.info.height, model.info.width),
        clock=Clock(fps=model.info.fps, block=model.info.block),
        horizon=model.info.horizon,
        digest=file_digest(path),
    )
