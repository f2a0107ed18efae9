"""Is method A better than method B? Differences on the prompts that both have, for every metric.

    irope compare infinity_rope kv_recache                     in results/runs
    irope compare infinity_rope kv_recache my/videos           in another folder that was scored

Videos are paired by prompt and seed; intervals are bootstrapped over prompts; p-values are corrected for the number of
metrics (Holm). "tied" means that no difference was shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="A", help="a method, as irope table names it")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument("path", nargs="?", default="results/runs", help="the folder that was scored")
    parser.add_argument("--protocol", help="only this one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    import json

    from rich.console import Console
    from rich.table import Table as Grid

    from eval.comparison import comparisons
    from eval.frame import load_frame
    from eval.table import heading
    from irope.cli.scores_folder import only_protocol, scores_folder

    frame = only_protocol(load_frame(scores_folder(Path(options.path))), options.protocol)
    found = comparisons(frame, options.a, options.b)
    if options.json:
        print(json.dumps([record for group in found for record in group.records()], indent=1, ensure_ascii=False))
        return 0
    console = Console()
    for group in found:
        caption = f"A = {options.a}, B = {options.b}: {group.length}, protocol {group.protocol}"
        grid = Grid(title=caption, title_justify="left", show_lines=False)
        for column in ("", "A", "B", "A is"):
            grid.add_column(column)
        grid.add_column("A - B, and why", overflow="fold")
        for metric, (a, b, compared) in group.metrics.items():
            grid.add_row(heading(metric), a.text(3), b.text(3), compared.verdict, compared.sentence)
        console.print(grid)
    return 0
