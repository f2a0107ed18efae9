"""Rollout schedules: which frames meet which noise level in which call, as a stream of integer operations.

A schedule asks the cache policy for its plans and yields operations; `irope.rollout` executes them on a model and
``irope explain`` prints them without one. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from irope.policy import CacheEvent, CachePlan, CachePolicy, CacheView, Call, Page, PolicyError, pages_after

TEMPORAL_STRIDE = 4
"""Pixel frames per latent frame of the Wan VAE and of the embedded codec (the first latent gives one)."""


class Events(Protocol):
    """What a schedule needs of a timed prompt script."""

    @property
    def blocks(self) -> int: ...

    def event(self, block: int) -> CacheEvent: ...

    def segment(self, block: int) -> int: ...


@dataclass(frozen=True)
class EventTable:
    """The simplest `Events`: so many blocks, and what happens at some of them; every event starts a new prompt."""

    blocks: int
    at: Mapping[int, CacheEvent] = field(default_factory=dict)

    def event(self, block: int) -> CacheEvent:
        return self.at.get(block, CacheEvent.BLOCK)

    def segment(self, block: int) -> int:
        return sum(start <= block for start in self.at)


@dataclass(frozen=True)
class Run:
    """What stays the same during a roll-out: denoising steps, latent frames per block, f_limit."""

    steps: int = 4
    block: int = 3
    horizon: int = 21


@dataclass(frozen=True)
class Denoise:
    """One forward of noisy frames. ``plan`` (new or None for the one in force) is executed first.

    Attributes:
        frames: query frames, numbered within the cache.
        levels: denoising step of every block of the call; a block at the last one comes out clean, the others are
            noised again to the next.
        noise_block: number of the first block of the call in the whole video; noise is keyed by it.
    """

    frames: tuple[int, ...]
    levels: tuple[int, ...]
    plan: CachePlan | None
    event: CacheEvent
    segment: int
    noise_block: int


@dataclass(frozen=True)
class Emit:
    """The clean frames of one block leave. Only the first ``pixels`` decoded frames count (None: all).

    ``anchor`` is the decoded frame of this block that a later `Restart` encodes again, if it is one of this block.
    """

    frames: tuple[int, ...]
    block: int
    segment: int
    event: CacheEvent
    pixels: int | None = None
    anchor: int | None = None


@dataclass(frozen=True)
class Context:
    """Forward of clean frames at timestep 0 that writes their keys and values into the cache."""

    frames: tuple[int, ...]
    plan: CachePlan | None
    segment: int


@dataclass(frozen=True)
class Restart:
    """Empty cache and decoder; frames 0 .. overlap-1 become [pixel ``anchor_pixel`` encoded alone, last latents]."""

    overlap: int
    anchor_pixel: int


Op = Denoise | Emit | Context | Restart
Schedule = Callable[[CachePolicy, Events, Run], Iterator[Op]]


def _frames(block: int, size: int) -> tuple[int, ...]:
    return tuple(range(block * size, (block + 1) * size))


def chunkwise(policy: CachePolicy, events: Events, run: Run) -> Iterator[Op]:
    """Block after block: all denoising steps, then the context pass (Self-Forcing and all its cache policies)."""
    pages: tuple[Page, ...] = ()
    for block in range(events.blocks):
        frames, event, segment = _frames(block, run.block), events.event(block), events.segment(block)
        view = CacheView(pages, frames, event, segment, run.horizon)
        plan = policy.plan(view)
        for step in range(run.steps):
            yield Denoise(frames, (step,), plan if step == 0 else None, event, segment, block)
        yield Emit(frames, block, segment, event)
        yield Context(frames, None, segment)
        pages = pages_after(view, plan, commit=True)


def rolling_window(policy: CachePolicy, events: Events, run: Run) -> Iterator[Op]:
    """Rolling Forcing: a window of ``run.steps`` blocks, the oldest at the lowest noise; block i enters in window i.

    After every window the first block, clean or not, goes through a context pass with a plan of its own. The prompt
    of a window is that of its first block.
    """
    pages: tuple[Page, ...] = ()
    for window in range(events.blocks + run.steps - 1):
        first, last = max(0, window - run.steps + 1), min(events.blocks - 1, window)
        frames = tuple(range(first * run.block, (last + 1) * run.block))
        event, segment = events.event(first), events.segment(first)
        if window < run.steps - 1:
            event = CacheEvent.BLOCK
        view = CacheView(pages, frames, event, segment, run.horizon)
        plan = policy.plan(view)
        pages = pages_after(view, plan, commit=False)
        levels = tuple(window - block for block in range(first, last + 1))
        yield Denoise(frames, levels, plan, event, segment, first)
        clean = _frames(first, run.block)
        if levels[0] == run.steps - 1:
            yield Emit(clean, first, segment, event)
        view = replace(view, pages=pages, block=clean, call=Call.CONTEXT)
        plan = policy.plan(view)
        yield Context(clean, plan, segment)
        pages = pages_after(view, plan, commit=True)


def restart(policy: CachePolicy, events: Events, run: Run) -> Iterator[Op]:
    """CausVid: independent roll-outs of ``policy.window`` frames; the last ``policy.overlap`` start the next one.

    With overlap 3 a roll-out of 81 pixel frames keeps 72, and frame 72 encoded alone is the first context latent. The
    prompt of a roll-out is the one in force at its first pixel frame, so a switch waits for the next roll-out.

    Raises:
        PolicyError: window or overlap is no whole number of blocks.
    """
    overlap = getattr(policy, "overlap", run.block)
    if policy.window % run.block or overlap != run.block or policy.window <= overlap:
        raise PolicyError(
            f"restart needs a window of several whole blocks of {run.block} and an overlap of one block, got window "
            f"{policy.window} and overlap {overlap}; nearest valid: window "
            f"{max(2, policy.window // run.block) * run.block}, overlap {run.block}"
        )
    per_rollout = policy.window // run.block
    pixels_left = 1 + TEMPORAL_STRIDE * (events.blocks * run.block - 1)
    keep = TEMPORAL_STRIDE * (policy.window - overlap)
    rollout, segment = 0, -1
    while pixels_left > 0:
        pages: tuple[Page, ...] = ()
        first = rollout * (per_rollout - 1)
        event = CacheEvent.PROMPT_SWITCH if rollout and segment != events.segment(first) else CacheEvent.BLOCK
        segment = events.segment(first)
        final = pixels_left <= 1 + TEMPORAL_STRIDE * (policy.window - 1)
        pixels_here = pixels_left if final else keep
        pixels_left -= pixels_here
        if rollout:
            yield Restart(overlap, keep)
        for local in range(per_rollout):
            if pixels_here <= 0:  # the video ends within its last roll-out
                return
            frames = _frames(local, run.block)
            view = CacheView(pages, frames, CacheEvent.BLOCK, segment, run.horizon)
            plan = policy.plan(view)
            if not (rollout and local == 0):
                for step in range(run.steps):
                    own = plan if step == 0 else None
                    yield Denoise(frames, (step,), own, CacheEvent.BLOCK, segment, first + local)
            decoded = TEMPORAL_STRIDE * run.block - (TEMPORAL_STRIDE - 1 if local == 0 else 0)
            pixels = None if pixels_here >= decoded else pixels_here
            anchor = pixels_here if not final and 0 <= pixels_here < decoded else None
            yield Emit(frames, first + local, segment, event if local == 0 else CacheEvent.BLOCK, pixels, anchor)
            pixels_here -= decoded
            yield Context(frames, plan if rollout and local == 0 else None, segment)
            pages = pages_after(view, plan, commit=True)
        rollout += 1


SCHEDULES: dict[str, Schedule] = {"chunkwise": chunkwise, "rolling_window": rolling_window, "restart": restart}

NESTED = ("chunkwise",)
"""Schedules under which a longer video of one prompt begins with the shorter one, frame for frame."""
