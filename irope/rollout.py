"""Rollout: execute a schedule's operations on a model, block by block, without anything that grows with duration.

Shape letters: B batch, F latent frames, C channels, H W latent size, M pixel frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from irope.cache import ArenaShape, KVArena, Probe
from irope.errors import UserError
from irope.hand_over import Lane, lane_for, sent
from irope.noise import NoiseSource
from irope.policy import CacheEvent, CachePlan, CachePolicy, PolicyError, Recompute
from irope.sampler import Sampler, clean, renoise
from irope.schedules import SCHEDULES, Context, Denoise, Emit, Events, Op, Restart, Run
from irope.transformer import CausalWanTransformer, CrossKV, Times

if TYPE_CHECKING:
    from irope.reference import ReferenceArena


class FrameDecoder(Protocol):
    """A stream of latents becoming pixel frames: the first latent gives one frame, every later one four."""

    def __call__(self, latents_BFCHW: Tensor, /) -> Tensor:
        """Latents [B, n, C, h, w] -> uint8 frames [B, m, H, W, 3], where they are decoded."""

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, tensors: dict[str, Tensor]) -> None: ...


class VideoCodec(Protocol):
    """What the Wan VAE and the embedded codec have in common."""

    def decoder(self) -> FrameDecoder: ...

    def encode(self, video_BMCHW: Tensor, /) -> Tensor:
        """Video [B, M, 3, H, W] in [-1, 1] -> latents [B, 1 + (M-1)/4, C, h, w]."""


class Watch(Protocol):
    """Asked before every denoising call, with the plan in force; the probe it returns sees that call's attention."""

    def __call__(self, op: Denoise, plan: CachePlan, /) -> Probe | None: ...


@dataclass(frozen=True)
class Block:
    """One finished block.

    Attributes:
        index: number of the block in the video.
        latents: clean latents [B, F, C, H, W].
        frames: uint8 pixels [B, M, H, W, 3] on the CPU, or None without a codec.
        plan: the cache plan behind it.
        seconds: wall time since the previous block left (device work finished).
    """

    index: int
    event: CacheEvent
    segment: int
    latents: Tensor
    frames: Tensor | None
    plan: CachePlan | None
    seconds: float


_Wait = Callable[[], Tensor]


