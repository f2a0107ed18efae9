"""The first five minutes: 5 s, 60 s and 240 s videos of the embedded model under ∞-RoPE and its rivals.

Four 60 s scripts with a prompt switch and a scene cut under every method, 5 s and 240 s videos of one prompt; then
contact sheets, a table of measured cost and tracker scores, and a page to open. The same command continues or shows
what is there. key=value overrides reach every video, for example seed=1 or sys.out=DIR.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OUT = "results/demo"
MOMENTS = 9
"""Frames of a video on its contact sheet, evenly spread in time."""

RIVALS = ("infinity_rope", "kv_recache", "rolling_sink1", "rolling_w6", "causvid")
LONG_PROMPT = "a red circle moving right over a navy plain background"


@dataclass(frozen=True)
class Part:
    """One group of videos of the demo: every method with the same prompts."""

    title: str
    methods: tuple[str, ...]
    overrides: tuple[str, ...]
    videos: int


PARTS = (
    Part("60 s, prompt switch at 20 s, scene cut at 40 s", RIVALS, ("prompts=demo", "duration=60"), 4),
    Part("5 s, one prompt", ("full", "infinity_rope"), ("prompts=basic", "duration=5"), 4),
    Part("240 s, one prompt", RIVALS[:2], (f'prompt="{LONG_PROMPT}"', "duration=240"), 1),
)


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="processes, one core each")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides for every video")
    options = parser.parse_intermixed_args(arguments)
    from irope.config import load

    common = [f"sys.out={OUT}/videos", *options.overrides]
    # Long videos first, so that the processes finish together.
    tasks = [
        (part, index, [f"method={method}", *part.overrides, *common])
        for part in sorted(PARTS, key=lambda part: "240" not in part.title)
        for method in part.methods
        for index in range(part.videos)
    ]
    for _, _, overrides in tasks:
        load(overrides)  # a wrong override is reported once, here
    start = time.perf_counter()
    print(f"{len(tasks)} videos of the embedded model, {options.workers} processes")
    rows = _work(tasks, max(1, options.workers))
    from irope.cli.demo_report import write_report

    out = Path(str(load(common)["sys"]["out"])).parent
    order = [part.title for part in PARTS]
    write_report(out, sorted(rows, key=lambda row: order.index(row["part"])), time.perf_counter() - start)
    return 0


def _work(tasks: list[tuple[Part, int, list[str]]], workers: int) -> list[dict[str, Any]]:
    """Generate and score every task; results come back in the order of ``tasks``."""
    context = multiprocessing.get_context("spawn")
    done: dict[int, dict[str, Any]] = {}
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
        futures: dict[Future[dict[str, Any]], int] = {
            pool.submit(make, part.title, index, overrides): number
            for number, (part, index, overrides) in enumerate(tasks)
        }
        try:
            for future in as_completed(futures):
                row = done[futures[future]] = future.result()
                print(
                    f"[{len(done):>2}/{len(tasks)}] {row['method']:<14} {row['id']:<16} "
                    f"{row['seconds']:>5.0f} s of video in {row['took']:>5.1f} s",
                    flush=True,
                )
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [done[number] for number in range(len(tasks))]


def make(part: str, index: int, overrides: list[str]) -> dict[str, Any]:
    """Generate and score one video; runs in a process of its own, on one core."""
    import numpy as np
    import torch

    from eval.scorer import Span
    from eval.world import score_video
    from irope.config import load
    from irope.generate import generate
    from irope.generator import load_generator
    from irope.jobs import jobs_from
    from irope.video import read_frames

    torch.set_num_threads(1)
    start = time.perf_counter()
    config = load(overrides)
    generator = load_generator(config)
    job = jobs_from(config)[index]
    sidecar = generate(job, generator)
    took = time.perf_counter() - start
    path = job.stem.with_name(sidecar["files"]["frames"] or sidecar["files"]["mp4"])
    frames = np.concatenate(list(read_frames(path, chunk=256)))
    spans = [Span(s["start_frame"], s["stop_frame"], s["prompt"]) for s in sidecar["segments"]]
    score = score_video(frames, spans, sidecar["fps"])
    cost, last = sidecar["cost"], len(frames) - 1
    times = np.linspace(0, last / sidecar["fps"], MOMENTS).round(1).tolist()
    return {
        "part": part,
        "method": sidecar["method"],
        "id": sidecar["id"],
        "stem": str(job.stem),
        "seconds": sidecar["pixel_frames"] / sidecar["fps"],
        "took": took,
        "latent_frames_per_second": generator.clock.block / cost["seconds_per_block_median"],
        "kv_bytes": cost["kv_page_bytes"],
        "model": sidecar["model"],
        "times": times,
        "frames": [frames[min(last, round(t * sidecar["fps"]))] for t in times],
        **asdict(score),
    }
