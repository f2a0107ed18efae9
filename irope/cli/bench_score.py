"""``irope bench score``: how fast videos are scored on one core, and what memory that takes."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from irope.cli.bench_report import named, show_and_write

if TYPE_CHECKING:
    from eval.bench import Versus

WEIGHTS = Path.home() / ".cache" / "irope" / "random-weights"
"""Random weights of VBench's networks, made on the first ``--stock`` run (0.8 GB)."""
TITLE = "scoring on one core, one thread; decoding included; against stock whole processes"


def run_score(options: argparse.Namespace) -> int:
    import torch

    from eval.bench import FEATURES, against_stock, embedded_speed, memory
    from eval.plan import plan_from
    from irope.bench import load_average
    from irope.config import load
    from irope.generator import device_from
    from irope.provenance import environment

    torch.set_num_threads(1)
    config = load(options.overrides)
    plan = plan_from(config, Path("unused"), "cpu")
    runtime = replace(plan.runtime, device=str(device_from(config)))
    load_before = load_average()
    rows: list[tuple[str, str, str]] = []
    speeds = list(embedded_speed(plan, {"64x64": 640, "832x480": 96}))
    for speed in speeds:
        how = f"{speed.frames} frames in {speed.cpu_seconds:.1f} s of CPU time, {speed.wall_seconds:.1f} s wall"
        rows.append((f"{speed.what}, {speed.size}", f"{speed.frames_per_second:.0f} frames/s", how))
    peaks = list(memory(options.seconds or [5, 240], plan.name))
    for peak in peaks:
        rows.append(
            (f"peak memory, {peak.seconds:g} s", f"{peak.peak / 2**20:.0f} MiB", f"{peak.frames} frames, 64x64")
        )
    stock = []
    for processes in (1, os.cpu_count() or 1) if options.stock is not None and runtime.device == "cpu" else (1,):
        if options.stock is None:
            break
        versus = against_stock(
            WEIGHTS, options.stock or FEATURES, frames=options.frames, processes=processes, runtime=runtime
        )
        stock.append(versus)
        rows.append(_row(versus, runtime.precision))
    for name, difference in stock[0].differences.items() if stock else ():
        rows.append((f"  {name}", f"{difference:.1e}", "difference of the scores, random weights of the right shapes"))
    report = {
        "kind": "bench_score",
        "speeds": [asdict(speed) | {"frames_per_second": speed.frames_per_second} for speed in speeds],
        "memory": [asdict(peak) for peak in peaks],
        "stock": [asdict(versus) | {"speedup": versus.speedup} for versus in stock],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": load_before,
        "environment": environment(runtime.device),
    }
    show_and_write(options.out or named(f"score-{runtime.device}"), TITLE, options.command, rows, report)
    return 0


def _row(versus: Versus, precision: str) -> tuple[str, str, str]:
    ours, stock = versus.ours, versus.stock
    many = "one process" if versus.processes == 1 else f"{versus.processes} processes at a time"
    how = (
        f"{many}, {ours.frames} frames {ours.size}, {precision}, {versus.device}: {ours.cpu_seconds:.0f} s of CPU time "
        f"({ours.wall_seconds:.0f} s wall) against {stock.cpu_seconds:.0f} s ({stock.wall_seconds:.0f} s)"
    )
    return " + ".join(versus.differences), f"{versus.speedup:.2f}x stock vbench", how
