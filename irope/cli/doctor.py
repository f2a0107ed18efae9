"""Is everything here that a configuration needs? One screen; each line that is not well has what mends it.

    irope doctor                                 the embedded model
    irope doctor model=wan_1_3b method=causvid   the 1.3B model, with the weights of that method
    irope doctor method=magi_1                   another system
    irope doctor protocol=vbench                 scoring with VBench's dimensions

Looks only: nothing is installed, downloaded or changed, and no network is contacted. Exit code 1: something that this
configuration needs is missing (bad). What only other configurations need is a warning.
"""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irope.config import Settings
    from irope.doctor import Finding, State

COLOURS = {"ok": "green", "warn": "yellow", "bad": "bold red"}


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    options = parser.parse_intermixed_args(arguments)
    from irope.config import load
    from irope.doctor import CHECKS, examine

    findings = examine(load(options.overrides), {**CHECKS, "VBench": vbench})
    ready = not any(found.state == "bad" for found in findings)
    if options.json:
        print(json.dumps({"ready": ready, "findings": [asdict(found) for found in findings]}, indent=1))
    else:
        _print(findings)
    return int(not ready)


def vbench(config: Settings) -> Iterable[Finding]:
    """Whether VBench's package and weights are here."""
    from eval.vbench.packages import missing
    from eval.vbench.weights import WEIGHTS, check
    from irope.doctor import Finding

    state: State = "bad" if str(config["score"]["protocol"]["name"]).startswith("vbench") else "warn"
    if reason := missing():
        return [Finding("VBench", state, reason.partition(": run")[0], "irope vbench install")]
    files = [file for file in WEIGHTS if not file.stock_only]
    there = sum(check(file).status == "present" for file in files)
    what = f"its packages are here, {there} of {len(files)} weight files"
    if there < len(files):
        return [Finding("VBench", state, what, "irope vbench weights")]
    return [Finding("VBench", "ok", what)]


def _print(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    columns = min(120, shutil.get_terminal_size((100, 24)).columns)
    console = Console(width=columns, highlight=False, soft_wrap=True)
    width = max(len(found.name) for found in findings) + 2
    indent = 6 + width
    for found in findings:
        text = "\n".join(textwrap.wrap(found.what, columns - indent, subsequent_indent=" " * indent))
        console.print(Text.assemble((f"{found.state:<6}", COLOURS[found.state]), f"{found.name:<{width}}", text))
        if found.mend:  # on one line, however long: it is there to be copied
            console.print(Text(f"{'':<{indent}}{found.mend}"))
    bad = sum(found.state == "bad" for found in findings)
    warned = sum(found.state == "warn" for found in findings)
    others = f"; {warned} would matter to other configurations" if warned else ""
    console.print(Text(f"\n{f'{bad} to mend' if bad else 'Ready for this configuration'}{others}."))
