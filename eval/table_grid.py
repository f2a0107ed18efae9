"""A table as lines of text cells, before any format: what is ours, published, their difference, the difference from a

reference row. Terminal, Markdown and LaTeX print the same grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from eval.published_file import PublishedTable
from eval.stats import Interval
from eval.table import Cell, Row, Table
from eval.table_published import OWN_WEIGHTS, decimals

Kind = Literal["ours", "published", "difference", "against"]


@dataclass(frozen=True)
class Entry:
    """One cell: the number, what stands below it (an interval, n), and whether it is the best of its column."""

    text: str = ""
    bounds: Interval | None = None
    detail: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a group: the first columns as text, then an entry for each of the others."""

    kind: Kind
    head: tuple[str, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Grid:
    """A table to print: ``groups`` holds (length, lines); ``head`` and ``columns`` are headings."""

    caption: str
    head: tuple[str, ...]
    columns: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Line, ...]], ...]
    notes: tuple[str, ...]
    ours: bool = True

    def entries(self) -> Iterator[Entry]:
        return (entry for _, lines in self.groups for line in lines for entry in line.entries)

    def kinds_of_bounds(self) -> set[str]:
        """Of what methods the intervals are, for the legend."""
        return {entry.bounds.method for entry in self.entries() if entry.bounds is not None}


def grid_of(table: Table, digits: int = 3) -> Grid:
    """The lines of a table of ours, grouped by length."""
    groups = []
    for length in dict.fromkeys(row.length for row in table.rows):
        lines = [line for row in table.rows if row.length == length for line in _lines(row, table, digits)]
        groups.append((length, tuple(lines)))
    head = ("method", *table.axes, "n")
    return Grid(table.caption, head, tuple(map(table.heading, table.metrics)), tuple(groups), table.notes)


def published_grid(table: PublishedTable) -> Grid:
    """A published table by itself, its numbers as printed."""
    width = len(table.keys) if table.kind == "scores" else 1
    names = [*table.keys, *table.columns] if table.kind == "scores" else list(table.columns)
    digits = [max((decimals(row[i]) for row in table.rows), default=0) for i in range(len(table.rows[0]))]
    lines = []
    for row in table.rows:
        texts = [
            _printed(value, d) if i >= width or value is None else _plain(value)
            for i, (value, d) in enumerate(zip(row, digits, strict=True))
        ]
        entries = tuple(Entry(text) for text in texts[width:])
        lines.append(Line("published", tuple(texts[:width]), entries))
    head, columns = names[:width], [name.replace("_", " ") for name in names[width:]]
    return Grid(
        f"PUBLISHED, not ours: {table.title}",
        tuple(head),
        tuple(columns),
        (("", tuple(lines)),),
        (table.footnote(),),
        False,
    )


def _printed(value: object, digits: int) -> str:
    """A published number with the zeros at its end that the file does not keep."""
    return "–" if value is None else f"{value:.{digits}f}" if isinstance(value, int | float) else str(value)


def _plain(value: object) -> str:
    """A setting as it is written in a configuration."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _lines(row: Row, table: Table, digits: int) -> Iterator[Line]:
    cells = [row.cells.get(metric, Cell()) for metric in table.metrics]
    axes = tuple(_plain(row.axes.get(axis, "")) for axis in table.axes)
    blank = ("",) * (len(axes) + 1)
    yield Line("ours", (row.method, *axes, str(row.n)), tuple(_ours(cell, row.n, digits) for cell in cells))
    if any(cell.published for cell in cells):
        names = {cell.published.model for cell in cells if cell.published}
        mark = "†" if row.method in OWN_WEIGHTS else ""
        yield Line("published", (f"published, {'/'.join(sorted(names))}{mark}", *blank), tuple(map(_published, cells)))
        if any(_difference(cell, digits).text for cell in cells):
            yield Line("difference", ("ours − published", *blank), tuple(_difference(cell, digits) for cell in cells))
    if any(cell.against for cell in cells):
        yield Line("against", ("− reference", *blank), tuple(_against(cell, digits) for cell in cells))


def _ours(cell: Cell, n: int, digits: int) -> Entry:
    found = cell.interval
    if math.isnan(found.estimate):
        return Entry("–")
    own = "" if found.n in (0, n) else f"n={found.n}"
    return Entry(f"{found.estimate:.{digits}f}", found, own, cell.best)


def _published(cell: Cell) -> Entry:
    known = cell.published
    return Entry() if known is None else Entry(f"{known.value:.{known.digits}f}")


def _difference(cell: Cell, digits: int) -> Entry:
    known, ours = cell.published, cell.interval
    if known is None or not known.comparable or math.isnan(ours.estimate):
        return Entry()
    inside = known.inside(ours)
    word = "" if inside is None else " in" if inside else " out"
    return Entry(f"{signed(ours.estimate - known.value, digits)}{word}")


def _against(cell: Cell, digits: int) -> Entry:
    if cell.against is None:
        return Entry()
    found = cell.against.paired.difference
    if math.isnan(found.estimate):
        return Entry(cell.against.verdict)
    return Entry(f"{signed(found.estimate, digits)} {cell.against.verdict}", found)


def signed(value: float, digits: int) -> str:
    """``+0.012`` or ``−0.012``, never ``−0.000``."""
    text = f"{abs(value):.{digits}f}"
    return ("−" if value < 0 and float(text) else "+") + text


def bounds(interval: Interval | None, digits: int) -> str:
    """``(0.90–0.95)`` for a 95 % interval, ``[0.90–0.95]`` for the range of too few prompts, else nothing."""
    if interval is None or interval.method in ("one prompt", "constant", "no values"):
        return ""
    return interval.text(digits).partition(" ")[2].replace("-", "−")


def legend(grid: Grid, best: str, round_: str = "(low–high)", square: str = "[low–high]") -> list[str]:
    """What the marks of a format mean, of those that are in the grid."""
    kinds = grid.kinds_of_bounds()
    lines = []
    if kinds & {"expanded BCa", "BCa", "Wilson", "Agresti-Min"}:
        lines.append(f"{round_}: 95 % interval over prompts (bootstrap; rates: Wilson)")
    if "range" in kinds:
        lines.append(f"{square}: the range of the prompts, too few for an interval")
    if "constant" in kinds:
        lines.append("a number alone: all prompts score the same")
    if "one prompt" in kinds:
        lines.append("a number alone is of one prompt and says nothing of others")
    if any(entry.best for entry in grid.entries()):
        lines.append(f"{best}: best of its length; whether a difference is shown says irope compare or --against")
    return lines
