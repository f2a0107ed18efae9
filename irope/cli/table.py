"""Print what was scored: means with 95 % intervals and n, the paper's numbers beside them, the videos behind a number.

irope table delta_ablation tier=quick              an experiment, in its order, gaps and paper included
irope table table1 --against infinity_rope         every row against one: paired, Holm over metrics
irope table table1 --why "kv_recache:subject:60"   the videos behind a cell, worst first, and how to make each again
irope table table1 --format latex --out t1.tex     or markdown, csv, json
irope table my/videos                              any folder that was scored; without a name: results/runs
irope table my/videos --aggregate videos           VBench's other ways to average: frames, clips
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irope.errors import UserError

if TYPE_CHECKING:
    from eval.results import Results
    from eval.table import Table


def run(arguments: Sequence[str]) -> int:
    options = _parser().parse_intermixed_args(arguments)
    if options.digits < 0:
        raise UserError(f"--digits {options.digits}: expected 0 or more")
    from irope.cli.measure import measurement
    from irope.cli.scores_folder import only_protocol, results_or_folder, scores_folder

    words = options.name or ["results/runs"]
    if (measured := measurement(words)) is not None and measured[1].with_suffix(".md").is_file():
        print(measured[1].with_suffix(".md").read_text(encoding="utf-8"), end="")
        return 0
    name, results = words[0], results_or_folder([*words, *(["-m"] if options.multirun else [])])
    if options.why:
        if results is None:
            raise UserError(f"--why needs an experiment, whose videos are known; {name} is a folder")
        text = _why(results, options)
    elif results is None:
        for option in ("published", "against", "columns", "common"):
            if getattr(options, option):
                raise UserError(f"--{option} needs an experiment; {name} is a folder")
        from eval.frame import load_frame
        from eval.table import tables

        frame = only_protocol(load_frame(scores_folder(Path(name))), options.protocol)
        text = _tables(tables(frame, options.aggregate), [], options)
    else:
        from eval.experiment_table import experiment_table

        if options.protocol:
            raise UserError(f"--protocol is for folders; for an experiment: irope table {name} protocol=...")
        table = experiment_table(
            results,
            options.aggregate,
            columns=options.columns.split(",") if options.columns else (),
            against=options.against,
            common=options.common,
        )
        text = _tables([table], list(results.published) if options.published else [], options)
    if options.out:
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        Path(options.out).write_text(text, encoding="utf-8")
        print(f"wrote {options.out}")
    else:
        print(text, end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="irope table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "name", nargs="*", help="an experiment with settings (tier=quick key=value), or a folder that was scored"
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="settings may sweep: key=a,b")
    parser.add_argument("--format", choices=("text", "markdown", "latex", "csv", "json"), default="text")
    parser.add_argument("--out", metavar="FILE", help="write it there")
    parser.add_argument("--digits", type=int, default=3)
    parser.add_argument("--columns", metavar="A,B", default="", help="these metrics, in this order")
    parser.add_argument("--against", metavar="ROW", default="", help="the difference of every row from this one")
    parser.add_argument("--why", metavar="CELL", default="", help="ROW:METRIC:SECONDS, as much as leaves no doubt")
    parser.add_argument("--published", action="store_true", help="the paper's own tables below, as printed")
    parser.add_argument("--common", action="store_true", help="average only over videos that all rows have")
    parser.add_argument("--standalone", action="store_true", help="LaTeX: a document that compiles by itself")
    parser.add_argument("--aggregate", choices=("stock", "videos", "frames", "clips"), default="stock")
    parser.add_argument("--protocol", help="only this one (of a folder)")
    return parser


def _tables(found: Sequence[Table], published: Sequence[str], options: argparse.Namespace) -> str:
    """The tables in the wanted format, then the published ones by themselves."""
    from eval.table_formats import as_csv, as_json, grid_markdown, published_records
    from eval.table_grid import grid_of, published_grid
    from eval.table_latex import as_latex, standalone
    from eval.table_published import named

    digits = options.digits
    if options.format == "csv":
        return as_csv(found, published_records(published))
    if options.format == "json":
        return as_json(found, published_records(published)) + "\n"
    names = [table.name.partition(",")[0] or f"{table.protocol}-{table.model}" for table in found]
    grids = [*zip(names, (grid_of(table, digits) for table in found), strict=True)]
    grids += [(f"published-{name}", published_grid(named(name))) for name in published]
    if options.format == "markdown":
        return "\n\n".join(grid_markdown(grid, digits) for _, grid in grids) + "\n"
    if options.format == "latex":
        made = [as_latex(grid, name, digits) for name, grid in grids]
        return standalone(*made) if options.standalone else "\n\n".join(made) + "\n"
    from irope.cli.table_text import print_grid
    from irope.cli.wide import wide_console

    console = wide_console()
    if options.out:
        with console.capture() as captured:
            for _, grid in grids:
                print_grid(console, grid, digits)
        return captured.get()
    for _, grid in grids:
        print_grid(console, grid, digits)
    return ""


def _why(results: Results, options: argparse.Namespace) -> str:
    import json

    from eval.frame import title
    from eval.table import OVERALL
    from eval.table_why import videos_behind

    found = videos_behind(results, options.why)
    if options.format == "json":
        return json.dumps([video.record() for video in found.videos], indent=1, ensure_ascii=False) + "\n"
    if options.format != "text":
        raise UserError(f"--why with --format {options.format}: expected text or json")
    cell = found.cell
    known = sum(not video.skipped for video in found.videos)
    name = f"{results.name}, {cell.label}, {OVERALL.get(cell.metric, title(cell.metric))}, {cell.length}"
    lines = [f"{name}: {known} of {len(found.videos)} videos, {found.order}"]
    for video in found.videos:
        score = f"{video.value:.4f}" if not video.skipped else f"–  ({video.skipped})"
        lines += [f"{score}  {video.prompt}, seed {video.seed}", f"        {video.file}", f"        {video.command}"]
    return "\n".join(lines) + "\n"
