"""A random model, a script, a codec and a roll-out small enough to make minutes of video in seconds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from irope.noise import KeyedNoise
from irope.policy import CacheEvent, CachePolicy
from irope.registry import make_policy
from irope.rollout import Block, Rollout
from irope.sampler import Sampler
from irope.transformer import CausalWanTransformer, WanConfig

SWITCH, CUT = CacheEvent.PROMPT_SWITCH, CacheEvent.SCENE_CUT
CONFIG = WanConfig(
    dim=48, ffn_dim=64, num_heads=2, num_layers=2, in_dim=4, out_dim=4, text_len=3, text_dim=8, freq_dim=16
)
FRAME = (4, 4, 4)
FAST, FULL = (1000, 500), (1000, 750, 500, 250)


@cache
def model() -> CausalWanTransformer:
    """Weights large enough that cache, prompt and index all show in the frames."""
    generator = torch.Generator().manual_seed(0)
    made = CausalWanTransformer(CONFIG).eval().requires_grad_(False)
    for name, weight in made.named_parameters():
        fan_in = weight[0].numel() if weight.dim() > 1 else 16
        weight.normal_(0.0, fan_in**-0.5, generator=generator)
        if name.endswith(("norm_q.weight", "norm_k.weight", "norm3.weight")):
            weight.add_(1.5)
    return made


@dataclass(frozen=True)
class Script:
    """Blocks and the events among them; every event starts a new segment."""

    blocks: int
    at: dict[int, CacheEvent] = field(default_factory=dict)

    def event(self, block: int) -> CacheEvent:
        return self.at.get(block, CacheEvent.BLOCK)

    def segment(self, block: int) -> int:
        return sum(start <= block for start in self.at)


def text(segment: int) -> Tensor:
    return torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(100 + segment))


class FakeDecoder:
    """Frames that depend on all latents of the stream so far, as the causal video autoencoder's do."""

    def __init__(self, codec: "FakeCodec") -> None:
        self.codec, self.memory = codec, torch.zeros(0)

    def __call__(self, latents: Tensor) -> Tensor:
        frames = []
        for latent in latents.unbind(1):
            first = self.memory.numel() == 0
            self.memory = latent if first else 0.5 * self.memory + latent
            for phase in range(1 if first else 4):
                pixel = (self.memory[:, :3] * (1 + phase / 8)).sigmoid().mul(255).round().to(torch.uint8)
                frames.append(pixel.movedim(1, -1))
        self.codec.decoded.extend(frames)
        return torch.stack(frames, dim=1)

    def state(self) -> dict[str, Tensor]:
        return {"memory": self.memory.contiguous()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.memory = tensors["memory"]


class FakeCodec:
    """A `VideoCodec` that records what is decoded since the last restart, and every video encoded."""

    def __init__(self) -> None:
        self.decoded: list[Tensor] = []
        self.encoded: list[tuple[Tensor, Tensor]] = []

    def decoder(self) -> FakeDecoder:
        self.decoded.clear()
        return FakeDecoder(self)

    def encode(self, video: Tensor) -> Tensor:
        assert video.shape[1:3] == (1, 3)
        latents = torch.cat([video, video.mean(2, keepdim=True)], dim=2) * 2
        self.encoded.append((video, latents))
        return latents


def rollout(
    policy: CachePolicy,
    events: Script,
    prompts: tuple[str, ...] = ("a",),
    steps: tuple[int, ...] = FAST,
    texts: Callable[[int], Tensor] | None = None,
    codec: FakeCodec | None = None,
) -> Rollout:
    steps = policy.steps or steps
    return Rollout(
        model=model(),
        policy=policy,
        events=events,
        sampler=Sampler.from_nominal(steps, 5.0),
        texts=texts or (lambda segment: text(segment).expand(len(prompts), -1, -1)),
        noise=KeyedNoise(7, list(prompts), (3, *FRAME)),
        frame_shape=FRAME,
        codec=codec or (FakeCodec() if policy.schedule == "restart" else None),
        batch=len(prompts),
    )


def latents(blocks: Iterable[Block]) -> Tensor:
    return torch.cat([block.latents for block in blocks], dim=1)


def make(name: str, **settings: object) -> CachePolicy:
    return make_policy(name, settings)
