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

FOOT = """  A - B: mean over the prompts that both have, with its 95 % interval; p: sign-flip test, Holm over metrics
  tied: no difference shown, which does not show that they are equal; too few: below 8 prompts nothing is said"""


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

    from rich.table import Table as Grid
    from rich.text import Text

    from eval.comparison import comparisons
    from eval.frame import load_frame
    from eval.table import heading
    from irope.cli.scores_folder import only_protocol, scores_folder
    from irope.cli.wide import wide_console

    frame = only_protocol(load_frame(scores_folder(Path(options.path))), options.protocol)
    found = comparisons(frame, options.a, options.b)
    if options.json:
        print(json.dumps([record for group in found for record in group.records()], indent=1, ensure_ascii=False))
        return 0
    console = wide_console()
    for group in found:
        caption = f"A = {options.a}, B = {options.b}: {group.length}, {group.caption}"
        grid = Grid(title=caption, title_justify="left")
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
    return 0
