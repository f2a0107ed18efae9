"""What a paper prints, beside ours where that is honest: same protocol, a 1.3B model, the same method and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eval.overall import TEMPORAL_SMOOTHNESS
from eval.published import SAME_ROWS
from eval.published import tables as published_tables
from eval.published_file import PublishedError, PublishedTable, plain
from eval.stats import Interval
from eval.table import Cell, Row, Table
from irope.settings import hint

PAPER_NAMES = {
    "aesthetic_quality": "Aes",
    "background_consistency": "Bg",
    "dynamic_degree": "DD",
    "imaging_quality": "Img",
    "motion_smoothness": "Mot",
    "subject_consistency": "Subj",
    "temporal_flickering": "Flick",
    "quality": "Overall",
    "overall_without_dynamic": "Overall w/o DD",
}
"""The columns of the ∞-RoPE paper's Tables 1 and 2 in their order, and the one we put beside the last."""
SMOOTHNESS_NAMES = {"motion_smoothness": "Temp. smooth. (Mot)", "temporal_flickering": "Temp. smooth. (Flick)"}
STUDY_NAMES = {
    "rating_text_alignment": "Study: text",
    "rating_subject": "Study: subject",
    "rating_motion": "Study: motion",
    "rating_quality": "Study: quality",
}
OWN_WEIGHTS = frozenset({"causvid", "rolling_forcing", "kv_recache", "longlive"})
"""Methods whose published rows are of a generator with weights of its own besides the cache policy."""


@dataclass(frozen=True)
class Published:
    """One printed number in the units of ours.

    Attributes:
        value: 0..1 where ours is; ``half`` is half a unit of its last printed digit, so .98 stands for .975 to .985.
        digits: decimals of ``value``; ``model`` is the paper's name of the row.
        comparable: whether ours measures the same; ratings by people stand beside ours without a difference.
    """

    table: str
    model: str
    value: float
    digits: int
    comparable: bool = True

    @property
    def half(self) -> float:
        return 0.5 * 10.0**-self.digits

    def inside(self, interval: Interval) -> bool | None:
        """Whether what was rounded to the printed number may lie in our interval; None where there is none."""
        if not interval.is_interval:
            return None
        return interval.low <= self.value + self.half + 1e-12 and self.value - self.half - 1e-12 <= interval.high


def named(name: str) -> PublishedTable:
    """A published table by name.

    Raises:
        PublishedError: there is none; with the nearest name.
    """
    known = published_tables()
    if name not in known:
        raise PublishedError(f"no published table {name!r}{hint(name, known)}")
    return known[name]


def why_apart(table: PublishedTable, protocol: str, model: str) -> str:
    """Why the numbers of a published table cannot stand beside ours; empty if they can."""
    if table.kind == "claims":
        return "it has no numbers"
    if model.partition("/")[0] in ("", "tiny"):
        return f"its videos are of a 1.3B model or of other systems, ours of {model or 'unknown origin'}"
    if table.protocol not in (protocol, "user_study"):
        return f"its protocol is {table.protocol}, ours {protocol}"
    return ""


def paper_columns(tables: Sequence[str], protocol: str) -> list[str]:
    """Metrics of these published tables as we call them, in the paper's order; those of ratings and speed left out."""
    found: list[str] = []
    for table in map(named, tables):
        if table.kind == "scores" and table.protocol == protocol:
            found += [ours for metric in table.columns for ours in our_metrics(metric)]
    return list(dict.fromkeys(m for m in found if m != "fps"))


def our_metrics(published: str) -> tuple[str, ...]:
    """Our metrics that a published one may be: "temporal smoothness" is one of two, both are shown."""
    return tuple(TEMPORAL_SMOOTHNESS) if published == "temporal_smoothness" else (published,)


