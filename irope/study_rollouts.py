"""Batched roll-outs of the policy study: all prompts of a list in lock step, a common beginning computed once.

Shapes: B prompts, N latent frames, C latent channels, h w latent cells; in the attention part T blocks, S denoising
steps, A layers, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irope.cache import Probe
from irope.models.tiny.model import TinyModel
from irope.noise import KeyedNoise
from irope.policy import CacheEvent, CachePlan
from irope.rollout import Rollout
from irope.sampler import Sampler
from irope.schedules import Denoise, EventTable
from irope.study_cells import Cell, Take

BATCH = 32
"""Prompts of one forward: 6 % more frames a second than 16 on a CPU core, and half a gigabyte at most."""


@dataclass
class Beginnings:
    """What roll-outs with equal plans before their event share: latents and state, by plans and prompts.

    Only those of one group of cells are held at a time, as the cells of a group follow each other.
    """

    group: Any = None
    states: dict[Any, tuple[Tensor, dict[str, Tensor], dict[str, Any]]] = field(default_factory=dict)

    def of(self, group: Any) -> dict[Any, tuple[Tensor, dict[str, Tensor], dict[str, Any]]]:
        if group != self.group:
            self.group, self.states = group, {}
        return self.states


def rollout(model: TinyModel, cell: Cell, takes: Sequence[Take], seed: int) -> Rollout:
    """The roll-out of a cell; the noise of a video depends on (seed, prompt before the event) alone."""
    info, config = model.info, model.transformer.config
    frame_shape = (config.in_dim, info.height, info.width)
    prompts = [[take.before.prompt for take in takes], [take.after.prompt for take in takes]]
    event = {} if cell.at is None or cell.event is CacheEvent.BLOCK else {cell.at: cell.event}
    return Rollout(
        model=model.transformer,
        policy=cell.policy,
        events=EventTable(cell.blocks, event),
        sampler=Sampler.from_nominal(info.sampler_steps, info.sampler_shift),
        texts=lambda segment: model.text_encoder(prompts[segment]),
        noise=KeyedNoise(seed, prompts[0], (info.block, *frame_shape)),
        frame_shape=frame_shape,
        batch=len(takes),
        block=info.block,
        horizon=info.horizon,
    )


def latents(model: TinyModel, cell: Cell, takes: Sequence[Take], seed: int, shared: Beginnings | None = None) -> Tensor:
    """Latents [B, N, C, h, w] of one batch, float32 on the CPU."""
    video = rollout(model, cell, takes, seed)
    at = cell.at
    if at is None or shared is None:
        return torch.cat([block.latents.float().cpu() for block in video], dim=1)
    plans = tuple(
        op.plan
        for op in takewhile(lambda op: not isinstance(op, Denoise) or op.noise_block < at, video.operations())
        if isinstance(op, Denoise) and op.plan is not None
    )
    held = shared.of((cell.part, cell.takes, cell.policy.window, at))
    key = (plans, tuple(take.before.prompt for take in takes), seed)
    if key in held:
        begun, tensors, record = held[key]
        video.load_state(tensors, record)
        return torch.cat([begun, *(block.latents.float().cpu() for block in video)], dim=1)
    parts = []
    for block in video:
        parts.append(block.latents.float().cpu())
        if block.index == at - 1:
            tensors, record = video.state()
            copies = {name: tensor.clone() for name, tensor in tensors.items()}
            held[key] = (torch.cat(parts, dim=1), copies, record)
    return torch.cat(parts, dim=1)


@dataclass
class SinkMass:
    """Share of a block's attention that goes to the sink, recorded during a roll-out without changing it.

    Attributes:
        tokens: of a latent frame.
        steps: denoising steps to look at, 0 is the noisiest.
        mass: per block and step a list of [B, H], one entry a layer.
        distance, even: per block the index distance of its first frame to the first sink frame, and the share that
            the sink would have if all keys were attended alike.
    """

    sink: int
    tokens: int
    steps: tuple[int, ...]
    mass: dict[tuple[int, int], list[NDArray[np.float32]]] = field(default_factory=dict)
    distance: dict[int, int] = field(default_factory=dict)
    even: dict[int, float] = field(default_factory=dict)

    def __call__(self, op: Denoise, plan: CachePlan, /) -> Probe | None:
        held = [place for place, page in enumerate(plan.read) if isinstance(page, int) and page < self.sink]
        if op.levels[0] not in self.steps or not held:
            return None
        found = self.mass.setdefault((op.noise_block, op.levels[0]), [])
        self.distance[op.noise_block] = plan.query_index[0] - plan.key_index[held[0]]
        self.even[op.noise_block] = len(held) / (len(plan.read) + len(op.frames))

        def probe(layer: int, q_BLNK: Tensor, k_BMNK: Tensor) -> None:
            logits = torch.einsum("blnk,bmnk->bnlm", q_BLNK.float(), k_BMNK.float()) * q_BLNK.shape[-1] ** -0.5
            share_BNLF = torch.softmax(logits, dim=-1).unflatten(-1, (-1, self.tokens)).sum(-1)
            found.append(share_BNLF[..., held].sum(-1).mean(-1).cpu().numpy())

        return probe

    def by_block(self) -> tuple[list[int], NDArray[np.float32]]:
        """Blocks that have a sink in the past, and the mass [B, T, S, A, H]."""
        blocks = sorted(self.distance)
        mass = [[np.stack(self.mass[block, step]) for step in self.steps] for block in blocks]
        return blocks, np.moveaxis(np.asarray(mass, dtype=np.float32), 3, 0)
