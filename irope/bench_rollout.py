"""Roll-outs of a random model, for measuring speed and counting work where no weights are at hand.

Needs torch and numpy only. Weights and noise are random and not zero: zeros make a GPU draw less power and run faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from irope.op_counter import OpCounter, Tally
from irope.policy import CacheEvent
from irope.registry import make_policy
from irope.rollout import Rollout
from irope.sampler import Sampler
from irope.schedules import Denoise, EventTable
from irope.timeline import CLOCK, Clock
from irope.transformer import CausalWanTransformer, WanConfig

STEPS = (1000.0, 750.0, 500.0, 250.0)
SHIFT = 5.0
BLOCK = 3


@dataclass(frozen=True)
class Geometry:
    """A model and its latent frames; the defaults are Wan2.1-1.3B at 480x832."""

    config: WanConfig = field(default_factory=WanConfig)
    height: int = 60
    width: int = 104

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        return self.config.in_dim, self.height, self.width

    @property
    def tokens(self) -> int:
        rows, columns = self.config.grid(self.height, self.width)
        return rows * columns


SMALL = Geometry(WanConfig(dim=48, ffn_dim=96, num_heads=2, num_layers=2, text_len=8, text_dim=16), 4, 6)
"""Seconds on a CPU: what a rehearsal runs."""


def random_model(config: WanConfig, device: torch.device, dtype: torch.dtype, seed: int = 0) -> CausalWanTransformer:
    """A transformer with normal weights of variance 1 / fan-in, the head's included; norms scale by one."""
    generator = torch.Generator().manual_seed(seed) if device.type == "meta" else torch.Generator(device)
    with torch.device(device):
        model = CausalWanTransformer(config).to(dtype).eval().requires_grad_(False)
    if device.type == "meta":
        return model
    generator.manual_seed(seed)
    for name, weight in model.named_parameters():
        fan_in = weight[0].numel() if weight.dim() > 1 else config.dim
        weight.normal_(0.0, fan_in**-0.5, generator=generator)
        if name.endswith(("norm_q.weight", "norm_k.weight", "norm3.weight")):
            weight.add_(1.0)
    return model


class DeviceNoise:
    """Noise drawn on the device, so that no upload is timed; the same for every roll-out of one seed."""

    def __init__(self, geometry: Geometry, device: torch.device, batch: int = 1, seed: int = 0) -> None:
        self.shape = (batch, BLOCK, *geometry.frame_shape)
        self.device, self.seed = device, seed

    def __call__(self, block: int, step: int) -> Tensor:
        if self.device.type == "meta":
            return torch.empty(self.shape, device="meta")
        generator = torch.Generator(self.device).manual_seed(self.seed + 1000 * block + step)
        return torch.randn(self.shape, device=self.device, generator=generator)


def random_rollout(
    model: CausalWanTransformer,
    geometry: Geometry,
    window: int,
    blocks: int,
    execution: str = "fast",
    policy: str = "infinity_rope",
    steps: tuple[float, ...] = STEPS,
    at: Mapping[int, CacheEvent] | None = None,
    batch: int = 1,
    **options: Any,
) -> Rollout:
    """A roll-out without text encoder and decoder; every segment of ``at`` has a random text of its own."""
    device, config = model.device, model.config

    def text(segment: int) -> Tensor:
        shape = (batch, config.text_len, config.text_dim)
        if device.type == "meta":
            return torch.empty(shape, device="meta")
        generator = torch.Generator(device).manual_seed(segment)
        return torch.randn(shape, device=device, generator=generator)

    return Rollout(
        model=model,
        policy=make_policy(policy, {"window": window, "sink": 1}),
        events=EventTable(blocks, dict(at or {})),
        sampler=Sampler.from_nominal(steps, SHIFT),
        texts=text,
        noise=DeviceNoise(geometry, device, batch),
        frame_shape=geometry.frame_shape,
        batch=batch,
        block=BLOCK,
        horizon=max(21, window),
        execution=execution,
        **options,
    )


@dataclass(frozen=True)
class RandomGenerator:
    """What a measurement needs of an `irope.generator.Generator`, without weights, text encoder and codec."""

    transformer: CausalWanTransformer
    geometry: Geometry
    steps: tuple[float, ...] = STEPS
    name: str = "random weights"
    digest: str = ""
    shift: float = SHIFT
    horizon: int = 24
    clock: Clock = CLOCK
    codec: None = None

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        return self.geometry.frame_shape

    def encode_text(self, prompt: str) -> Tensor:
        config, device = self.transformer.config, self.transformer.device
        generator = torch.Generator(device).manual_seed(len(prompt))
        return torch.randn((1, config.text_len, config.text_dim), device=device, generator=generator)


@dataclass(frozen=True)
class PassCount:
    """What one layer asks of the device in one pass: in any pass, and in the first of a block whose window evicts."""

    ordinary: Tally
    evicting: Tally


def count_passes(execution: str, window: int, geometry: Geometry | None = None) -> PassCount:
    """Count one layer of a full window on the ``meta`` device: no weights, no arithmetic, about a second.

    All layers do the same, so a pass of the 1.3B model is 30 times its layer (`Tally.elementwise`, `Tally.flops`).
    """
    geometry = geometry or Geometry()
    config = WanConfig(**{**vars(geometry.config), "num_layers": 1})
    model = random_model(config, torch.device("meta"), torch.bfloat16)
    # Two steps a block are enough to see the first pass and another one.
    blocks = window // BLOCK + 1
    rollout = random_rollout(model, geometry, window, blocks, execution, steps=STEPS[:2])
    calls: list[str] = []
    with OpCounter() as counter:
        denoise = rollout._denoise

        def counted(op: Denoise) -> None:
            calls.append(f"call {len(calls)}")
            with counter.region(calls[-1]):
                denoise(op)

        rollout._denoise = counted  # type: ignore[method-assign]
        with counter.layers(rollout._network.blocks):  # type: ignore[attr-defined]
            for _ in rollout:
                pass
    first, second = (counter[f"{name}/layer 0"] for name in calls[-2:])
    return PassCount(ordinary=second, evicting=first)
