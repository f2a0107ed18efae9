"""Naming a row, a metric and a length of a table with as little as is unambiguous."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.frame import length_name, title
from eval.table import Table
from irope.errors import UserError
from irope.settings import hint

OVERALL_NAMES = {"quality": "quality (Overall)"}


class CellError(UserError, ValueError):
    """A name fits no row, metric or length, or several; says which there are."""


@dataclass(frozen=True)
class Name:
    """A row's names: ``infinity_rope@cut_delta=6``, ``infinity_rope``, ``{"cut_delta": 6}``."""

    label: str
    method: str
    axes: Mapping[str, Any] = field(default_factory=dict)

    def atoms(self) -> set[str]:
        """What names it in part: its method, every setting, and the parts of its label."""
        settings = {f"{axis}={value}" for axis, value in self.axes.items()}
        return {plain(text) for text in {self.method, *settings, *_split(self.label)}}


def plain(text: str) -> str:
    """Without case, spaces, hyphens and underscores, for comparing."""
    return re.sub(r"[\s_-]", "", text).casefold()


def _split(text: str) -> list[str]:
    return [part for part in re.split(r"[@,]", text) if part]


def fitting(text: str, names: Iterable[Name]) -> list[Name]:
    """The rows that ``text`` may mean: that of exactly this label; else those that have every part of it
    (``infinity_rope@cut_delta=6``, ``cut_delta=6``); else those whose label holds every part somewhere (``delta=6``,
    ``infinity``). A value is never shortened: ``cut_delta=9`` is not 90."""
    known = list(names)
    if exact := [name for name in known if plain(name.label) == plain(text)]:
        return exact
    parts = [plain(part) for part in _split(text)]
    if whole := [name for name in known if parts and all(part in name.atoms() for part in parts)]:
        return whole
    return [name for name in known if parts and all(_holds(name, part) for part in parts)]


def _holds(name: Name, part: str) -> bool:
    if "=" not in part:
        return part in plain(name.label)
    axis, _, value = part.partition("=")
    return any(axis in atom.partition("=")[0] and value == atom.partition("=")[2] for atom in name.atoms())


def one_row(text: str, names: Iterable[Name], what: str = "method") -> Name:
    """The one row that ``text`` means.

    Raises:
        CellError: none or several fit; with the nearest names.
    """
    known = list(names)
    found = fitting(text, known)
    if len(found) == 1:
        return found[0]
    if not found:
        raise CellError(f"no scores of {what} {text!r}{hint(text, [name.label for name in known])}")
    raise CellError(f"{text!r} may be {', '.join(name.label for name in found)}: say more of the name")


@dataclass(frozen=True)
class CellName:
    """One cell of a table."""

    label: str
    metric: str
    length: str


def find_cell(text: str, table: Table) -> CellName:
    """The cell that ``text`` names by parts between colons, in any order: a row, a metric, a length.

    ``infinity_rope@cut_delta=6:feature_consistency:40``; ``cut_delta=6:feature`` is enough where it leaves no doubt.
    A row is named as in `fitting`, a metric by its name or heading or the beginning or any part of it, a length in
    seconds. What is not named must be the only one of its kind in the table.

    Raises:
        CellError: a part fits nothing, or what is named leaves several; says what there is.
    """
    names = [Name(row.label, row.method, row.axes) for row in {row.label: row for row in table.rows}.values()]
    lengths = list(dict.fromkeys(row.length for row in table.rows))
    rows, metrics, at = names, list(table.metrics), lengths
    for part in (part.strip() for part in text.split(":")):
        if not part:
            continue
        if found := _lengths(part, lengths):
            at = [length for length in at if length in found]
        elif found := _metrics(part, table, exact=True):
            metrics = [metric for metric in metrics if metric in found]
        elif of := fitting(part, names):
            rows = [name for name in rows if name in of]
        elif found := _metrics(part, table, exact=False):
            metrics = [metric for metric in metrics if metric in found]
        else:
            raise CellError(_nothing(part, [name.label for name in names], table.metrics, lengths))
    rows = [name for name in rows if any(row.label == name.label and row.length in at for row in table.rows)]
    label = _only("row", [name.label for name in rows], text)
    at = [length for length in at if any((row.label, row.length) == (label, length) for row in table.rows)]
    shown = {OVERALL_NAMES.get(metric, metric): metric for metric in metrics}
    return CellName(label, shown[_only("metric", list(shown), text)], _only("length", at, text))


def _lengths(part: str, lengths: Sequence[str]) -> list[str]:
    seconds = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|sec|seconds)?", part)
    wanted = length_name(float(seconds[1])) if seconds else part
    return [length for length in lengths if length == wanted]


def _metrics(part: str, table: Table, exact: bool) -> list[str]:
    names = {m: {plain(m), plain(title(m)), plain(table.heading(m).rstrip(" ↑↓°"))} for m in table.metrics}
    wanted = plain(part)
    if exact:
        return [metric for metric, known in names.items() if wanted in known]
    for fits in (str.startswith, str.__contains__):
        if found := [metric for metric, known in names.items() if any(fits(name, wanted) for name in known)]:
            return found
    return []


def _only(what: str, found: Sequence[str], text: str) -> str:
    if len(found) == 1:
        return found[0]
    if not found:
        raise CellError(f"{text!r}: no {what} is all of this at once")
    raise CellError(f"{text!r} leaves several {what}s, add one: {', '.join(found)}")


def _nothing(part: str, labels: Sequence[str], metrics: Sequence[str], lengths: Sequence[str]) -> str:
    near = difflib.get_close_matches(part, [*labels, *metrics, *lengths], n=2, cutoff=0.5)
    guess = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    there = f"rows: {', '.join(labels)}; metrics: {', '.join(metrics)}; lengths: {', '.join(lengths)}"
    return f"{part!r} is no row, metric or length of this table{guess}\n  {there.replace('; ', chr(10) + '  ')}"
