"""The report of an experiment: a folder with its tables, plots, provenance and a page to open.

A pure function of what is on disk: delete the folder, and the same command makes it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from eval.experiment_table import Gap, experiment_frame, experiment_rows, experiment_table, gaps
from eval.frame import ordered_metrics
from eval.report_facts import provenance
from eval.results import Results
from eval.table import Table, with_overall
from irope.provenance import write_atomic, write_json_atomic


@dataclass(frozen=True)
class Picture:
    """A plot: its files are ``plots/NAME.*``; ``data`` names the numbers that were drawn."""

    name: str
    caption: str
    png: Path
    data: Path


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        table: the table as the paper prints it; ``every`` has a column for each metric.
        left_out: why a kind of plot could not be drawn.
        files: name -> file, of all that the results say, for the artifact; the page is not among them.
    """

    folder: Path
    table: Table
    every: Table
    gaps: tuple[Gap, ...]
    pictures: tuple[Picture, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


def write_report(results: Results, folder: Path, say: Callable[[str], None] = lambda _: None) -> Report:
    """Write tables (Markdown, CSV, JSON, LaTeX), ``plots/``, ``provenance.json`` and ``index.html`` into ``folder``.

    Raises:
        UserError: nothing was scored yet, or scores that cannot stand in one table.
        OSError: it cannot be written; no file is half there.
    """
    from eval.report_page import page

    frame = experiment_frame(results)
    table = experiment_table(results)
    metrics = ordered_metrics(with_overall(frame))
    every = table if set(metrics) == set(table.metrics) else experiment_table(results, columns=metrics)
    folder.mkdir(parents=True, exist_ok=True)
    lacking = tuple(gaps(experiment_rows(results, frame), frame, results))
    texts = _tables(results, table, every)
    for name, text in texts.items():
        write_atomic(folder / name, text.encode())
    write_json_atomic(folder / "provenance.json", provenance(results))
    say(f"tables, {len(every.rows)} rows")
    pictures, left_out = _plots(results, folder / "plots")
    say(f"plots, {len(pictures)}")
    files = {name: folder / name for name in (*texts, "provenance.json")}
    for picture in pictures:
        files |= {f"plots/{path.name}": path for path in (picture.png, picture.data)}
    report = Report(folder, table, every, lacking, pictures, left_out, files)
    write_atomic(folder / "index.html", page(results, report, frame).encode())
    return report


def _tables(results: Results, table: Table, every: Table) -> dict[str, str]:
    from eval.table_formats import as_csv, as_json, as_markdown
    from eval.table_grid import grid_of
    from eval.table_latex import as_latex

    title = f"# {results.name} {results.tier}".rstrip()
    markdown = [title, results.description, as_markdown(table)]
    if every is not table:
        markdown += ["## All scores", as_markdown(every)]
    return {
        "table.md": "\n\n".join(part for part in markdown if part) + "\n",
        "table.csv": as_csv([every]),
        "table.json": as_json([every]) + "\n",
        "table.tex": as_latex(grid_of(table), results.name) + "\n",
    }


def _plots(results: Results, folder: Path) -> tuple[tuple[Picture, ...], dict[str, str]]:
    """Draw what the results have data for; what `irope plot` wrote there besides stays."""
    from eval.plots.all import draw
    from eval.plots.plot import save

    drawn = draw(results)
    save(drawn.plots, folder)
    return tuple(
        Picture(plot.name, plot.caption, folder / f"{plot.name}.png", folder / f"{plot.name}.csv")
        for plot in drawn.plots
    ), drawn.left_out


def config_text(results: Results, label: str) -> str:
    """The public configuration of a cell, as JSON."""
    from eval.wandb_content import public_config

    config = next(cell.config for cell in results.cells if cell.label == label)
    return json.dumps(public_config(config), indent=1, ensure_ascii=False, default=str)
