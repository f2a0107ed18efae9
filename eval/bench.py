"""How fast videos are scored on one CPU core, how much memory that takes, and how that compares with stock VBench.

CPU time counts all threads of the process, decoding included; wall time also counts what else the machine was doing.
Videos are made for the purpose: of the embedded world at its own size, and a moving texture at the generator's.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eval.score import Plan, score_video
from eval.scorer import Runtime
from eval.scores import read_scores, score_path
from eval.vbench.random_weights import write_random_weights
from eval.vbench.stock import stock_scores
from eval.videos import Video, find_videos
from irope.errors import UserError
from irope.video import VideoWriter
from irope.world import render, sample_staging
from irope.world.scene import parse_prompt

PROMPT = "a red circle moving left over a navy plain background"
FPS = 16
SIZES = {"64x64": (64, 64), "832x480": (480, 832)}
FEATURES = ("subject_consistency", "background_consistency")
"""The dimensions that are compared with the stock package on a CPU; the others take minutes for a second of video."""


@dataclass(frozen=True)
class Speed:
    """Seconds that one pass took for ``frames`` frames, loading of networks included or not as ``what`` says."""

    what: str
    size: str
    frames: int
    cpu_seconds: float
    wall_seconds: float

    @property
    def frames_per_second(self) -> float:
        """Per core: by CPU time."""
        return self.frames / self.cpu_seconds


@dataclass(frozen=True)
class Versus:
    """Ours against the stock package on the same video, and how far their scores differ, by dimension."""

    ours: Speed
    stock: Speed
    differences: Mapping[str, float]
    device: str
    processes: int

    @property
    def speedup(self) -> float:
        """By CPU time for one process on a CPU, which has other work besides; by wall time otherwise."""
        kind = "cpu_seconds" if self.device == "cpu" and self.processes == 1 else "wall_seconds"
        return float(getattr(self.stock, kind) / getattr(self.ours, kind))


@dataclass(frozen=True)
class Memory:
    """Most memory a process held that scored a video of this length, in bytes."""

    seconds: float
    frames: int
    peak: int


def world_video(path: Path, frames: int) -> None:
    """The embedded world, 64x64, lossless beside the mp4, as the embedded model's videos are."""
    with VideoWriter(path, FPS, lossless=True) as writer:
        scene = parse_prompt(PROMPT)
        done = 0
        while done < frames:  # in pieces: an hour does not fit into memory
            count = min(480, frames - done)
            writer.write(render(scene, sample_staging(np.random.default_rng(done)), count)[0])
            done += count
        writer.finish()


def texture_video(path: Path, frames: int, height: int, width: int) -> None:
    """A window that pans over a smooth random texture."""
    import cv2

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8, (width + 4 * frames) // 8 + 1, 3)).astype(np.uint8)
    wide = cv2.resize(coarse, (width + 4 * frames, height), interpolation=cv2.INTER_CUBIC)
    with VideoWriter(path, FPS) as writer:
        for frame in range(frames):
            writer.write(np.ascontiguousarray(wide[None, :, 4 * frame : 4 * frame + width]))
        writer.finish()


def embedded_speed(plan: Plan, frames: Mapping[str, int]) -> Iterator[Speed]:
    """Frames per second of the plan's scorers together; networks are loaded before, on a first short video.

    Args:
        frames: frames to score, by name of size.
    """
    for size, count in frames.items():
        with tempfile.TemporaryDirectory() as folder:
            for name, many in (("warm", 40), ("video", count)):
                _make(Path(folder, f"{name}.mp4"), size, many)
            warm, video = find_videos(Path(folder))[0][::-1]
            score_video(warm, replace(plan, folder=Path(folder, "scores")))
            yield _timed(f"protocol {plan.name}, {len(plan.scorers)} scorers", size, video, plan, folder)


def _make(path: Path, size: str, frames: int) -> None:
    if size == "64x64":
        world_video(path, frames)
        path.unlink()  # the lossless companion is what the embedded model's scores are made from
        listed = [{"file": f"{n}.mkv", "prompt": PROMPT, "seed": i} for i, n in enumerate(("video", "warm"))]
        path.with_name("prompts.jsonl").write_text("\n".join(map(json.dumps, listed)), encoding="utf-8")
    else:
        texture_video(path, frames, *SIZES[size])


