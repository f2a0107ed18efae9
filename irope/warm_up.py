"""What a compiler does at its first calls, done before anything is timed."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from irope.generator import Generator
from irope.noise import KeyedNoise
from irope.registry import make_policy
from irope.rollout import Rollout
from irope.sampler import Sampler
from irope.schedules import EventTable

_BLOCKS = 3
"""After so many of them the decoder, too, has met every kind of call."""


def warm_up(generator: Generator, batch: int = 1) -> float | None:
    """Seconds of the first blocks of a video that nobody sees; None, and nothing done, where nothing is compiled.

    Args:
        batch: videos in lock step; each number is compiled by itself.
    """
    model, block = generator.transformer, generator.clock.block
    if not model.compiled:
        return None
    start = time.perf_counter()

    def texts(segment: int) -> Tensor:
        return torch.zeros(batch, model.config.text_len, model.config.text_dim)

    rollout = Rollout(
        model=model,
        policy=make_policy("infinity_rope", {"window": 2 * block}),
        events=EventTable(_BLOCKS, {}),
        sampler=Sampler.from_nominal(generator.steps[:1], generator.shift),
        texts=texts,
        noise=KeyedNoise(0, [""] * batch, (block, *generator.frame_shape)),
        frame_shape=generator.frame_shape,
        codec=generator.codec,
        batch=batch,
        block=block,
        horizon=generator.horizon,
        execution=generator.execution,
    )
    for _ in rollout:
        pass
    return time.perf_counter() - start
