"""Keys of the published ``models_t5_umt5-xxl-enc-bf16.pth`` and the same ones in transformers' ``UMT5EncoderModel``."""

from __future__ import annotations

import re

_TOP = {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
_INNER = {
    "norm1": "layer.0.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",  # one per layer in umT5
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.weight")


def from_original(key: str) -> str:
    """transformers' name of an original key; any other key, one of transformers included, as it is.

    The embedding has two names in transformers, of which a file may use either.
    """
    if key == "encoder.embed_tokens.weight":
        return "shared.weight"
    found = _BLOCK.fullmatch(key)
    if found and found[2] in _INNER:
        return f"encoder.block.{found[1]}.{_INNER[found[2]]}.weight"
    return _TOP.get(key, key)
