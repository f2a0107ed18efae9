"""Measure speed and memory on this machine.

irope bench cpu            the generator on one core: latent frames per second, cost of a block, memory
irope bench growth         the same from 5 s of video to 240 s or an hour: is the last block as cheap as the first?
irope bench switch         a prompt switch: KV Flush against KV Recache over R frames, and the law a R + b R^2
irope bench gpu            one GPU, random weights: published order of operations against fast; decoder; constant cost
irope bench score          scoring on one core: frames per second of the embedded scorers, peak memory
irope bench score --stock  also subject and background consistency against the stock vbench package (random weights)
irope bench distortions    what noise, blur, freezing, looping, cuts, ... do to each scorer that needs no download

Each writes a JSON and its table beside it (--out; default: results/reports). irope plot FILE.json draws those of cpu,
growth, switch and gpu. irope bench gpu --help has options of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROMPT = "a red circle moving left over a navy plain background"
AFTER = "a red circle moving up over a navy plain background"
WINDOWS = (3, 6, 9, 12, 15, 18, 21, 24)


def run(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] == "gpu":  # needs no Hydra
        from irope.bench_gpu import main

        return main(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="irope bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["cpu", "growth", "switch", "gpu", "score", "distortions"])
    parser.add_argument("--seconds", type=float, nargs="+", help="lengths of video (cpu: 60 240 3600; score: 5 240)")
    parser.add_argument("--repeats", type=int, default=3, help="roll-outs, or rounds of switches (default: 3)")
    parser.add_argument("--windows", type=int, nargs="+", default=WINDOWS, help="switch: cached latent frames R")
    parser.add_argument(
        "--stock", nargs="*", metavar="DIMENSION", help="score: compare with the stock vbench package (default: two)"
    )
    parser.add_argument("--clips", type=int, default=8, help="distortions: clips of each set")
    parser.add_argument("--frames", type=int, default=48, help="score --stock: frames of the 832x480 video")
    parser.add_argument("--out", type=Path, help="JSON; the table goes beside it as .md (default: results/reports)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides (method, model, protocol)")
    options = parser.parse_intermixed_args(arguments)
    options.command = " ".join(["irope bench", *arguments])
    if options.what == "distortions":
        from irope.cli.bench_distortions import run_distortions

        return run_distortions(options)
    if options.what == "score":
        from irope.cli.bench_score import run_score

        return run_score(options)
    return _run_switch(options) if options.what == "switch" else _run_cpu(options)


def _run_cpu(options: argparse.Namespace) -> int:
    from irope.bench import bench_cpu
    from irope.cli.bench_report import named, show_and_write
    from irope.config import load, policy_from
    from irope.errors import UserError
    from irope.generator import load_generator

    config = load([*options.overrides, "sys.device=cpu"])
    lengths = options.seconds or ([5, 60, 240] if options.what == "growth" else [60, 240, 3600])
    try:
        report = bench_cpu(load_generator(config), PROMPT, policy_from(config), lengths, options.repeats)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(str(error)) from error
    path = options.out or named("cpu" if options.what == "cpu" else "growth-cpu")
    show_and_write(path, "one core, one thread", options.command, report.to_table(), report.to_json())
    print(f"draw it: irope plot {path}")
    return 0


def _run_switch(options: argparse.Namespace) -> int:
    from irope.cli.bench_report import named
    from irope.config import load
    from irope.generator import load_generator
    from irope.latency import Sweep, bench_switch
    from irope.latency_report import as_markdown
    from irope.provenance import write_atomic, write_json_atomic

    values: dict[str, Any] = {"windows": options.windows, "repeats": options.repeats, "ordinary": 3}
    sweep = Sweep.from_config({**values, "prompts": (PROMPT, AFTER)})
    generator = load_generator(load(options.overrides))
    made = bench_switch(generator, sweep, lambda line: print(line, flush=True))
    made |= {"command": options.command, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    path = options.out or named(f"switch-{made['environment']['device']['type']}")
    table = path.with_suffix(".md")
    write_json_atomic(path, made)
    write_atomic(table, as_markdown(made).encode())
    print(f"{table.read_text(encoding='utf-8')}\nwritten to {path}; draw it: irope plot {path}")
    return 0
