"""The 1.3B generator put together from published files: text encoder, transformer with its LoRA, VAE."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import torch

from irope.config import Choice, Settings, scripts_from
from irope.digests import cache_folder
from irope.errors import WeightsError
from irope.generator import Generator, compiles
from irope.model_card import ModelCard
from irope.models.wan.card import STRIDE, WanFiles, size_of, wan_card, wan_files
from irope.models.wan.checkpoint import Weights, check, load_into, open_weights
from irope.models.wan.lora import Lora, read_lora
from irope.transformer import CausalWanTransformer, WanConfig

VAE_STRIDE = STRIDE // 2


def load_wan(config: Settings, device: torch.device, dtype: torch.dtype) -> Generator:
    """Load ``model=wan_1_3b``: names and shapes of all weights are checked first, then the prompts of ``config`` are
    encoded and the text encoder released, and only then VAE and transformer are put on the device.

    Raises:
        WeightsError: weights missing, damaged, or for another model.
        ConfigError: a value of ``video.model`` is not valid.
    """
    from irope.models.wan.text import PromptEmbeddings
    from irope.models.wan.vae import load_vae, open_vae

    files, card = wan_files(config), wan_card(config)
    height, width = (side // VAE_STRIDE for side in size_of(config))
    transformer = empty_transformer(files.geometry)
    weights, lora = open_generator(files, transformer)
    open_vae(files.vae)
    geometry = transformer.config

    on_cpu = Choice(config, "video.model.text_encoder_device").one_of("auto", "cpu") == "cpu"
    texts = PromptEmbeddings(
        files.text_encoder,
        files.tokenizer,
        cache_folder() / "prompts",
        torch.device("cpu") if on_cpu else device,
        dtype,
        text_len=geometry.text_len,
    )

    def encode_text(prompt: str) -> torch.Tensor:
        text_BTE = texts(prompt)
        if text_BTE.shape[-1] != geometry.text_dim:
            raise WeightsError(
                f"{files.text_encoder} gives text features of width {text_BTE.shape[-1]}, the generator "
                f"{files.name} needs {geometry.text_dim}: video.model.text_encoder is for another model"
            )
        return text_BTE.to(device)

    prompts = [segment.prompt for script in scripts_from(config) for segment in script.segments]
    texts.prepare(prompts)
    encode_text(prompts[0])  # does the text encoder fit the generator
    texts.release()
    tiling = Choice(config, "video.model.vae_tiling").flag()
    offloaded = Choice(config, "video.model.offload").flag()
    codec = load_vae(
        files.vae,
        device,
        dtype,
        tiling=tiling,
        latents_per_call=Choice(config, "video.model.latents_per_call").integer(1),
        offloaded=offloaded,
        compiled=compiles(config, device) and not offloaded,
    )
    load_into(transformer, lora.merged(weights.read) if lora else weights.read, device, dtype)
    if offloaded:
        transformer.offload()
    return Generator(
        **{field.name: getattr(card, field.name) for field in fields(ModelCard)},
        transformer=transformer.eval().requires_grad_(False),
        codec=codec,
        encode_text=encode_text,
        frame_shape=(geometry.in_dim, height, width),
        prepare=texts.prepare,
    )


def open_generator(files: WanFiles, transformer: CausalWanTransformer) -> tuple[Weights, Lora | None]:
    """The weights of generator and LoRA, checked against every name and shape; no weight of the generator is read.

    Raises:
        WeightsError: naming the file, and the architecture it is of or the key at fault.
    """
    wanted = {name: tuple(parameter.shape) for name, parameter in transformer.named_parameters()}
    weights = open_weights(files.generator, files.ema, files.strict_ema)
    check(weights, wanted, transformer.config.in_dim)
    if files.lora is None:
        return weights, None
    lora = read_lora(files.lora, files.lora_alpha, files.lora_rank)
    lora.check(wanted)
    return weights, lora


def empty_transformer(geometry: Path | None = None) -> CausalWanTransformer:
    """The model without weights, on ``meta``.

    Args:
        geometry: a published ``config.json``; None: the 1.3B model.

    Raises:
        WeightsError: the file describes no such model.
    """
    try:
        values = json.loads(geometry.read_text(encoding="utf-8")) if geometry else {}
        with torch.device("meta"):
            return CausalWanTransformer(WanConfig.from_dict(values))
    except (OSError, TypeError, ValueError) as error:
        raise WeightsError(f"video.model.config={geometry} describes no Wan transformer: {error}") from error