def with_published(table: Table, mapping: Mapping[str, Mapping[str, str]]) -> Table:
    """The table with published values in the cells they belong to, and a line on those that cannot stand there.

    Args:
        mapping: published table -> its own keys and the axes behind them, as `eval.results.Results.published`.

    Raises:
        PublishedError: no such published table, or it has no such key.
    """
    rows, notes, metrics, short = list(table.rows), [], list(table.metrics), dict(table.short)
    for name, keys in mapping.items():
        paper = named(name)
        if unknown := [key for key in keys if key not in paper.keys]:
            raise PublishedError(f"published table {name} has no key {unknown[0]!r}{hint(unknown[0], paper.keys)}")
        if why := why_apart(paper, table.protocol, table.model):
            notes.append(
                f"not beside these numbers: published {name} ({paper.source}): {why}; --published prints it below"
            )
            continue
        study = paper.protocol == "user_study"
        before = rows
        rows = [_beside(row, paper, keys, study, table.metrics) for row in rows]
        if rows == before:
            notes.append(f"published {name} ({paper.source}): no row of the same method, length and settings here")
            continue
        notes.append(_source(paper))
        if study:
            metrics += [metric for metric in paper.columns if metric not in metrics]
            short |= {metric: STUDY_NAMES.get(metric, metric) for metric in paper.columns}
        free = [axis for axis in table.axes if axis not in keys.values()]
        if free and any(row.axes.get(axis) is not None for row in rows for axis in free):
            notes.append(f"{name} does not say {', '.join(free)}: its numbers stand beside every value")
    if any(row.method in OWN_WEIGHTS and _has_published(row) for row in rows):
        notes.append(
            "†: that row of the paper is a generator with weights of its own, not the cache policy alone on ours"
        )
    if any(_has_published(row) for row in rows):
        notes.append("in / out: the published value, as rounded in print, lies inside / outside our 95 % interval")
    return replace(
        table, rows=tuple(rows), notes=(*table.notes, *notes), metrics=tuple(dict.fromkeys(metrics)), short=short
    )


def _has_published(row: Row) -> bool:
    return any(cell.published for cell in row.cells.values())


def _source(paper: PublishedTable) -> str:
    n = "an unknown number of videos" if paper.n is None else f"n = {paper.n}"
    inferred = " (protocol inferred)" if paper.protocol_inferred else ""
    what = "ratings by people" if paper.protocol == "user_study" else f"protocol {paper.protocol}{inferred}"
    return f"published: {paper.source}, {what}, {n}, no interval" + (", second hand" if paper.second_hand else "")


def _beside(row: Row, paper: PublishedTable, keys: Mapping[str, str], study: bool, metrics: Sequence[str]) -> Row:
    """The row with the numbers of the one published row that is of its method, length and settings."""
    found = [line for line in paper.rows if _fits(dict(zip(paper.keys, line, strict=False)), row, paper, keys)]
    if len(found) != 1:
        return row
    values = found[0][len(paper.keys) :]
    cells = dict(row.cells)
    for (metric, unit), printed in zip(paper.columns.items(), values, strict=True):
        percent = unit == "percent"
        column = [line[len(paper.keys) + list(paper.columns).index(metric)] for line in paper.rows]
        digits = max(map(decimals, column)) + (2 if percent else 0)
        for ours in our_metrics(metric):
            if printed is not None and (study or ours in metrics):
                value = round(printed / 100, 12) if percent else float(printed)
                known = Published(paper.name, str(found[0][0]), value, digits, not study)
                cells[ours] = replace(cells.get(ours, Cell()), published=known)
    return replace(row, cells=cells)


def _fits(line: Mapping[str, Any], row: Row, paper: PublishedTable, keys: Mapping[str, str]) -> bool:
    theirs, ours = str(line["model"]), SAME_ROWS.get(row.method, row.method)
    # Imported videos may be labelled as the paper calls their system.
    if paper.method(theirs) != (paper.method(ours) or ours) and plain(theirs) != plain(ours):
        return False
    seconds = line.get("seconds", paper.seconds)
    if seconds is not None and (row.seconds is None or abs(float(seconds) - row.seconds) > 0.5):
        return False
    return all(_same(line[key], row.axes.get(axis)) for key, axis in keys.items())


def _same(a: Any, b: Any) -> bool:
    try:
        return float(a) == float(b)
    except (TypeError, ValueError):
        return str(a).casefold() == str(b).casefold()


def decimals(value: object) -> int:
    """Decimals of a number as the file has it; 0 for anything else."""
    return len(f"{value}".partition(".")[2]) if isinstance(value, float) and not value.is_integer() else 0
