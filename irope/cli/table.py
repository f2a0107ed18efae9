"""Print what was scored: a table for each protocol, with n and 95 % intervals.

irope table                                    the scores of results/runs
irope table my/videos --format markdown        or csv, json
irope table my/videos --aggregate videos       VBench's other ways to average: frames, clips
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eval.table import Table


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", nargs="?", default="results/runs", help="the folder that was scored")
    parser.add_argument("--format", choices=("text", "markdown", "csv", "json"), default="text")
    parser.add_argument("--aggregate", choices=("stock", "videos", "frames", "clips"), default="stock")
    parser.add_argument("--protocol", help="only this one")
    parser.add_argument("--digits", type=int, default=3)
    options = parser.parse_args(arguments)
    from eval.frame import load_frame
    from eval.table import as_csv, as_json, as_markdown, tables
    from irope.cli.scores_folder import only_protocol, scores_folder

    frame = only_protocol(load_frame(scores_folder(Path(options.path))), options.protocol)
    found = tables(frame, options.aggregate)
    match options.format:
        case "markdown":
            print("\n\n".join(as_markdown(table, options.digits) for table in found))
        case "csv":
            print(as_csv(found), end="")
        case "json":
            print(as_json(found))
        case _:
            for table in found:
                _show(table, options.digits)
    return 0


def _show(table: Table, digits: int) -> None:
    """On a terminal a table is turned: metrics are many and names long, methods and lengths are few."""
    from rich.table import Table as Grid
    from rich.text import Text

    from eval.table import heading
    from irope.cli.wide import wide_console

    console = wide_console()
    grid = Grid(title=table.caption, title_justify="left")
    grid.add_column("")
    for (length, method), row in table.rows.items():
        grid.add_column(f"{method}\n{length}, n={max(cell.interval.n for cell in row.values())}", justify="right")
    for metric in table.metrics:
        cells = [row.get(metric) for row in table.rows.values()]
        texts = [
            Text("–  ") if c is None else Text(c.text(digits) + (" *" if c.best else "  "), "bold" if c.best else "")
            for c in cells
        ]
        grid.add_row(heading(metric), *texts)
    console.print(grid)
    for note in table.notes:
        console.print(Text(f"  {note}"))
    drawn = {cell.interval.method for row in table.rows.values() for cell in row.values()}
    if drawn - {"range", "one prompt", "no values"}:
        console.print(Text("  (low–high): 95 % interval over prompts"))
    if "range" in drawn:
        console.print(Text("  [low–high]: the range of the prompts, too few for an interval"))
    if any(cell.best for row in table.rows.values() for cell in row.values()):
        console.print(Text("  *: best of its length; whether a difference is shown says irope compare"))
    console.print()
