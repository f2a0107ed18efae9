"""What a file of weights really is, when it is not a generator of the 1.3B model: by names and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]

_VAE = ("encoder.conv1.weight", "decoder.conv1.weight", "encoder.conv_in.weight", "decoder.conv_in.weight")
_T5 = ("token_embedding.weight", "shared.weight", "encoder.embed_tokens.weight")


def other_architecture(shapes: Shapes, dim: int, in_dim: int) -> str | None:
    """What the file holds, in words that end a sentence, or None if it may be a generator of this size.

    Args:
        shapes: published names (see `irope.models.wan.names`) and shapes.
        dim, in_dim: width and latent channels of the model that is wanted.
    """
    if any(name in shapes for name in _VAE):
        return "a VAE, not a generator: give it as video.model.vae"
    if any(name in shapes for name in _T5):
        return "a text encoder, not a generator: give it as video.model.text_encoder"
    if any(is_lora(name) for name in shapes):
        return "a LoRA, not a generator: give it as video.model.lora and its base as video.model.generator"
    patch = shapes.get("patch_embedding.weight")
    if patch is None or len(patch) != 5:
        return None
    width, channels = patch[:2]
    image = any(name.startswith(("img_emb.", "condition_embedder.image_embedder.")) for name in shapes)
    if image or (channels == 36 and in_dim != 36):
        return (
            f"an image-to-video model (I2V, {channels} input channels), not a text-to-video generator of the 1.3B size"
        )
    if width == 3072 and channels == 48:
        return "Wan2.2-TI2V-5B (width 3072, 48 latent channels of another VAE), not a generator of the 1.3B size"
    if width == 5120 and dim != 5120:
        return "a 14B model (width 5120: Wan2.1-T2V-14B, or one expert of Wan2.2-T2V-A14B), not one of the 1.3B size"
    return None


def is_lora(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name or ".lora_down." in name or ".lora_up." in name
