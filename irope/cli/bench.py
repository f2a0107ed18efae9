"""Measure speed and memory on this machine: ``irope bench cpu`` (one core, one thread)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from irope.errors import UserError

PROMPT = "a red circle moving left over a navy plain background"


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="irope bench", description=__doc__)
    parser.add_argument("what", choices=["cpu"])
    parser.add_argument("--seconds", type=float, nargs="+", default=[60, 240, 3600], help="lengths of video")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None, help="also write the report here")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides (method, model)")
    options = parser.parse_intermixed_args(arguments)
    from rich.console import Console
    from rich.table import Table

    from irope.bench import bench_cpu
    from irope.config import load, policy_from
    from irope.generator import load_generator
    from irope.provenance import write_json_atomic

    config = load([*options.overrides, "sys.device=cpu"])
    try:
        report = bench_cpu(load_generator(config), PROMPT, policy_from(config), options.seconds, options.repeats)
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
