"""The report of an experiment: tables, plots, provenance and a page to open, made from what is on disk; and W&B.

    irope report delta_ablation                    into results/reports/delta_ablation-TIER
    irope report delta_ablation tier=quick --wandb and send it to W&B: offline, for `wandb sync` later
    irope report delta_ablation --wandb --online   straight to the server

Everything of the form key=value is as in `irope run`. The same command again writes the same report and sends what has
changed since. Exit code 1: the report is complete, but not all of it reached W&B.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irope.errors import UserError
from irope.settings import hint

if TYPE_CHECKING:
    from eval.report import Report
    from eval.results import Results

REPORTS = "results/reports"
MODES = ("offline", "online", "disabled")


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words", nargs="+", metavar="NAME|key=value", help="an experiment with settings, as in irope run"
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="settings may sweep: key=a,b")
    parser.add_argument("--out", metavar="FOLDER", help=f"where to; {REPORTS}/NAME-TIER without it")
    parser.add_argument("--wandb", action="store_true", help="send to Weights & Biases: one run for each cell")
    parser.add_argument("--online", action="store_true", help="to the server at once, as WANDB_MODE=online")
    parser.add_argument("--videos", type=int, default=4, metavar="N", help="videos of each cell to send along (4)")
    options = parser.parse_intermixed_args(arguments)
    if options.videos < 0:
        raise UserError(f"--videos {options.videos}: a number from 0 up")
    from irope.cli.experiments import measured_kind, results_of

    if (kind := measured_kind(options.words)) is not None:
        raise UserError(f"{options.words[0]} measures the engine ({kind}) and has no scores: irope run shows its table")
    results = results_of([*options.words, *(["-m"] if options.multirun else [])])
    mode = wandb_mode(results, options.online, os.environ) if options.wandb or options.online else "disabled"
    from eval.report import write_report

    folder = Path(options.out or f"{REPORTS}/{results.name}{f'-{results.tier}' if results.tier else ''}")
    report = write_report(results, folder)
    for gap in report.gaps[:8]:
        print(f"{gap.label}, {gap.length}: {gap.missing} of {gap.planned} videos missing")
    if report.gaps:
        print(f"{len(report.gaps)} rows are incomplete; to fill them: {results.command}")
    print(f"Open {folder / 'index.html'}: {len(report.every.rows)} rows, {len(report.pictures)} plots")
    if mode != "disabled":
        return _send(results, report, mode == "online", options.videos)
    if options.wandb:
        print("W&B: WANDB_MODE=disabled, nothing sent")
    return 0


def wandb_mode(results: Results, online: bool, environment: Mapping[str, str]) -> str:
    """``--online``, else WANDB_MODE, else ``report.wandb.mode`` of the configuration, else offline."""
    report: Any = results.cells[0].config.get("report") if results.cells else None
    configured = (report or {}).get("wandb") or {}
    for source, found in (("WANDB_MODE", environment.get("WANDB_MODE")), ("report.wandb.mode", configured.get("mode"))):
        if not online and found:
            if found not in MODES:
                raise UserError(f"{source}={found}: unknown mode{hint(str(found), MODES)}")
            return str(found)
    return "online" if online else "offline"


def _send(results: Results, report: Report, online: bool, videos: int) -> int:
    from eval.wandb_content import contents
    from eval.wandb_sink import send

    folder = report.folder / "wandb"
    images = {picture.name: picture.png for picture in report.pictures}
    runs = contents(results, [report.every], videos=videos, images=images, files=report.files)
    sent = send(runs, folder, online=online, say=lambda line: print(f"W&B: {line}"))
    print(f"W&B: {sent.new} runs sent{'' if online else ' (offline)'}, {sent.kept} unchanged")
    if sent.problem:
        print(f"irope: W&B: {sent.problem}; the report is complete, and the same command continues", file=sys.stderr)
        return 1
    if sent.new and not online:
        print(f"To upload them: wandb sync {folder}/wandb/offline-run-*")
    return 0
