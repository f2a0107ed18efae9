"""The parts of `irope.bench_gpu`: each measures one thing with random weights and answers in JSON types."""

from __future__ import annotations

import copy
import importlib.util
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from irope.bench_profile import profiled
from irope.bench_rollout import (
    BLOCK,
    SMALL,
    STEPS,
    Geometry,
    RandomGenerator,
    count_passes,
    random_model,
    random_rollout,
)
from irope.bench_statistics import Spread, decile_ratio, drift
from irope.hand_over import lane_for
from irope.latency import METHODS, Sweep, bench_switch
from irope.rollout import Rollout
from irope.roofline import Roof, block_flops, frames_per_second, measure_attention, measure_roof, now
from irope.transformer import CausalWanTransformer

WINDOWS = (6, 21)
Result = dict[str, Any]


class Skipped(Exception):  # noqa: N818 - no error: a part that cannot be measured here
    """Why a part is left out."""


@dataclass
class Bench:
    """What the parts share.

    Attributes:
        blocks: counted blocks of a mode; ``long`` those of the drift.
        compiled: `CausalWanTransformer.compile_layers` for ``fast``; ``reference`` has an order of its own and is not.
            False once the compiler has failed, and ``not_compiled`` says how.
        compile_seconds: of the block with which the model was compiled.
        roof: from the part ``roof``; the shares of later parts refer to it.
    """

    device: torch.device
    dtype: torch.dtype
    geometry: Geometry
    blocks: int = 32
    long: int = 320
    matrix: int = 8192
    windows: Sequence[int] = WINDOWS
    recached: Sequence[int] = (3, 6, 9, 12, 15, 18, 21, 24)
    switches: int = 3
    batch: int = 8
    compiled: bool = False
    not_compiled: str | None = None
    compile_seconds: float | None = None
    roof: Roof | None = None
    _model: CausalWanTransformer | None = None

    @property
    def model(self) -> CausalWanTransformer:
        if self._model is None:
            self._model = self.build()
        return self._model

    def build(self) -> CausalWanTransformer:
        model = random_model(self.geometry.config, self.device, self.dtype)
        if self.compiled:
            model.compile_layers((BLOCK,))
            begun = now(self.device)
            try:
                next(iter(random_rollout(model, self.geometry, min(self.windows), 1)))
                self.compile_seconds = self.compile_seconds or now(self.device) - begun
            except Exception as error:  # whatever a compiler fails with: the parts run without it and say so
                traceback.print_exc()
                self.compiled, self.not_compiled = False, type(error).__name__
                model.compile_layers(())
        return model

    def rollout(self, window: int, blocks: int, execution: str = "fast", **options: Any) -> Rollout:
        return random_rollout(self.model, self.geometry, window, blocks, execution, **options)

    def share(self, seconds: float, window: int) -> float | None:
        """Part of the roof that a block of one video reaches."""
        if self.roof is None:
            return None
        return self.roof.share(seconds, self.geometry.config, self.geometry.tokens, BLOCK, window)


# --- timing -----------------------------------------------------------------------------------------------------------


