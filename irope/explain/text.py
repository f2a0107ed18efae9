"""Rows as an aligned table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from irope.explain.rows import Gap, Row, condense, grouped, spans, unit_of
from irope.policy import CacheEvent, PageId

EVENT_MARKS = {CacheEvent.PROMPT_SWITCH: "◆", CacheEvent.SCENE_CUT: "✂"}
LEGEND = "[sink]  past  | new block        18' encoded again at this block        names are memory pages"


def columns(row: Row) -> tuple[str, str]:
    """(frames, indices), both as '[sink] past | new block'."""
    return (
        _written(row, row.plan.read, row.frames, again="'"),
        _written(row, row.plan.key_index, row.plan.query_index, again=""),
    )


def _written(row: Row, pages: Sequence[PageId], new: Sequence[int], again: str) -> str:
    parts = []
    for role, cells in groupby(zip(row.roles, pages, strict=True), key=lambda cell: cell[0]):
        text = spans(page for _, page in cells)
        if role == "recomputed":
            text = " ".join(word + again for word in text.split())
        parts.append(f"[{text}]" if role == "sink" else text)
    return " ".join([*parts, "|", spans(new)])


def _marked(row: Row) -> str:
    mark = EVENT_MARKS.get(row.event, "")
    return f"{mark} {', '.join([*row.notes, *([row.warning] if row.warning else [])])}".strip()


def table_of(header: Sequence[str], lines: Sequence[Sequence[str] | str]) -> str:
    """Aligned columns; a plain string is a line of its own."""
    cells = [header, *(line for line in lines if not isinstance(line, str))]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    out = []
    for line in [header, *lines]:
        if not isinstance(line, str):
            line = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        out.append(line.rstrip())
    return "\n".join(out)


def _beyond(rows: Sequence[Row]) -> str | None:
    """A word on indices that leave the trained range while their distances stay inside."""
    out = [row for row in rows if max(row.plan.key_index + row.plan.query_index) >= row.horizon]
    if not out or any(row.reach >= row.horizon for row in out):
        return None
    return (
        f"Indices leave the trained 0..{out[0].horizon - 1} from {unit_of(rows)} {out[0].label} on, distances do not; "
        "only distances matter to attention."
    )


def render_text(rows: Sequence[Row], title: str = "", full: bool = False) -> str:
    """An aligned table for a terminal; with ``full`` no stretch is left out."""
    groups = grouped(rows)
    unit = unit_of(rows)
    lines: list[Sequence[str] | str] = []
    for item in groups if full else condense(groups):
        if isinstance(item, Gap):
            lines.append(f"  ⋮    {item.labels}: {item.summary}")
        else:
            lines += [(row.label if row is item[0] else "", *columns(row), _marked(row)) for row in item]
    table = table_of((unit, "frames attended", "temporal index", ""), lines)
    beyond = _beyond(rows)
    return "\n".join([*([title, ""] if title else []), table, "", LEGEND, *([beyond] if beyond else [])])
