"""A generator: everything a roll-out needs of a model, whatever the model is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor

from irope.config import Choice, ConfigError, Settings
from irope.errors import WeightsError
from irope.fp8 import quantise_layers
from irope.model_card import ModelCard, card_from, weights_file
from irope.rollout import VideoCodec
from irope.transformer import CausalWanTransformer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CELL = 8
"""Pixels of a latent cell, each way: the Wan VAE and the embedded codec have the same stride."""


@dataclass(frozen=True)
class Generator(ModelCard):
    """A loaded model.

    Attributes:
        encode_text: prompt -> text features [1, text_len, text_dim].
        frame_shape: (channels, height, width) of a latent frame.
        prepare: called with all prompts of a job before its roll-out, so that what is costly to load is loaded once.
        execution: ``sys.execution``: how roll-outs run the transformer (`irope.rollout.Rollout`).
    """

    transformer: CausalWanTransformer
    codec: VideoCodec
    encode_text: Callable[[str], Tensor]
    frame_shape: tuple[int, int, int]
    _: KW_ONLY
    prepare: Callable[[Sequence[str]], None] = lambda _: None
    execution: str = "fast"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        _, height, width = self.frame_shape
        return height * CELL, width * CELL


def device_from(config: Settings) -> torch.device:
    """``sys.device``; ``auto`` is a GPU where there is one."""
    name = Choice(config, "sys.device").one_of("auto", "cpu", "cuda")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise WeightsError("sys.device=cuda, but torch sees no GPU here; nearest valid: sys.device=cpu")
    return torch.device(name)


def compiles(config: Settings, device: torch.device) -> bool:
    """``sys.compile``; ``auto`` is on a GPU, where warming up pays."""
    value = config["sys"].get("compile", "auto")
    if value not in ("auto", True, False):
        raise ConfigError(f"sys.compile={value}: expected auto, true or false")
    return device.type == "cuda" if value == "auto" else bool(value)


def load_generator(config: Settings) -> Generator:
    """Load the model of ``video.model``.

    Raises:
        WeightsError: weights missing, truncated, or for another model.
        ConfigError: a value of ``video.model`` or ``sys.execution`` is not valid.
    """
    execution = Choice(config, "sys.execution").one_of("fast", "reference")
    made = replace(_load(config), execution=execution)
    offloaded = made.transformer.offloaded
    if Choice(config, "video.model.linear").one_of("bfloat16", "fp8") == "fp8":
        if offloaded:
            raise ConfigError("video.model.linear=fp8 keeps its weights in place; needs video.model.offload=false")
        quantise_layers(made.transformer)
    if execution == "fast" and compiles(config, made.transformer.device) and not offloaded:
        made.transformer.compile_layers((made.clock.block,))
    return made


def _load(config: Settings) -> Generator:
    dtype = DTYPES[Choice(config, "video.model.dtype").one_of(*DTYPES)]
    device = device_from(config)
    card = card_from(config)
    if config["video"]["model"]["name"] == "wan_1_3b":
        from irope.models.wan.model import load_wan

        return load_wan(config, device, dtype)
    from irope.models.tiny.model import load_tiny

    model = load_tiny(weights_file(config), device, dtype)
    geometry = model.transformer.config
    return Generator(
        **vars(card),
        transformer=model.transformer,
        codec=model.codec,
        encode_text=lambda prompt: model.text_encoder([prompt]),
        frame_shape=(geometry.in_dim, model.info.height, model.info.width),
    )