def filling(window: int) -> int:
    """Blocks until the window is full, and two more that a compiler may still need."""
    return -(-window // BLOCK) + 2


@dataclass(frozen=True)
class Series:
    """Seconds of the counted blocks, and of all blocks before them together."""

    warm_up: float
    seconds: np.ndarray[Any, np.dtype[np.float64]]

    def speed(self, videos: int = 1) -> Result:
        spread = Spread.of(self.seconds / videos)
        return {
            "block_ms": asdict(spread),
            "fps": frames_per_second(spread.median / 1e3, BLOCK),
            "blocks": len(self.seconds),
            "warm_up_s": self.warm_up,
        }


def interleaved(rollouts: Mapping[str, Rollout], device: torch.device, warm_up: int) -> dict[str, Series]:
    """Run roll-outs of equal length block by block in turn; their first ``warm_up`` blocks are not counted."""
    running = {name: iter(rollout) for name, rollout in rollouts.items()}
    taken: dict[str, list[float]] = {name: [] for name in rollouts}
    for _ in range(next(iter(rollouts.values())).events.blocks):
        for name, blocks in running.items():
            start = now(device)
            next(blocks)
            taken[name].append(now(device) - start)
    return {name: Series(sum(found[:warm_up]), np.array(found[warm_up:])) for name, found in taken.items()}


def streamed(rollout: Rollout, device: torch.device, warm_up: int) -> tuple[float, float, int]:
    """Seconds of the warm-up, and of a block after it, where a block is decoded while the next one is made; how many.

    So the device is waited for at the two ends only, and a block that began before them is not counted.
    """
    begun = now(device)
    blocks = rollout.blocks(lambda block: False)
    for _ in range(warm_up):
        next(blocks)
    start = now(device)
    counted = sum(1 for _ in blocks) - int(lane_for(device).ahead)
    return start - begun, (now(device) - start) / counted, counted


def memory(device: torch.device) -> int | None:
    """Most bytes that tensors held on the device since the last reset; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def forget(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


# --- parts ------------------------------------------------------------------------------------------------------------


def roof(bench: Bench) -> Result:
    """Peak rate of a matrix product, of a copy, and of attention by each kernel that PyTorch has, in this run."""
    bench.roof = measure_roof(bench.device, bench.dtype, bench.matrix)
    config, tokens = bench.geometry.config, bench.geometry.tokens
    rates = {
        str(window): measure_attention(bench.device, bench.dtype, config, BLOCK * tokens, window * tokens)
        for window in bench.windows
    }
    if bench.device.type == "cuda" and not all(rate["cudnn"] for rate in rates.values()):
        torch.backends.cuda.enable_cudnn_sdp(False)  # it may have failed and not merely refused; flash comes next
    return {
        **bench.roof.to_json(),
        "attention": rates,
        "block_ms": {
            str(window): 1e3 * bench.roof.block_seconds(config, tokens, BLOCK, window) for window in bench.windows
        },
        "block_tflop": {str(window): block_flops(config, tokens, BLOCK, window) / 1e12 for window in bench.windows},
    }


def counts(bench: Bench) -> Result:
    """Operations, device reads and bytes of a layer in both modes, and of the decoder: is the baseline honest?"""
    layers = bench.geometry.config.num_layers
    found: Result = {
        f"{execution}, window {window}": {
            "operations": [count.ordinary.operations, count.evicting.operations],
            "reads": [count.ordinary.reads, count.evicting.reads],
            "elementwise_gb": [layers * tally.elementwise / 1e9 for tally in (count.ordinary, count.evicting)],
        }
        for window in bench.windows
        for execution in ("reference", "fast")
        for count in [count_passes(execution, window, bench.geometry)]
    }
    if importlib.util.find_spec("diffusers") is None:
        return {"layer": found}
    from irope.bench_vae import count_decoder

    ways = {"as published": True, "diffusers, not compiled": False}
    tallies = {way: count_decoder(bench.geometry, published) for way, published in ways.items()}
    return {
        "layer": found,
        "decoder": {
            way: {"operations": tally.operations, "elementwise_gb": tally.elementwise / 1e9}
            for way, tally in tallies.items()
        },
    }


def apart(one: Rollout, other: Rollout) -> float:
    """How far the clean latents of the last blocks are apart, as a relative norm."""
    *_, (a, b) = ((x.latents.float(), y.latents.float()) for x, y in zip(one, other, strict=True))
    return float((b - a).norm() / a.norm())


NOT_COMPILED = "fast, not compiled"


def denoise(bench: Bench) -> Result:
    """Reference against fast, without decoding; and how far their latents are apart once the window has evicted.

    At the smaller window also ``fast`` without its compiler: its own kernels and plain torch.
    """
    forget(bench.device)
    window = min(bench.windows)
    blocks = window // BLOCK + 2
    pair = (bench.rollout(window, blocks, mode, steps=STEPS[:1]) for mode in ("reference", "fast"))
    found: Result = {"difference": apart(*pair)}
    for window in bench.windows:
        forget(bench.device)
        start = filling(window)
        rollouts = {mode: bench.rollout(window, start + bench.blocks, mode) for mode in ("reference", "fast")}
        if bench.compiled and window == min(bench.windows):
            plain = copy.deepcopy(bench.model)  # without what is compiled
            rollouts[NOT_COMPILED] = random_rollout(plain, bench.geometry, window, start + bench.blocks)
        series = interleaved(rollouts, bench.device, start)
        speeds = {mode: made.speed() for mode, made in series.items()}
        for mode, speed in speeds.items():
            speed["roof_share"] = bench.share(speed["block_ms"]["median"] / 1e3, window)
            speed["cache_bytes"] = rollouts[mode].arena.page_bytes + rollouts[mode].arena.stage_bytes
            speed["speed_up"] = speeds["reference"]["block_ms"]["median"] / speed["block_ms"]["median"]
        found[str(window)] = speeds
    return found


def switch(bench: Bench) -> Result:
    """KV Flush against KV Recache over R: time beyond an ordinary block, host time, bytes, and the law a R + b R^2.

    One denoising step a block, which changes nothing of what is measured and fills the windows sooner.
    """
    generator = RandomGenerator(bench.model, bench.geometry, STEPS[:1])
    sweep = Sweep(tuple(bench.recached), repeats=bench.switches, ordinary=2, prompts=("before", "after the switch"))
    made = bench_switch(generator, sweep)  # type: ignore[arg-type]
    kept = ("method", "window", "recached", "n", "bytes_written", "bytes_moved", "event_us", "prompt_ms", "cache_ms")
    clock = "wall" if bench.device.type == "cuda" else "cpu"
    return {
        "clock": clock,
        "rows": [{name: row[name] for name in kept} for row in made["rows"]],
        "fit": made["fit"][clock],
        "methods": METHODS,
    }


def vae(bench: Bench) -> Result:
    """The Wan decoder, from the published way to the fastest; then a roll-out with the best of the exact ones.

    One block is three latent frames of one stream, frames on the host included.
    """
    if importlib.util.find_spec("diffusers") is None:
        raise Skipped("diffusers is not installed")
    from irope.bench_vae import ladder

    steps, best = ladder(bench.device, bench.dtype, bench.geometry, bench.blocks, small=bench.geometry is SMALL)
    forget(bench.device)
    window = min(bench.windows)
    start = filling(window)
    warm_up, whole, counted = streamed(bench.rollout(window, start + bench.blocks, codec=best), bench.device, start)
    return {
        "ladder": steps,
        "end_to_end": {
            "window": window,
            "block_ms": 1e3 * whole,
            "fps": frames_per_second(whole, BLOCK),
            "blocks": counted,
            "warm_up_s": warm_up,
            "peak_bytes": memory(bench.device),
        },
    }


def long(bench: Bench) -> Result:
    """Is a block as dear after four minutes as after five seconds, and does memory stay?"""
    forget(bench.device)
    window = min(bench.windows)
    start = filling(window)
    taken, peaks = [], []
    blocks = iter(bench.rollout(window, start + bench.long))
    for number in range(start + bench.long):
        if number == start and bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(bench.device)  # what filled the window would hide what grows
        begin = now(bench.device)
        next(blocks)
        taken.append(now(bench.device) - begin)
        peaks.append(memory(bench.device))
    seconds = np.array(taken[start:])
    tenth = start + bench.long // 6
    return {
        "window": window,
        "blocks": bench.long,
        "block_ms": asdict(Spread.of(seconds)),
        "drift_percent": drift(seconds),
        "last_tenth_over_first": decile_ratio(seconds),
        "peak_bytes": {str(tenth): peaks[tenth - 1], str(start + bench.long): peaks[-1]},
        "per_block_ms": [round(1e3 * value, 3) for value in taken],
    }


def fp8(bench: Bench) -> Result:
    """Linear layers in FP8, an approximation, against bfloat16, at the smaller window, where they weigh most.

    And how far the first clean latents are apart.
    """
    from irope.fp8 import quantise_layers

    forget(bench.device)
    model = bench.build()
    quantise_layers(model)
    name = str(bench.dtype).removeprefix("torch.")
    found: Result = {"relative_error": apart(bench.rollout(6, 1), random_rollout(model, bench.geometry, 6, 1))}
    window = min(bench.windows)
    start = filling(window)
    rollouts = {
        name: bench.rollout(window, start + bench.blocks),
        "fp8": random_rollout(model, bench.geometry, window, start + bench.blocks),
    }
    series = interleaved(rollouts, bench.device, start)
    return found | {str(window): {mode: made.speed() for mode, made in series.items()}}


def profile(bench: Bench) -> Result:
    """Which kernels a block's time goes to in both modes, once the window is full."""
    forget(bench.device)
    window = min(bench.windows)
    found: Result = {"window": window}
    for mode in ("reference", "fast"):
        start = filling(window)
        blocks = iter(bench.rollout(window, start + 1, mode))
        for _ in range(start):
            next(blocks)
        found[mode] = profiled(blocks, bench.device)
    return found


def batch(bench: Bench) -> Result:
    """Several videos in lock step, in seconds of one video's block."""
    forget(bench.device)
    window = min(bench.windows)
    start = filling(window)
    rollout = bench.rollout(window, start + bench.blocks, batch=bench.batch)
    made = interleaved({"fast": rollout}, bench.device, start)["fast"]
    speed = made.speed(bench.batch)
    speed["roof_share"] = bench.share(speed["block_ms"]["median"] / 1e3, window)
    return {"window": window, "videos": bench.batch, **speed, "peak_bytes": memory(bench.device)}


PARTS: dict[str, Callable[[Bench], Result]] = {
    "roof": roof,
    "denoise": denoise,
    "vae": vae,
    "switch": switch,
    "long": long,
    "fp8": fp8,
    "profile": profile,
    "counts": counts,
    "batch": batch,
}
"""In the order of what matters most, should the time end."""
