"""Plain roll-outs of the embedded model, without prompt events: for watching a training run and for `verify tiny`.

Shapes: B prompts, N latent frames, C latent channels, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from irope.infinity import InfinityRope
from irope.models.tiny.model import TinyModel
from irope.noise import KeyedNoise
from irope.rollout import Rollout
from irope.sampler import Sampler
from irope.schedules import EventTable


def roll_out(
    model: TinyModel,
    prompts: Sequence[str],
    latent_frames: int = 21,
    seed: int = 0,
    window: int | None = None,
    sink: int = 0,
) -> Tensor:
    """Latents [B, N, C, h, w], float32, of one video per prompt; the noise of a video depends on (seed, prompt) alone.

    Args:
        latent_frames: a multiple of the block (3).
        window: frames attended at once, sink and new block included, indices relative to the window; None for a full
            causal cache over the whole video.

    Raises:
        ValueError: part of a block was asked for, no prompt was given, or the window is too small for sink and block.
    """
    info, config = model.info, model.transformer.config
    if latent_frames < info.block or latent_frames % info.block:
        raise ValueError(f"a roll-out makes whole blocks of {info.block} latent frames, got {latent_frames}")
    if not prompts:
        raise ValueError("a roll-out needs at least one prompt")
    frame_shape = (config.in_dim, info.height, info.width)
    video = Rollout(
        model=model.transformer,
        policy=InfinityRope(window=window or latent_frames, sink=sink),
        events=EventTable(latent_frames // info.block),
        sampler=Sampler.from_nominal(info.sampler_steps, info.sampler_shift),
        texts=lambda segment: model.text_encoder(prompts),
        noise=KeyedNoise(seed, list(prompts), (info.block, *frame_shape)),
        frame_shape=frame_shape,
        batch=len(prompts),
        block=info.block,
        horizon=max(info.horizon, window or latent_frames),
    )
    return torch.cat([block.latents.float() for block in video], dim=1)
