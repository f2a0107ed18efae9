"""What a prompt switch costs: KV Flush against KV Recache, over the number of cached latent frames.

Two policies with the same window and sink roll out the same script, block by block in turn. A flush drops pages, which
is a change of integers; a recache runs the network once more over R frames, so its cost should follow a R + b R^2
(projections and attention). What an ordinary block costs anyway is subtracted, round by round.

The parts of a switch, in the order in which they happen:

* ``event_us``: the policy's plan and the dropping of pages, on the host, in microseconds;
* ``prompt_ms``: cross-attention keys and values of the new prompt (its text features are taken as given);
* ``cache_ms``: bringing the cache to the plan of the block (recache, rotation), beyond an ordinary block;
* ``extra_ms``: the whole first block (context pass of the block before, denoising, decoding), beyond an ordinary one;
* ``first_frame_ms``: from the last frame of the old prompt to the first ones of the new.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from irope.bench import WAITED, load_average, one_thread
from irope.bench_statistics import Spread
from irope.cache import KVArena, kv_bytes_per_page
from irope.errors import UserError
from irope.noise import KeyedNoise
from irope.policy import CacheEvent, CachePlan, CachePolicy, CacheView, Page
from irope.provenance import environment
from irope.registry import make_policy
from irope.rollout import Rollout
from irope.sampler import Sampler
from irope.schedules import EventTable

if TYPE_CHECKING:
    from irope.generator import Generator  # it brings Hydra, which a bare GPU image lacks

METHODS = {"flush": "infinity_rope", "recache": "kv_recache"}
CLOCKS = ("cpu", "wall")
PARTS = ("prompt", "cache", "block")
HISTORIES = {"5 s": 7, "4 min": 320, "1 h": 4800}
"""Blocks generated before the switch at which the host's part is measured."""
_HOST_REPEATS = 200


class LatencyError(UserError, ValueError):
    """A setting of the measurement is not valid."""


@dataclass(frozen=True)
class Sweep:
    """What is measured.

    Attributes:
        windows: latent frames in the cache, the block included; a recache encodes as many again.
        repeats: counted rounds; one more, before them, warms up.
        ordinary: blocks timed before each switch, once the window is full.
        prompts: before and after the switch.
    """

    windows: tuple[int, ...]
    repeats: int
    ordinary: int
    prompts: tuple[str, str]

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Sweep:
        """Read a tier's mapping; raises LatencyError, naming the key."""
        prompts = tuple(str(prompt) for prompt in values["prompts"])
        if len(prompts) != 2:
            raise LatencyError(f"prompts: expected two, before and after the switch, got {len(prompts)}")
        for name in ("repeats", "ordinary"):
            if not isinstance(values[name], int) or values[name] < 1:
                raise LatencyError(f"{name}={values[name]}: expected a whole number; nearest valid: 1")
        windows = tuple(values["windows"])
        if not windows or not all(isinstance(window, int) and window >= 1 for window in windows):
            raise LatencyError(f"windows={list(windows)}: expected latent frames, for example [6,12,21]")
        return cls(windows, values["repeats"], values["ordinary"], (prompts[0], prompts[1]))


def policy_at(method: str, window: int, block: int) -> CachePolicy:
    """The policy of ``flush`` or ``recache`` with ``window`` frames and a sink of one, where there is room for it.

    Raises:
        PolicyError: the window is smaller than a block.
    """
    policy = make_policy(METHODS[method], {"window": window, "sink": min(1, max(0, window - block))})
    policy.check(block, None, 21)
    return policy


# --- one switch -------------------------------------------------------------------------------------------------------


