"""Tables as Markdown, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from eval.published import published_frame
from eval.published_file import ORIGIN
from eval.stats import Interval
from eval.table import Cell, Row, Table
from eval.table_grid import Entry, Grid, bounds, grid_of, legend

Record = dict[str, Any]


def as_markdown(table: Table, digits: int = 3) -> str:
    """A Markdown table; the best of a column in bold, n beside the method."""
    return grid_markdown(grid_of(table, digits), digits)


def grid_markdown(grid: Grid, digits: int = 3) -> str:
    head = [*(["length"] if grid.ours else []), *grid.head, *grid.columns]
    lines = [f"| {' | '.join(map(_cell, head))} |", f"|{' --- |' * len(head)}"]
    for length, group in grid.groups:
        for line in group:
            first = [length] if grid.ours else []
            texts = [*first, *line.head, *(_entry(entry, digits) for entry in line.entries)]
            lines.append(f"| {' | '.join(map(_cell, texts))} |")
    notes = [*grid.notes, *legend(grid, "bold")]
    return "\n".join([grid.caption, "", *lines, *(f"\n{note}" for note in notes)])


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _entry(entry: Entry, digits: int) -> str:
    text = " ".join(part for part in (entry.text, bounds(entry.bounds, digits)) if part)
    return " ".join(part for part in (f"**{text}**" if entry.best else text, entry.detail) if part)


def as_records(table: Table) -> list[Record]:
    """A record for each cell, JSON types; NaN becomes None. ``origin`` is "ours"; a published number has a field of its

    own, so that nobody averages it with ours.
    """
    return [
        _record(table, row, metric, row.cells[metric])
        for row in table.rows
        for metric in table.metrics
        if metric in row.cells
    ]


def _record(table: Table, row: Row, metric: str, cell: Cell) -> Record:
    record: Record = {
        "origin": "ours",
        "protocol": table.protocol,
        "model": table.model,
        "length": row.length,
        "method": row.label,
    }
    record |= {axis: row.axes.get(axis) for axis in table.axes}
    record |= {"metric": metric, **_bounds(cell.interval), "n": cell.interval.n, "prompts": cell.interval.clusters}
    if row.planned is not None:
        record["planned"] = row.planned
    if known := cell.published:
        ours = cell.interval.estimate
        record |= {
            "published": known.value,
            "published_table": known.table,
            "published_row": known.model,
            "difference": _finite(ours - known.value) if known.comparable else None,
            "published_inside": known.inside(cell.interval) if known.comparable else None,
        }
    if cell.against:
        found = cell.against.paired.difference
        record |= {
            "against": table.reference,
            "against_difference": _finite(found.estimate),
            "against_low": _finite(found.low),
            "against_high": _finite(found.high),
            "against_pairs": found.n,
            "against_p_holm": _finite(cell.against.p_adjusted),
            "verdict": cell.against.verdict,
        }
    return record


def _bounds(interval: Interval) -> Record:
    return {
        "mean": _finite(interval.estimate),
        "low": _finite(interval.low),
        "high": _finite(interval.high),
        "interval": interval.method,
    }


def published_records(names: Sequence[str]) -> list[Record]:
    """The numbers of published tables, ``origin`` "published"; they have no ``mean``."""
    frame = published_frame()
    found = frame[frame["table"].isin(names)]
    return [
        {
            "origin": ORIGIN,
            "protocol": row["protocol"],
            "published_table": row["table"],
            "published_row": row["model"],
            "length": "" if np.isnan(row["seconds"]) else f"{row['seconds']:g} s",
            "setting": row["setting"],
            "metric": row["metric"],
            "published": row["value"],
            "source": row["source"],
        }
        for row in found.to_dict("records")
    ]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def as_json(found: Sequence[Table], more: Sequence[Record] = ()) -> str:
    return json.dumps([*_records(found), *more], indent=1, ensure_ascii=False)


def as_csv(found: Sequence[Table], more: Sequence[Record] = ()) -> str:
    return pd.DataFrame([*_records(found), *more]).to_csv(index=False)


def _records(found: Sequence[Table]) -> list[Record]:
    return [record for table in found for record in as_records(table)]
