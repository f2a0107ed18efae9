"""How far FP8 linear layers take a model from what it makes without them; the arithmetic is that of a GPU.

Shape letters: F latent frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from irope.bench_rollout import Geometry, random_model
from irope.cache import ArenaShape, KVArena
from irope.fp8 import quantise_layers, restore_layers
from irope.models.tiny.evaluate import generate, unseen_scenes
from irope.models.tiny.model import TinyModel
from irope.policy import CachePlan
from irope.transformer import CausalWanTransformer, WanConfig

LAYERS = (1, 2, 4, 8, 16, 30)


@dataclass(frozen=True)
class FlowError:
    """Root mean square error of the flow over that of the flow in float32, of the same weights."""

    layers: int
    bfloat16: float
    fp8: float


@dataclass(frozen=True)
class FrameError:
    """Difference to the video without FP8 at a second of it, in steps of 255: mean, and share of pixels beyond 8."""

    second: int
    mean: float
    far: float


@torch.inference_mode()
def flow_errors(layers: Sequence[int] = LAYERS, dim: int = 384, seed: int = 0) -> list[FlowError]:
    """One call of three latent frames of a random model, for each number of layers; FP8 in bfloat16, as on a GPU."""
    found = []
    for count in layers:
        config = WanConfig(dim=dim, ffn_dim=4 * dim, num_heads=dim // 64, num_layers=count, text_len=16, text_dim=64)
        exact = random_model(config, torch.device("cpu"), torch.float32, seed)
        half = random_model(config, torch.device("cpu"), torch.bfloat16, seed)
        half.load_state_dict(exact.state_dict())
        geometry = Geometry(config, 8, 8)
        wanted, rounded = _flow(exact, geometry), _flow(half, geometry)
        quantise_layers(half)
        quantised = _flow(half, geometry)
        found.append(FlowError(count, _relative(rounded, wanted), _relative(quantised, wanted)))
    return found


def _flow(model: CausalWanTransformer, geometry: Geometry, frames: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(1, model.config.text_len, model.config.text_dim, generator=generator)
    x = torch.randn(1, frames, *geometry.frame_shape, generator=generator)
    shape = ArenaShape(frames, model.config.grid(geometry.height, geometry.width))
    arena = KVArena(model.config, shape, model.dtype, model.device)
    arena.execute(CachePlan((), (), tuple(range(frames))), 0)
    return model(x.to(model.dtype), torch.full((1, frames), 937.5), model.text_kv(text), arena).float()


def _relative(made: Tensor, wanted: Tensor) -> float:
    return ((made - wanted).square().mean() / wanted.square().mean()).sqrt().item()


def frame_errors(model: TinyModel, prompts: int = 8, seconds: Sequence[int] = (0, 1, 2, 3, 4)) -> list[FrameError]:
    """Videos of 5 s of the embedded model with and without FP8, the same noise; a difference feeds on itself."""
    texts = [scene.prompt for scene in unseen_scenes(prompts, 0)]
    plain = generate(model, texts, model.info.horizon, 0)
    quantise_layers(model.transformer)
    try:
        made = generate(model, texts, model.info.horizon, 0)
    finally:
        restore_layers(model.transformer)
    difference = np.abs(np.stack(made).astype(np.int16) - np.stack(plain).astype(np.int16))
    fps = round(model.info.fps)
    stretches = [(second, difference[:, second * fps : (second + 1) * fps]) for second in seconds]
    return [FrameError(second, float(part.mean()), float((part > 8).mean())) for second, part in stretches]
