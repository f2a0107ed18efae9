"""Is method A better than method B? Differences on the prompts that both have, for every metric.

    irope compare infinity_rope kv_recache                         in results/runs
    irope compare infinity_rope kv_recache my/videos               in another folder that was scored
    irope compare cut_delta=6 cut_delta=90 delta_ablation tier=quick    two cells of an experiment

A and B are rows as irope table names them; a part that leaves no doubt is enough. Videos are paired by prompt and seed;
intervals are bootstrapped over prompts; p-values are corrected for the number of metrics (Holm). "tied" means that no
difference was shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from eval.comparison import Group
    from eval.table_cells import Name

FOOT = """  A - B: mean over the prompts that both have, with its 95 % interval; p: sign-flip test, Holm over metrics
  tied: no difference shown, which does not show that they are equal; too few: below 8 prompts nothing is said"""


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="A", help="a row, as irope table names it")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument("name", nargs="*", help="an experiment with settings, or a folder; without one results/runs")
    parser.add_argument("-m", "--multirun", action="store_true", help="settings may sweep: key=a,b")
    parser.add_argument("--protocol", help="only this one (of a folder)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_intermixed_args(arguments)
    import json

    from eval.comparison import comparisons
    from eval.table_cells import one_row

    words = [*(options.name or ["results/runs"]), *(["-m"] if options.multirun else [])]
    frame, names, lacking = _scores(words, options.protocol)
    a, b = one_row(options.a, names), one_row(options.b, names)
    found = comparisons(frame, a.label, b.label)
    if options.json:
        print(json.dumps([record for group in found for record in group.records()], indent=1, ensure_ascii=False))
        return 0
    _show(found)
    for line in lacking:
        print(f"  {line}")
    return 0


def _scores(words: Sequence[str], protocol: str | None) -> tuple[pd.DataFrame, list[Name], list[str]]:
    """The scores of an experiment or a folder, the names of its rows, and what is missing."""
    from eval.experiment_table import experiment_frame, experiment_rows, gap_notes, gaps
    from eval.frame import load_frame
    from eval.table_cells import Name
    from irope.cli.scores_folder import only_protocol, results_or_folder, scores_folder

    results = results_or_folder(words)
    if results is None:
        frame = only_protocol(load_frame(scores_folder(Path(words[0]))), protocol)
        return frame, [Name(method, method) for method in sorted(set(frame["method"]))], []
    frame = experiment_frame(results)
    rows = experiment_rows(results, frame)
    names = {row.label: Name(row.label, row.method, row.axes) for row in rows}
    return only_protocol(frame, protocol), list(names.values()), gap_notes(gaps(rows, frame, results), results.command)


def _show(found: Sequence[Group]) -> None:
    from rich.table import Table as Grid
    from rich.text import Text

    from eval.table import heading
    from irope.cli.wide import wide_console

    console = wide_console()
    for group in found:
        console.print(Text(f"A = {group.a}, B = {group.b}: {group.length}, {group.caption}"))
        grid = Grid()
        for column in ("", "A", "B", "A - B", "p (Holm)", "prompts", "A is"):
            grid.add_column(column, justify="left" if column in ("", "A is") else "right")
        for metric, (a, b, compared) in group.metrics.items():
            d, p = compared.paired.difference, compared.p_adjusted
            style = {"better": "bold green", "worse": "bold red"}.get(compared.verdict, "")
            cells = [
                f"{a.estimate:.4f}",
                f"{b.estimate:.4f}",
                d.text(4),
                f"{p:.2g}" if p == p else "–",
                str(d.clusters),
            ]
            grid.add_row(heading(metric), *map(Text, cells), Text(compared.verdict, style))
        console.print(grid)
    console.print(Text(FOOT))