@dataclass
class Rollout:
    """A video (or a batch in lock step) under one policy, one sampler and one timed prompt script.

    Iterating yields a `Block` as soon as it is clean. Memory is constant once the window is full: pages, the latents
    that a recache may need, the blocks being denoised.

    Attributes:
        texts: text features [B, text_len, text_dim] of a prompt segment, by its number.
        noise: see `irope.noise`; a longer video starts with the noise of a shorter one.
        frame_shape: (channels, height, width) of a latent frame.
        codec: decodes on the way; needed by the ``restart`` schedule, which encodes a pixel frame again.
        watch: sees attention without changing a frame (`irope.attention_map`).
        lane: how frames reach the host; None: on a GPU on a stream of their own.
        execution: ``fast``, or ``reference``: the published order of operations (`irope.reference`).
    """

    model: CausalWanTransformer
    policy: CachePolicy
    events: Events
    sampler: Sampler
    texts: Callable[[int], Tensor]
    noise: NoiseSource
    frame_shape: tuple[int, int, int]
    codec: VideoCodec | None = None
    batch: int = 1
    block: int = 3
    horizon: int = 21
    watch: Watch | None = None
    lane: Lane | None = None
    execution: str = "fast"
    arena: KVArena | ReferenceArena = field(init=False)

    def __post_init__(self) -> None:
        self.policy.check(self.block, self.events.blocks * self.block, self.horizon)
        grid = self.model.config.grid(*self.frame_shape[1:])
        shape = ArenaShape(self.policy.capacity(self.block), grid, self.batch, self.policy.sink)
        self._network: Callable[..., Tensor] = self.model
        if self.execution == "reference":
            from irope.reference import ReferenceArena, ReferenceTransformer

            if self.model.offloaded:
                raise PolicyError("sys.execution=reference keeps all weights in place; needs video.model.offload=false")
            self.arena = ReferenceArena(self.model.config, self.policy, shape, self.model.dtype, self.model.device)
            self._network = ReferenceTransformer(self.model)
        else:
            self.arena = KVArena(self.model.config, shape, self.model.dtype, self.model.device)
            self.model.fuse()
        self.arena.keep_queries = "queries" in self.policy.needs
        self._cross: tuple[int, CrossKV] | None = None
        self._known: dict[tuple[float, ...], Tensor | Times] = {}  # timesteps repeat from block to block
        self._sigmas: dict[tuple[int, ...], Tensor] = {}  # levels of a call -> sigma of its frames [F, 1, 1, 1]
        self._noisy: dict[int, Tensor] = {}  # first frame of a block in progress -> its latents at the present noise
        self._clean: dict[int, Tensor] = {}  # first frame of a block -> x0, until its context pass
        self._recent: dict[int, Tensor] = {}  # latent frame -> clean latents [B, C, H, W], for recache and restart
        self._plan: CachePlan | None = None
        self._decoders = self._new_decoders()
        self._lane = self.lane or lane_for(self.model.device)
        self._anchor: Tensor | None = None  # the pixel frame that a restart will encode, [B, H, W, 3] uint8
        self._done = 0  # operations executed

    def operations(self) -> Iterator[Op]:
        """The integer operations of this roll-out, from the start."""
        return SCHEDULES[self.policy.schedule](
            self.policy, self.events, Run(self.sampler.steps, self.block, self.horizon)
        )

    def __iter__(self) -> Iterator[Block]:
        return self.blocks()

    def blocks(self, settle: Callable[[int], bool] = lambda block: True) -> Iterator[Block]:
        """Blocks as they are done, each when the next one is under way, so that it can be written meanwhile.

        ``settle`` is asked about every block, in order. Where it says yes the block comes before the next one begins,
        which `state` needs; so does every block where nothing goes on beside the host.
        """
        held: list[tuple[Block, _Wait | None]] = []
        start = time.perf_counter()
        for made in self._made():
            held.append(made)
            here = 0 if settle(made[0].index) or not self._lane.ahead else 1
            while len(held) > here:
                block, wait = held.pop(0)
                frames = wait() if wait is not None else None
                now = time.perf_counter()
                yield replace(block, frames=frames, seconds=now - start)
                start = now if held else time.perf_counter()  # what the device does meanwhile counts
        for block, wait in held:
            yield replace(block, frames=wait() if wait else None, seconds=time.perf_counter() - start)

    @torch.inference_mode()
    def _made(self) -> Iterator[tuple[Block, _Wait | None]]:
        """Every block, and what waits for its frames."""
        resumed = self._done > 0
        for number, (op, following) in enumerate(pairwise(chain(self.operations(), (None,)))):
            own_plan = op.plan if isinstance(op, (Denoise, Context)) else None
            if number < self._done:
                self._plan = own_plan or self._plan
                continue
            if resumed and isinstance(op, Context) and own_plan is None and self._plan is not None:
                self.arena.resume(self._plan)
            self._plan, self._done, resumed = own_plan or self._plan, number + 1, False
            match op:
                case Denoise():
                    self._denoise(op)
                case Context():
                    # Nothing reads the last block's keys, nor those before a restart.
                    read = isinstance(following, (Denoise, Emit, Context)) or self.execution == "reference"
                    self._context(op, read)
                case Restart():
                    self._restart(op)
                case Emit():
                    latents = self._clean[op.frames[0]]
                    wait = self._decode(op, latents)
                    if wait is None and self.model.device.type == "cuda":
                        torch.cuda.synchronize()
                    yield Block(op.block, op.event, op.segment, latents, None, self._plan, 0.0), wait

    # --- operations -------------------------------------------------------------------------------------------------

    def _text(self, segment: int) -> CrossKV:
        """Cross-attention keys and values of a segment, made once at its first call."""
        if self._cross is None or self._cross[0] != segment:
            self._cross = (segment, self.model.text_kv(self.texts(segment).to(self.model.device)))
        return self._cross[1]

    def _forward(self, x_BFCHW: Tensor, t: list[float], segment: int) -> Tensor:
        return self._network(x_BFCHW, self._times(t), self._text(segment), self.arena)

    def _store(self, x_BFCHW: Tensor, t: list[float], segment: int) -> None:
        """A forward for the sake of the keys and values that it leaves in the cache."""
        if isinstance(self.arena, KVArena):
            self.model.store(x_BFCHW, self._times(t), self._text(segment), self.arena)
        else:
            self._forward(x_BFCHW, t, segment)

    def _times(self, t: list[float]) -> Tensor | Times:
        """What the timesteps of a call decide, made once; one row where the frames share it."""
        key = tuple(t[:1] if len(set(t)) == 1 else t)
        if self.execution == "reference":
            return torch.tensor(t, dtype=torch.float32).to(self.model.device).expand(self.batch, -1)
        if key not in self._known:
            self._known[key] = self.model.times(sent(torch.tensor([key], dtype=torch.float32), self.model.device))
        return self._known[key]

    def _sigma(self, levels: tuple[int, ...]) -> Tensor:
        if levels not in self._sigmas:
            sigma_F = torch.tensor([self.sampler.sigmas[level] for level in levels for _ in range(self.block)])
            self._sigmas[levels] = sent(sigma_F[:, None, None, None], self.model.device)
        return self._sigmas[levels]

    def _denoise(self, op: Denoise) -> None:
        if op.plan is not None:
            self._begin(op.plan, op.segment)
        starts = op.frames[:: self.block]
        for number, start in enumerate(starts):
            if start not in self._noisy:
                self._noisy[start] = self._draw(op.noise_block + number, 0)
        x = torch.cat([self._noisy[start] for start in starts], dim=1)
        levels = [level for level in op.levels for _ in range(self.block)]
        if self.watch is not None and self._plan is not None:
            self.arena.probe = self.watch(op, self._plan)
        v = self._forward(x, [self.sampler.timesteps[level] for level in levels], op.segment)
        self.arena.probe = None
        x0 = clean(x, v, self._sigma(op.levels))
        for number, (start, level, x0_block) in enumerate(
            zip(starts, op.levels, x0.split(self.block, dim=1), strict=True)
        ):
            self._clean[start] = x0_block
            if level + 1 < self.sampler.steps:
                eps = self._draw(op.noise_block + number, level + 1)
                self._noisy[start] = renoise(x0_block, eps, self.sampler.sigmas[level + 1])
            else:
                del self._noisy[start]

    def _begin(self, plan: CachePlan, segment: int) -> None:
        """Bring the cache to the plan of a new block."""
        if plan.recompute is not None:
            self.arena.execute_recompute(plan, segment)
            self._recompute(plan.recompute, segment)
        self.arena.execute(plan, segment, self.policy.scorer)

    def _draw(self, block: int, step: int) -> Tensor:
        """Noise in the dtype of the model, as the published code draws it."""
        return sent(self.noise(block, step), self.model.device).to(self.model.dtype)

    def _context(self, op: Context, read: bool) -> None:
        if op.plan is not None:
            self.arena.execute(op.plan, op.segment, self.policy.scorer)
        x0 = self._clean[op.frames[0]]
        if read:
            self.arena.writing(op.frames, op.segment)
            self._store(x0, [0.0] * len(op.frames), op.segment)
        if op.frames[0] not in self._noisy:  # clean for good; Rolling Forcing passes here before that, too
            self._remember(op.frames, x0)
            del self._clean[op.frames[0]]

    def _remember(self, frames: tuple[int, ...], x0_BFCHW: Tensor) -> None:
        self._recent |= {frame: x0_BFCHW[:, i] for i, frame in enumerate(frames)}
        for frame in sorted(self._recent)[: -max(self.policy.window, self.block)]:
            del self._recent[frame]

    def _recompute(self, plan: Recompute, segment: int) -> None:
        """KV Recache: encode clean latents again, in one call at timestep 0, under the new prompt."""
        x0 = torch.stack([self._recent[frame] for frame in plan.frames], dim=1)
        self._store(x0, [0.0] * len(plan.frames), segment)

    def _restart(self, op: Restart) -> None:
        """Begin an independent roll-out whose first frames are re-encoded from the end of the last one."""
        if self.codec is None or self._anchor is None:
            raise ValueError("a schedule that restarts encodes a pixel frame again and so needs a codec")
        pixels = self._anchor.to(self.model.device).float() / 127.5 - 1
        anchor = self.codec.encode(pixels.movedim(-1, 1)[:, None])[:, 0].to(self.model.dtype)
        last = sorted(self._recent)[len(self._recent) - op.overlap + 1 :]
        context = [anchor, *(self._recent[frame] for frame in last)]
        self.arena.clear()
        self._decoders = self._new_decoders()
        self._recent, self._noisy = {}, {}
        self._clean = {0: torch.stack(context, dim=1)}

    def _new_decoders(self) -> list[FrameDecoder]:
        """A stream for every video, so that its frames and its state do not depend on its company."""
        return [self.codec.decoder() for _ in range(self.batch)] if self.codec is not None else []

    def _decode(self, op: Emit, latents: Tensor) -> _Wait | None:
        if not self._decoders:
            return None

        def each(latents_BFCHW: Tensor) -> Tensor:
            videos = zip(self._decoders, latents_BFCHW.split(1), strict=True)
            return torch.cat([decoder(video) for decoder, video in videos])

        wait = self._lane(each, latents)
        if op.anchor is not None:
            self._anchor = wait()[:, op.anchor].clone()
        return wait if op.pixels is None else lambda: wait()[:, : op.pixels]

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, JSON record) from which `load_state` continues with the same frames; call between two blocks."""
        tensors, arena = self.arena.state()
        named = {f"arena.{key}": value for key, value in tensors.items()}
        for group, store in (("noisy", self._noisy), ("clean", self._clean), ("recent", self._recent)):
            named |= {f"{group}.{frame}": value.contiguous() for frame, value in store.items()}
        for video, decoder in enumerate(self._decoders):
            named |= {f"decoder.{video}.{key}": value for key, value in decoder.state().items()}
        if self._anchor is not None:
            named["anchor.0"] = self._anchor
        return named, {"arena": arena, "done": self._done, "execution": self.execution}

    def load_state(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Continue where `state` was taken: same configuration, prompt and seed, else the frames are meaningless.

        Raises:
            UserError: the state is of the other mode of execution, which keeps its cache in another way.
        """
        if (begun := record.get("execution", "fast")) != self.execution:
            raise UserError(f"this video was begun with sys.execution={begun}; nearest valid: sys.execution={begun}")

        def group(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}

        self.arena.load_state(group("arena"), record["arena"])
        device = self.model.device
        self._noisy, self._clean, self._recent = (
            {int(frame): t.to(device) for frame, t in group(name).items()} for name in ("noisy", "clean", "recent")
        )
        for video, decoder in enumerate(self._decoders):
            decoder.load_state(group(f"decoder.{video}"))
        self._anchor = tensors.get("anchor.0")
        self._done = record["done"]