class TimedRollout(Rollout):
    """A roll-out that takes the time of its parts: ``seconds[part][clock]`` of the present block."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.seconds: dict[str, dict[str, float]] = defaultdict(dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        before = self._now()
        yield
        self.seconds[part] = {
            clock: after - start for clock, after, start in zip(CLOCKS, self._now(), before, strict=True)
        }

    def _now(self) -> tuple[float, float]:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.process_time(), time.perf_counter()

    def _begin(self, plan: CachePlan, segment: int) -> None:
        with self.timed("prompt"):
            self._text(segment)
        with self.timed("cache"):
            super()._begin(plan, segment)


@dataclass(frozen=True)
class Switch:
    """One switch: the plan of its block, and seconds[clock] of each part, beyond an ordinary block or in whole."""

    plan: CachePlan
    ordinary: dict[str, float]
    prompt: dict[str, float]
    block: dict[str, float]
    extra_cache: dict[str, float]
    extra_block: dict[str, float]


def measure_pair(rollouts: Mapping[str, TimedRollout], blocks: int, ordinary: int) -> dict[str, Switch]:
    """Run roll-outs block by block in turn; their last block is the switch, the ``ordinary`` ones before it compare."""
    running = {method: iter(rollout) for method, rollout in rollouts.items()}
    settled: dict[str, list[dict[str, dict[str, float]]]] = {method: [] for method in rollouts}
    found = {}
    for number in range(blocks):
        for method, rollout in rollouts.items():
            with rollout.timed("block"):
                block = next(running[method])
            parts = {part: dict(rollout.seconds[part]) for part in PARTS}
            if number < blocks - 1:
                settled[method].append(parts)
                continue
            usual = {
                part: {
                    clock: float(np.median([s[part][clock] for s in settled[method][-ordinary:]])) for clock in CLOCKS
                }
                for part in PARTS
            }
            assert block.plan is not None
            found[method] = Switch(
                block.plan,
                usual["block"],
                parts["prompt"],
                parts["block"],
                {clock: parts["cache"][clock] - usual["cache"][clock] for clock in CLOCKS},
                {clock: parts["block"][clock] - usual["block"][clock] for clock in CLOCKS},
            )
    return found


def host_seconds(policy: CachePolicy, arena: KVArena, block: int, number: int, repeats: int) -> list[float]:
    """Seconds of a switch at block ``number`` for planning and dropping pages, with a full window; no tensor moves."""
    start = number * block
    window = min(policy.window, start)
    frames = (*range(min(policy.sink, window)), *range(start - window + policy.sink, start))
    view = CacheView(
        tuple(Page(frame) for frame in frames),
        tuple(range(start, start + block)),
        CacheEvent.PROMPT_SWITCH,
        segment=1,
    )
    taken = []
    for _ in range(repeats):
        arena.clear()
        for slot, frame in enumerate(frames):
            arena.table.add(Page(frame), slot, (frame, None))
        begin = time.perf_counter_ns()
        plan = policy.plan(view)
        again = plan.recompute
        arena.keep((*again.read, *again.store) if again is not None else (*plan.read, *plan.retain))
        taken.append((time.perf_counter_ns() - begin) * 1e-9)
    return taken


# --- the sweep --------------------------------------------------------------------------------------------------------


def bench_switch(generator: Generator, sweep: Sweep, report: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure a prompt switch under both methods at every window; JSON types, times as median, p10 and p90.

    Raises:
        PolicyError: a window is smaller than a block.
    """
    size = generator.clock.block
    policies = {(m, window): policy_at(m, window, size) for window in sweep.windows for m in METHODS}
    features = [generator.encode_text(prompt) for prompt in sweep.prompts]
    switches: dict[tuple[str, int], list[Switch]] = defaultdict(list)
    host: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    load_before = load_average()
    with one_thread():
        machine = environment(generator.transformer.device)
        for turn in range(-1, sweep.repeats):
            for window in sweep.windows:
                blocks = -(-window // size) + sweep.ordinary + 1
                order = list(METHODS)[:: 1 if turn % 2 else -1]
                pair = {m: _rollout(generator, policies[m, window], blocks, sweep, features) for m in order}
                made = measure_pair(pair, blocks, sweep.ordinary)
                if turn >= 0:
                    full = -(-window // size)  # blocks that fill the window
                    for method, switch in made.items():
                        switches[method, window].append(switch)
                        for history, taken in _host(policies[method, window], pair[method], size, full).items():
                            host[method, window][history] += taken
                pair.clear()  # the next caches take the place of these
            report("warm-up done" if turn < 0 else f"round {turn + 1}/{sweep.repeats} done")
    page = kv_bytes_per_page(
        generator.transformer.config,
        generator.transformer.config.grid(*generator.frame_shape[1:]),
        generator.transformer.dtype,
    )
    rows = [
        _row(method, policies[method, window], switches[method, window], host[method, window], page)
        for method in METHODS
        for window in sweep.windows
    ]
    recache = [row for row in rows if row["method"] == "recache"]
    return {
        "model": generator.name,
        "digest": generator.digest,
        "settings": asdict(sweep),
        "rows": rows,
        "fit": {clock: fit_cost(*_points(recache, clock, "median")) for clock in CLOCKS},
        "fit_least": {clock: fit_cost(*_points(recache, clock, "least"), fixed=True) for clock in CLOCKS},
        "environment": machine,
        "load_before": load_before,
        "load_after": load_average(),
        "notes": _notes([s for found in switches.values() for s in found]),
    }


def _host(policy: CachePolicy, rollout: Rollout, block: int, full: int) -> dict[str, list[float]]:
    arena = rollout.arena
    assert isinstance(arena, KVArena)  # the published cache has no recache to compare with
    return {
        name: host_seconds(policy, arena, block, max(past, full), _HOST_REPEATS) for name, past in HISTORIES.items()
    }


def _rollout(
    generator: Generator, policy: CachePolicy, blocks: int, sweep: Sweep, features: Sequence[Tensor]
) -> TimedRollout:
    return TimedRollout(
        model=generator.transformer,
        policy=policy,
        events=EventTable(blocks, {blocks - 1: CacheEvent.PROMPT_SWITCH}),
        sampler=Sampler.from_nominal(generator.steps, generator.shift),
        texts=lambda segment: features[segment],
        noise=KeyedNoise(0, [sweep.prompts[0]], (generator.clock.block, *generator.frame_shape)),
        frame_shape=generator.frame_shape,
        codec=generator.codec,
        block=generator.clock.block,
        horizon=generator.horizon,
    )


def _row(
    method: str, policy: CachePolicy, found: Sequence[Switch], host: Mapping[str, Sequence[float]], page: int
) -> dict[str, Any]:
    again = found[0].plan.recompute

    def spread(pick: Callable[[Switch], dict[str, float]]) -> dict[str, dict[str, float]]:
        taken = {clock: [pick(switch)[clock] for switch in found] for clock in CLOCKS}
        return {clock: asdict(Spread.of(taken[clock])) | {"least": 1e3 * min(taken[clock])} for clock in CLOCKS}

    return {
        "method": method,
        "policy": policy.name,
        "window": policy.window,
        "sink": policy.sink,
        "n": len(found),
        "recached": len(again.frames) if again else 0,
        "forwards": int(again is not None),
        "attended": len(found[0].plan.read),
        "bytes_written": len(again.store) * page if again else 0,
        "bytes_moved": len(again.read) * page if again else 0,
        "event_us": {name: asdict(Spread.of(np.asarray(taken) * 1e3)) for name, taken in host.items()},
        "prompt_ms": spread(lambda s: s.prompt),
        "cache_ms": spread(lambda s: s.extra_cache),
        "ordinary_ms": spread(lambda s: s.ordinary),
        "extra_ms": spread(lambda s: s.extra_block),
        "first_frame_ms": spread(lambda s: s.block),
    }


def _points(rows: Sequence[Mapping[str, Any]], clock: str, which: str) -> tuple[list[float], list[float]]:
    return [row["recached"] for row in rows], [row["cache_ms"][clock][which] for row in rows]


def fit_cost(frames: Sequence[float], cost: Sequence[float], fixed: bool = False) -> dict[str, float] | None:
    """Least squares of cost = a R + b R^2 and its R^2 (share of the variance of the cost that it explains).

    With ``fixed`` there is a constant besides, what a forward costs however small it is; the law has none because a
    large model hides it. None with no more points than coefficients, which would fit whatever they are.
    """
    r, y = np.asarray(frames, dtype=np.float64), np.asarray(cost, dtype=np.float64)
    names = ("a_ms", "b_ms", *(("fixed_ms",) if fixed else ()))
    if len(set(frames)) <= len(names):
        return None
    design = np.stack([r, r**2, np.ones_like(r)][: len(names)], axis=1)
    found, *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ found
    explained = 1 - float(residual @ residual) / float(((y - y.mean()) ** 2).sum())
    return {**{name: float(value) for name, value in zip(names, found, strict=True)}, "r2": explained}


def _notes(found: Sequence[Switch]) -> list[str]:
    cpu, wall = (sum(switch.ordinary[clock] + switch.block[clock] for switch in found) for clock in CLOCKS)
    return (
        [f"the process had to wait: wall time is {wall / cpu:.2f}x its CPU time, so compare CPU times"]
        if wall > WAITED * cpu
        else []
    )
