"""Measure speed and memory on this machine.

irope bench cpu            the generator on one core: latent frames per second, cost of a block over an hour, memory
irope bench score          scoring on one core: frames per second of the embedded scorers, peak memory
irope bench score --stock  also subject and background consistency against the stock vbench package (random weights)
irope bench distortions    what noise, blur, freezing, looping, cuts, ... do to each scorer that needs no download
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

PROMPT = "a red circle moving left over a navy plain background"


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["cpu", "score", "distortions"])
    parser.add_argument("--seconds", type=float, nargs="+", help="lengths of video (cpu: 60 240 3600; score: 5 240)")
    parser.add_argument("--repeats", type=int, default=3, help="of the generator's roll-outs")
    parser.add_argument(
        "--stock", nargs="*", metavar="DIMENSION", help="score: compare with the stock vbench package (default: two)"
    )
    parser.add_argument("--clips", type=int, default=8, help="distortions: clips of each set")
    parser.add_argument("--frames", type=int, default=48, help="score --stock: frames of the 832x480 video")
    parser.add_argument("--json", type=Path, default=None, help="also write the report here")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides (method, model, protocol)")
    options = parser.parse_intermixed_args(arguments)
    if options.what == "distortions":
        from irope.cli.bench_distortions import run_distortions

        return run_distortions(options)
    if options.what == "score":
        from irope.cli.bench_score import run_score

        return run_score(options)
    return _run_cpu(options)


def _run_cpu(options: argparse.Namespace) -> int:
    import json

    from rich.console import Console
    from rich.table import Table

    from irope.bench import bench_cpu
    from irope.config import load, policy_from
    from irope.errors import UserError
    from irope.generator import load_generator
    from irope.provenance import write_json_atomic

    config = load([*options.overrides, "sys.device=cpu"])
    lengths = options.seconds or [60, 240, 3600]
    try:
        report = bench_cpu(load_generator(config), PROMPT, policy_from(config), lengths, options.repeats)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(str(error)) from error
    table = Table("what", "value", "how it was taken", title="one core, one thread", title_justify="left")
    for row in report.to_table():
        table.add_row(*row)
    Console().print(table)
    if options.json:
        write_json_atomic(options.json, json.loads(json.dumps(report.to_json())))
        print(f"written to {options.json}")
    return 0
