"""Every row of a table against a reference row: paired differences, with a verdict."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from eval.comparison import comparisons
from eval.table import Cell, Row, Table
from eval.table_cells import CellError, Name, fitting
from irope.settings import hint

AGAINST_NOTE = (
    "paired by prompt and seed, 95 % bootstrap interval over prompts (two rates: Agresti-Min), sign-flip test, Holm "
    "over the metrics of a row; tied: no difference shown, which does not show that they are equal; too few: nothing "
    "can be told from so few prompts; the interval is not corrected for the number of metrics"
)


def with_against(table: Table, frame: pd.DataFrame, reference: str, seed: int = 0) -> Table:
    """The table with `Comparison`s of every row with the reference row of its length.

    ``reference`` names one row of each length, or, where it fits several, the one that is like the row in every axis
    that they differ in (``kv_recache`` for each cache size, say).

    Raises:
        CellError: ``reference`` fits no row, or several of which none is like a row.
    """
    names = {row.label: Name(row.label, row.method, row.axes) for row in table.rows}
    choices = fitting(reference, names.values())
    if not choices:
        raise CellError(f"--against {reference!r} is no row of this table{hint(reference, names)}")
    rows = []
    for row in table.rows:
        other = _partner(row, choices, reference)
        if other.label == row.label:
            rows.append(row)
            continue
        both = frame[(frame["length"] == row.length) & frame["method"].isin([row.label, other.label])]
        groups = comparisons(both, row.label, other.label, seed, strict=False)
        found = {metric: compared for group in groups for metric, (_, _, compared) in group.metrics.items()}
        cells = {m: replace(row.cells.get(m, Cell()), against=found[m]) for m in table.metrics if m in found}
        rows.append(replace(row, cells={**row.cells, **cells}))
    shown = choices[0].label if len(choices) == 1 else reference
    return replace(
        table, rows=tuple(rows), reference=shown, notes=(*table.notes, f"reference: {shown}; {AGAINST_NOTE}")
    )


def _partner(row: Row, choices: list[Name], reference: str) -> Name:
    if len(choices) == 1:
        return choices[0]
    differing = [axis for axis in row.axes if len({str(choice.axes.get(axis)) for choice in choices}) > 1]
    same = [c for c in choices if all(str(c.axes.get(axis)) == str(row.axes.get(axis)) for axis in differing)]
    if len(same) > 1 and (own := [c for c in same if c.label == row.label]):
        return own[0]
    if len(same) != 1:
        raise CellError(
            f"--against {reference!r} may be {', '.join(c.label for c in choices)}; none or several of them are like "
            f"{row.label}: say more of the name"
        )
    return same[0]
