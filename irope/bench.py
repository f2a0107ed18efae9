"""How fast a generator runs on one core, whether a block's cost stays the same for an hour, and what memory it holds.

Every number is taken from whole roll-outs: text encoding, all denoising steps, the context pass and, unless said
otherwise, the decoding to pixels. Model loading and a first short roll-out are warm-up, timed apart. CPU time counts
this process alone; wall time also counts what else the machine was doing.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from irope.bench_statistics import Curve, Flatness, Quantiles, Series
from irope.noise import KeyedNoise
from irope.policy import CachePolicy
from irope.provenance import environment
from irope.registry import make_policy
from irope.rollout import Rollout, VideoCodec
from irope.sampler import Sampler
from irope.script import PromptScript, Segment, Timeline

if TYPE_CHECKING:
    from irope.generator import Generator  # it brings Hydra, which a bare GPU image lacks

MIB = 2**20
WAITED = 1.1
"""Wall time over CPU time above which the process shared its core."""
_PAIRED, _FRESH = 60, 20
"""Blocks at the end of the longest video that take turns with those of videos just begun; counted of each of those."""
_TREND = 30
"""Blocks below which a change over a video is noise."""


# --- the machine ------------------------------------------------------------------------------------------------------


@cache
def _page_size() -> int:
    return os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Memory of this process that is in RAM; where the system does not say, the most that ever was."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _page_size()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def load_average() -> float | None:
    """Processes that wanted to run during the last minute; None where the system does not say."""
    with suppress(OSError, AttributeError):
        return os.getloadavg()[0]
    return None


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """One roll-out: seconds of every block, resident bytes after it, bytes of the cache at its end.

    Attributes:
        aged: CPU time of each block that followed, over that of a block of a video just begun, which took turns.
    """

    cpu: Series
    wall: Series
    resident: Series
    page_bytes: int
    stage_bytes: int
    aged: Series


def _rollout(
    generator: Generator, policy: CachePolicy, prompt: str, blocks: int, codec: VideoCodec | None, seed: int = 0
) -> Rollout:
    timeline: Timeline = PromptScript("bench", (Segment(prompt),)).timeline(latents=blocks * generator.clock.block)
    return Rollout(
        model=generator.transformer,
        policy=policy,
        events=timeline,
        sampler=Sampler.from_nominal(policy.steps or generator.steps, generator.shift),
        texts=lambda segment: generator.encode_text(timeline.segments[segment].prompt),
        noise=KeyedNoise(seed, [prompt], (generator.clock.block, *generator.frame_shape)),
        frame_shape=generator.frame_shape,
        codec=codec,
        block=generator.clock.block,
        horizon=generator.horizon,
    )


def measure(
    generator: Generator, policy: CachePolicy, prompt: str, blocks: int, codec: VideoCodec | None, paired: int = 0
) -> Measured:
    """Roll a video out and drop every block as soon as it is timed; then ``paired`` more by turns with fresh ones."""
    rollout = _rollout(generator, policy, prompt, blocks + paired, codec)
    running = iter(rollout)
    cpu, wall, resident = (np.zeros(blocks) for _ in range(3))
    start_cpu, start_wall = time.process_time(), time.perf_counter()
    for block in running:
        # Added up, because a schedule that restarts hands a block over in two parts.
        cpu[block.index] += time.process_time() - start_cpu
        wall[block.index] += time.perf_counter() - start_wall
        resident[block.index] = resident_bytes()
        if paired and block.index == blocks - 1:
            break
        start_cpu, start_wall = time.process_time(), time.perf_counter()
    aged, skip = np.array([]), warm_up_blocks(policy, generator.clock.block)
    while len(aged) < paired:
        fresh = iter(_rollout(generator, policy, prompt, skip + _FRESH, codec))
        for _ in range(skip):
            next(fresh)
        ratios = [_cpu_seconds(running) / _cpu_seconds(fresh) for _ in range(min(_FRESH, paired - len(aged)))]
        aged = np.append(aged, ratios)
    return Measured(cpu, wall, resident, rollout.arena.page_bytes, rollout.arena.stage_bytes, aged)


def _cpu_seconds(blocks: Iterator[object]) -> float:
    start = time.process_time()
    next(blocks)
    return time.process_time() - start


def warm_up_blocks(policy: CachePolicy, block: int) -> int:
    """Blocks that fill the window, and one more."""
    return -(-policy.window // block) + 1


@dataclass(frozen=True)
class BenchReport:
    """What `bench_cpu` measured, with all that decides it.

    Attributes:
        model, digest, policy, window: what ran.
        latents_per_second: latent frames per second of CPU time with decoding to pixels; ``denoise_only`` without.
        pixel_rate: pixel frames made per second over the frame rate of playback; above 1 is faster than real time.
        lengths: cost per block for every length of video, shortest first.
        resident_growth: bytes per 1,000 blocks after twice the window, smallest of the repeats.
        resident_peak: most bytes in memory during a counted roll-out, the interpreter and torch included.
        page_bytes, stage_bytes: the cache: pages, and the rotated copies attended from.
        warm_up: seconds of the first, uncounted roll-out; ``warm_up_blocks`` of every roll-out are not counted either.
        load_before, load_after: processes that wanted to run on the machine (this one is about 1 of them after).
        curve: cost and memory along the longest video.
        aged: cost of a block after the longest video over that of a block of a video just begun, the two by turns, so
            that both meet the same machine; None for a schedule that restarts, which never grows old.
        notes: what makes a number worse or less certain.
    """

    model: str
    digest: str
    policy: str
    window: int
    latents_per_second: float
    denoise_only: float
    pixel_rate: float
    lengths: tuple[Flatness, ...]
    resident_growth: float
    resident_peak: float
    page_bytes: int
    stage_bytes: int
    warm_up: float
    warm_up_blocks: int
    repeats: int
    date: str
    environment: dict[str, Any]
    load_before: float | None
    load_after: float | None
    curve: Curve
    aged: Quantiles | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"kind": "bench_cpu", **asdict(self)}

    def to_table(self) -> list[tuple[str, str, str]]:
        """Rows (what, value, how it was taken) for people."""
        device = self.environment["device"]
        rows = [
            ("model", self.model, f"policy {self.policy}, window {self.window}, weights {self.digest[:12]}"),
            ("machine", str(device["name"]), f"torch {device['torch']}, {device['threads']} thread, {self.date}"),
            (
                "latent frames/s",
                f"{self.latents_per_second:.1f}",
                f"CPU time, decoding included; {self.denoise_only:.1f} without; {self.pixel_rate:.1f}x real time",
            ),
        ]
        for length in self.lengths:
            cpu, ratio = length.cpu, f"last tenth / first tenth {length.ratio:.3f}"
            rows += [
                (
                    f"{length.seconds:g} s of video",
                    f"{length.total_cpu:.1f} s",
                    f"CPU time, min of {self.repeats}; wall {length.total_wall:.1f} s",
                ),
                (
                    "  cost of a block",
                    f"{cpu.median:.2f} ms",
                    f"p10 {cpu.p10:.2f}, p90 {cpu.p90:.2f}, wall {length.wall.median:.2f}, n {length.blocks}",
                ),
            ]
            if length.blocks >= _TREND:
                slope = f"Theil-Sen slope x blocks; {ratio}; minima of {self.repeats}"
                rows.append(("  change over the video", f"{length.slope:+.2f} %", slope))
        if self.aged is not None:
            spread = f"p10 {self.aged.p10:.3f}, p90 {self.aged.p90:.3f}, n {self.aged.n}"
            rows.append(
                (
                    f"a block after {self.lengths[-1].seconds:g} s",
                    f"{self.aged.median:.3f}x",
                    f"a block of a video just begun, by turns; {spread}",
                )
            )
        growth = f"grows {self.resident_growth / MIB:+.2f} MiB per 1,000 blocks"
        cache_bytes = f"pages {self.page_bytes:,} bytes, besides {self.stage_bytes:,} bytes of keys not rotated"
        rows += [
            ("resident memory", f"{self.resident_peak / MIB:.0f} MiB", growth),
            ("cache", f"{(self.page_bytes + self.stage_bytes) / MIB:.2f} MiB", cache_bytes),
            ("warm-up", f"{self.warm_up:.1f} s", f"not counted, nor are a video's first {self.warm_up_blocks} blocks"),
        ]
        return rows + [("note", note, "") for note in self.notes]


def bench_cpu(
    generator: Generator,
    prompt: str,
    policy: CachePolicy | None = None,
    seconds: Sequence[float] = (60, 240),
    repeats: int = 3,
) -> BenchReport:
    """Measure a generator on one core.

    A long video begins with the shorter ones, so each repeat rolls out the longest of ``seconds`` alone.

    Args:
        prompt: one that the generator can read.
        policy: ∞-RoPE at window 6 by default.
        seconds: lengths of video; (60, 240, 3600) also shows an hour, in about four minutes per repeat.

    Raises:
        PolicyError: the policy cannot make a video that long.
        ScriptError: a length is too short for a block.
        ValueError: no length, no repeat, or a length that ends before the window is full.
    """
    policy = policy or make_policy("infinity_rope", {"window": 6})
    clock = generator.clock
    blocks = {length: clock.latents(length) // clock.block for length in sorted(seconds)}
    skip = warm_up_blocks(policy, clock.block)
    settled = -(-2 * policy.window // clock.block)
    if not blocks or repeats < 1 or min(blocks.values()) <= settled:
        raise ValueError(
            f"need at least one repeat and lengths of more than {settled} blocks of {clock.per_block:g} s each, "
            f"got {list(seconds)} s and {repeats} repeats"
        )
    longest = max(blocks.values())
    load_before = load_average()
    with one_thread():
        environment_record = environment(generator.transformer.device)
        begun = time.perf_counter()
        measure(generator, policy, prompt, settled, generator.codec)
        warm_up = time.perf_counter() - begun
        # Only a schedule that restarts cannot do without its codec.
        bare_codec = generator.codec if policy.schedule == "restart" else None
        paired = 0 if policy.schedule == "restart" else _PAIRED
        runs, bare = [], []
        for _ in range(repeats):  # by turns, so that both meet the same machine
            runs.append(measure(generator, policy, prompt, longest, generator.codec, paired))
            bare.append(measure(generator, policy, prompt, min(blocks.values()), bare_codec))
    lengths = tuple(
        Flatness.of(length, skip, [run.cpu[:count] for run in runs], [run.wall[:count] for run in runs])
        for length, count in blocks.items()
    )
    rate = 1e3 * clock.block / lengths[0].cpu.median
    growth = min(float(run.resident[-1] - run.resident[settled]) for run in runs) * 1000 / (longest - 1 - settled)
    return BenchReport(
        model=generator.name,
        digest=generator.digest,
        policy=policy.name,
        window=policy.window,
        latents_per_second=rate,
        denoise_only=clock.block / min(float(np.median(run.cpu[skip:])) for run in bare),
        pixel_rate=rate * clock.stride / clock.fps,
        lengths=lengths,
        resident_growth=growth,
        resident_peak=max(float(run.resident.max()) for run in runs),
        page_bytes=max(run.page_bytes for run in runs),
        stage_bytes=max(run.stage_bytes for run in runs),
        warm_up=warm_up,
        warm_up_blocks=skip,
        repeats=repeats,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment_record,
        load_before=load_before,
        load_after=load_average(),
        curve=Curve.of([run.cpu for run in runs], [run.resident for run in runs], clock.per_block),
        aged=Quantiles.of(np.concatenate([run.aged for run in runs])) if paired else None,
        notes=tuple(_notes(runs, load_before)),
    )


def _notes(runs: Sequence[Measured], load: float | None) -> Iterator[str]:
    cpu, wall = (sum(float(getattr(run, name).sum()) for run in runs) for name in ("cpu", "wall"))
    cores = os.cpu_count() or 1
    if load is not None and load > cores / 2:
        yield f"the machine was busy: load {load:.1f} on {cores} cores before the start"
    if wall > WAITED * cpu:
        yield f"the process had to wait: wall time is {wall / cpu:.2f}x its CPU time, so compare CPU times"
