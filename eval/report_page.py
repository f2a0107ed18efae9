"""The page of a report: one HTML file that opens from disk, with pictures inside and videos beside it."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from eval.frame import title
from eval.report_facts import Standout, costs, provenance, ranked
from eval.results import Results
from eval.table import Table, better
from eval.table_grid import bounds, grid_of, legend
from irope.provenance import git_state, package_versions

if TYPE_CHECKING:
    import pandas as pd

    from eval.report import Report

SHOWN = 6
"""Worst and best videos."""
DIGITS = 3


def page(results: Results, report: Report, frame: pd.DataFrame) -> str:
    """HTML of the report; links are relative to its folder, and nothing of it needs JavaScript or a network."""
    from jinja2 import Environment, FileSystemLoader

    from eval.report import config_text

    videos, metrics = ranked(frame)
    count = min(SHOWN, len(videos) // 2)
    made = provenance(results)
    facts = {
        "results": results,
        "title": f"{results.name} {results.tier}".strip(),
        "embedded": results.model.startswith("tiny"),
        "planned": sum(len(cell.videos) for cell in results.cells),
        "missing": sum(results.missing.values()),
        "tables": [_table(report.table, "Table")]
        + ([_table(report.every, "All scores")] if report.every is not report.table else []),
        "pictures": [
            {"name": p.name, "caption": p.caption, "data": f"plots/{p.data.name}", "source": _inline(p.png)}
            for p in report.pictures
        ],
        "left_out": report.left_out,
        "gaps": report.gaps,
        "metrics": metrics,
        "groups": [
            ("The worst videos", [_card(video, report.folder) for video in videos[:count]]),
            ("The best videos", [_card(video, report.folder) for video in videos[::-1][:count]]),
        ]
        if count
        else [],
        "costs": costs(results),
        "makers": made["made by"],
        "configs": [(cell.label, config_text(results, cell.label)) for cell in results.cells],
        "git": git_state(),
        "packages": dict(package_versions()),
    }
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    return environment.get_template("report.html.j2").render(facts) + "\n"


def _table(table: Table, name: str) -> dict[str, Any]:
    """A table for the page: metrics across, or down where they are more than the rows."""
    grid = grid_of(table, DIGITS)
    lines = [(length, line) for length, group in grid.groups for line in group]
    cells = [
        [
            {
                "text": entry.text,
                "small": " ".join(part for part in (bounds(entry.bounds, DIGITS), entry.detail) if part),
                "best": entry.best,
                "kind": line.kind,
            }
            for entry in line.entries
        ]
        for _, line in lines
    ]
    heads = [(length, *line.head) for length, line in lines]
    names = ("length", *grid.head)
    turned = len(grid.columns) > len(lines)
    if turned:
        columns = [
            [f"{n}={x}" if n in ("n", *table.axes) else x for n, x in zip(names, head, strict=True)] for head in heads
        ]
        rows: list[tuple[Any, Any]] = [
            ((name,), of) for name, of in zip(grid.columns, zip(*cells, strict=True), strict=True)
        ]
    else:
        columns = [[name] for name in grid.columns]
        rows = [*zip(heads, cells, strict=True)]
    return {
        "title": name,
        "caption": grid.caption,
        "heads": ("",) if turned else names,
        "columns": columns,
        "rows": rows,
        "notes": [*grid.notes, *legend(grid, "bold")],
        "directed": any(better(metric) for metric in table.metrics),
    }


def _card(video: Standout, folder: Path) -> dict[str, Any]:
    source = ""
    if video.file.is_file():
        source = quote(Path(os.path.relpath(video.file.resolve(), folder.resolve())).as_posix())
    return {
        "video": video,
        "source": source,
        "worst": [f"{title(name)} {value:.{DIGITS}f}" for name, value in video.worst],
    }


def _inline(png: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}"