def _timed(what: str, size: str, video: Video, plan: Plan, folder: str) -> Speed:
    cpu, wall = time.process_time(), time.perf_counter()
    outcome = score_video(video, replace(plan, folder=Path(folder, "scores")))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if outcome.problem is not None or not outcome.scored:
        raise UserError(f"{what}: nothing was scored: {outcome.problem or outcome.skipped}")
    return Speed(what, size, outcome.frames, cpu, wall)


def against_stock(
    weights: Path,
    dimensions: Sequence[str] = FEATURES,
    size: str = "832x480",
    frames: int = 48,
    processes: int = 1,
    runtime: Runtime | None = None,
) -> Versus:
    """Some dimensions by ours in one pass and by the stock package, whole processes, start and loading included.

    Args:
        weights: folder for random weights of the right shapes, which cost what the real ones cost.
        processes: so many at a time, a video each. The stock package takes every core in each of them, ours one thread.
        runtime: device and precision of ours; the stock package runs on the same device.

    Raises:
        UserError: the vbench package is not installed, or a process failed.
    """
    runtime = runtime or Runtime()
    os.environ.update(write_random_weights(weights, dimensions))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"video{number}.mp4") for number in range(processes)]
        texture_video(paths[0], frames, *SIZES[size])
        for path in paths[1:]:
            shutil.copyfile(paths[0], path)

        def ours(path: Path) -> Any:
            settings = [
                "protocol=vbench",
                f"score.scorers=[{','.join(dimensions)}]",
                f"score.out={folder}",
                f"score.precision={runtime.precision}",
                f"sys.device={runtime.device}",
            ]
            done = subprocess.run(
                [sys.executable, "-m", "irope", "score", str(path), *settings],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise UserError(f"irope score failed: {done.stderr[-500:]}")
            return read_scores(score_path(Path(folder), "vbench", path.stem))

        def stock(path: Path) -> Any:
            return stock_scores([path], dimensions, cache=weights / "vbench", device=runtime.device)

        our_scores, our_speed = _together("irope score", size, frames, ours, paths)
        stock_found, stock_speed = _together("stock vbench", size, frames, stock, paths)
    (window,) = our_scores["windows"].values()
    scores = window["scores"]
    differences = {name: abs(scores[name]["value"] - stock_found[name].overall) for name in dimensions}
    return Versus(our_speed, stock_speed, differences, runtime.device, processes)


def _together(
    what: str, size: str, frames: int, act: Callable[[Path], Any], paths: Sequence[Path]
) -> tuple[Any, Speed]:
    """Start a process for every path at the same time; the first one's result, and the seconds of all."""
    before, wall = os.times(), time.perf_counter()
    with ThreadPoolExecutor(len(paths)) as pool:
        results = list(pool.map(act, paths))
    wall, after = time.perf_counter() - wall, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return results[0], Speed(what, size, frames * len(paths), cpu, wall)


def memory(seconds: Sequence[float], protocol: str = "embedded") -> Iterator[Memory]:
    """Peak memory of ``irope score`` on videos of the embedded world of these lengths, each in a process of its own."""
    for length in seconds:
        with tempfile.TemporaryDirectory() as folder:
            frames = round(length * FPS)
            _make(Path(folder, "video.mp4"), "64x64", frames)
            command = [sys.executable, "-m", __name__, folder, f"protocol={protocol}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise UserError(f"scoring {length:g} s failed: {done.stderr[-500:]}")
            yield Memory(length, frames, int(done.stdout.split()[-1]))


def peak_memory() -> int:
    """Most bytes this process held in RAM.

    The kernel's record of the memory map, where there is one: what getrusage says begins with the peak of the process
    that started this one.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":  # the process that `memory` measures
    from irope.cli.main import main

    code = main(["score", *sys.argv[1:]])
    sys.stdout.write(f"\n{peak_memory()}\n")
    raise SystemExit(code)
