"""Tables on a terminal: as many metrics beside each other as it is wide, the rest below, each time with the methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from eval.table_grid import Entry, Grid, Line

GAP = 2
LEAST = 12
"""Columns are at least so wide if their heading is, lest it takes many lines."""


def print_grid(console: Console, grid: Grid, digits: int) -> None:
    """Print a grid in panels that fit the console, then its notes and what its marks mean."""
    from rich.padding import Padding
    from rich.text import Text

    from eval.table_grid import legend

    console.print(Text(grid.caption, "bold"))
    heads = [max([*map(len, [name, *(line.head[i] for line in _all(grid))])]) for i, name in enumerate(grid.head)]
    widths = [_width(grid, i, digits) for i in range(len(grid.columns))]
    left = console.width - sum(width + GAP for width in heads)
    for panel in _panels(widths, left):
        _print_panel(console, grid, panel, digits)
    for note in [*grid.notes, *legend(grid, "*")]:
        console.print(Padding(Text(note, "dim"), (0, 0, 0, GAP)))
    console.print()


def _all(grid: Grid) -> list[Line]:
    return [line for _, lines in grid.groups for line in lines]


def _text(entry: Entry, digits: int) -> list[str]:
    from eval.table_grid import bounds

    first = entry.text + (" *" if entry.best else "")
    return [line for line in (first, bounds(entry.bounds, digits), entry.detail) if line]


def _width(grid: Grid, column: int, digits: int) -> int:
    """Of the longest line of a column; a heading may break at its spaces."""
    lines = [text for line in _all(grid) for text in _text(line.entries[column], digits)]
    heading = _heading(grid.columns[column])
    return max(map(len, [*lines, *heading.split(" "), heading[:LEAST]]), default=1)


def _heading(name: str) -> str:
    """The arrow stays with the last word."""
    return name.replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓")


def _panels(widths: list[int], room: int) -> list[list[int]]:
    """Columns in their order, as many in each panel as there is room for, at least one."""
    panels: list[list[int]] = [[]]
    used = 0
    for column, width in enumerate(widths):
        if panels[-1] and used + width + GAP > room:
            panels.append([])
            used = 0
        panels[-1].append(column)
        used += width + GAP
    return panels


def _print_panel(console: Console, grid: Grid, panel: list[int], digits: int) -> None:
    from rich import box
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for i, name in enumerate(grid.head):  # the box puts a space of its own between columns
        drawn.add_column(Text(name), justify="left" if i == 0 or not grid.ours else "right", no_wrap=True)
    for column in panel:
        drawn.add_column(Text(_heading(grid.columns[column])), width=_width(grid, column, digits))
    for length, lines in grid.groups:
        if length:
            drawn.add_row(Text(length, "bold"))
        for line in lines:
            if line.kind != "ours" and not any(line.entries[column].text for column in panel):
                continue
            entries = [_shown(line.entries[column], digits) for column in panel]
            drawn.add_row(*map(Text, line.head), *entries, style="" if line.kind == "ours" else "cyan")
        drawn.add_section()
    console.print(drawn)
    console.print()


def _shown(entry: Entry, digits: int) -> Text:
    from rich.text import Text

    first, *rest = _text(entry, digits) or [""]
    text = Text(first, "bold" if entry.best else "")
    for line in rest:
        text.append(f"\n{line}", "dim not bold")
    return text
