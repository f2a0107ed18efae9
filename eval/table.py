"""Tables of scores: one for each protocol and model; a row for each length and method, an interval in each cell."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from eval.companions import WON_BY_STILLNESS, companion_of
from eval.frame import SYSTEMS, ordered_metrics, title, with_systems
from eval.overall import QUALITY, STILL, combined
from eval.paired import Comparison
from eval.registry import scorers
from eval.stats import FEWEST, Interval, mean_interval, rate_interval
from eval.table_makers import makers_notes

if TYPE_CHECKING:
    from eval.table_published import Published

Aggregate = Literal["stock", "videos", "frames", "clips"]
"""How videos are averaged. ``stock``: as VBench in one process, by frames for the consistencies, by videos else."""

OVERALL = {"quality": "Overall", "overall_without_dynamic": "Overall without dynamic degree"}
_NEEDS = {"quality": QUALITY, "overall_without_dynamic": STILL}
NOTHING = Interval(float("nan"), float("nan"), float("nan"), 0, 0, "no values", 0, "no video has a score")


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        best: of its column among the rows of one length, where all rest on the same prompts (`FEWEST` or more) and
            seeds.
        published: what a paper prints for it; never mixed with ours.
        against: this row against the reference row of the table, paired.
    """

    interval: Interval = NOTHING
    best: bool = False
    published: Published | None = None
    against: Comparison | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        length: as shown (``60 s``); ``seconds`` is its number, None where videos are as long as their scripts.
        label: the method's name, for an experiment the cell's, which tells it from every other row of the length.
        method: the method that ``label`` is a variant of; ``axes`` says which.
        planned: videos that the experiment asks for; None where nobody asked.
    """

    length: str
    label: str
    method: str
    axes: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    planned: int | None = None
    cells: Mapping[str, Cell] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Videos behind the row: as many as behind its fullest cell."""
        return max((cell.interval.n for cell in self.cells.values()), default=0)


@dataclass(frozen=True)
class Table:
    """Scores of one protocol and model.

    Attributes:
        axes: what varies besides method and length, a column each.
        name, sample: experiment and its prompts and seeds, for the caption; empty for a folder of videos.
        short: headings to use instead of ours, metric -> heading.
        reference: label that the rows are compared with, if any.
    """

    protocol: str
    model: str
    aggregate: Aggregate
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()
    name: str = ""
    sample: str = ""
    short: Mapping[str, str] = field(default_factory=dict)
    reference: str = ""

    @property
    def caption(self) -> str:
        head, tail = (f"{self.name}: " if self.name else ""), (f", {self.sample}" if self.sample else "")
        return head + caption(self.protocol, self.model) + tail

    def row(self, length: str, label: str) -> Row:
        return next(row for row in self.rows if (row.length, row.label) == (length, label))

    def heading(self, metric: str) -> str:
        return heading(metric, self.short)


def heading(metric: str, short: Mapping[str, str] | None = None) -> str:
    """Column heading with the direction that is better, and ° where a frozen video wins."""
    arrow = {"higher": " ↑", "lower": " ↓", None: ""}[better(metric)]
    name = (short or {}).get(metric) or OVERALL.get(metric) or title(metric)
    return name + ("°" if metric in WON_BY_STILLNESS else "") + arrow


def caption(protocol: str, model: str) -> str:
    """What a table holds; scores of one model are never shown as if they were another's."""
    if model == SYSTEMS:
        return f"protocol {protocol}, videos of {model}"
    return f"protocol {protocol}, " + (f"videos of the model {model}" if model else "videos of unknown origin")


def _shortest_first(length: str) -> float:
    """Order of ``5 s`` and ``60 s``; a name that is no number, as of scripts of several lengths, comes last."""
    number = length.partition(" ")[0]
    return float(number) if number.replace(".", "").isdigit() else float("inf")


def tables(frame: pd.DataFrame, aggregate: Aggregate = "stock", seed: int = 0) -> list[Table]:
    """One table for each protocol and model in the frame; scores of two protocols never share a column.

    Other systems stand beside every model but the embedded one.
    """
    found = []
    for (protocol, model), group in with_systems(frame).groupby(["protocol", "model"], sort=True):
        lengths = sorted(group["length"].unique(), key=_shortest_first)
        at = {length: sorted(group[group["length"] == length]["method"].unique()) for length in lengths}
        rows = [Row(length, method, method) for length in lengths for method in at[length]]
        found.append(filled(Table(str(protocol), str(model), aggregate, (), tuple(rows)), group, seed=seed))
    return found


def filled(table: Table, frame: pd.DataFrame, columns: Sequence[str] = (), seed: int = 0) -> Table:
    """The table with the scores of ``frame`` in the cells of its rows, the best marked, and what is to be noted.

    ``frame`` is of one protocol and model, its ``length`` and ``method`` those of the rows. ``columns`` selects and
    orders the metrics; those without any score are left out.
    """
    frame = with_overall(frame)
    order = [*ordered_metrics(frame[~frame["metric"].isin(OVERALL)]), *OVERALL]
    groups = dict(list(frame.groupby(["length", "method", "metric"], sort=False)))
    rows = []
    for row in table.rows:
        of = {m: groups[row.length, row.label, m] for m in order if (row.length, row.label, m) in groups}
        cells = {m: Cell(summarise(values, m, table.aggregate, seed)) for m, values in of.items() if m not in OVERALL}
        cells |= {m: Cell(_overall(of[m], m, cells, seed)) for m in OVERALL if m in of}
        rows.append(replace(row, cells=cells))
    there = [m for m in order if any(row.cells[m].interval.n for row in rows if m in row.cells)]
    shown = [m for m in columns if m in there] if columns else there
    wanted = [m for m in order if m in columns or not columns]
    gone = set(wanted) - set(shown)
    notes = [f"{names}: skipped, because {why}" for why, names in _reasons(frame, gone, order)]
    notes += [f"{names}: not of every video; {why}" for why, names in _reasons(frame, shown, order)]
    notes += _stillness(shown, there)
    notes += makers_notes(frame)
    marked, uneven = _with_best(rows, shown, groups)
    if any(0 < row.cells[m].interval.clusters < FEWEST for row in rows for m in shown if m in row.cells):
        notes.append(f"below {FEWEST} prompts there is no interval and none is called best")
    if uneven:
        notes.append(
            f"{', '.join(table.heading(m).rstrip(' ↑↓°') for m in uneven)}: the rows of a length rest on different "
            "prompts or seeds, so none is called best; irope compare pairs them"
        )
    return replace(table, metrics=tuple(shown), rows=tuple(marked), notes=(*table.notes, *notes))


def summarise(values: pd.DataFrame, metric: str, aggregate: Aggregate = "stock", seed: int = 0) -> Interval:
    """Mean of one metric of one method over its videos, with a 95 % interval clustered by prompt.

    With frames or clips as weights the estimate is VBench's weighted mean, and the interval is that of the linearised
    ratio (every video's value is replaced by mean + weight / mean weight * (value - mean)).
    """
    known = scorers()
    scorer = known.get(metric)
    samples = samples_of(values)
    kind = (scorer.pooled if scorer else "videos") if aggregate == "stock" else aggregate
    weights = np.asarray(values["terms"] if kind == "frames" else values["clips"], dtype=np.float64)
    x = np.asarray(values["value"], dtype=np.float64)
    weights = weights[~np.isnan(x)]
    if kind == "videos" or metric in OVERALL or len(set(weights)) <= 1:
        return rate_interval(samples) if is_rate(metric, x) else mean_interval(samples, seed=seed)
    mean = float(np.average(x[~np.isnan(x)], weights=weights))
    w = np.nan_to_num(np.asarray(values["terms"] if kind == "frames" else values["clips"], dtype=np.float64))
    linear = mean + w / weights.mean() * (x - mean)
    found = mean_interval(dict(zip(samples, linear, strict=True)), seed=seed)
    return replace(found, estimate=mean)


def samples_of(values: pd.DataFrame) -> dict[tuple[str, int], float]:
    """(prompt, seed) -> value of one metric of one method."""
    return {(p, s): v for p, s, v in zip(values["prompt"], values["seed"], values["value"], strict=True)}


def is_rate(metric: str, values: Iterable[float]) -> bool:
    """Whether a metric is yes or no for each video; a mean over clips is not."""
    known = scorers()
    return metric in known and known[metric].rate and {v for v in values if not np.isnan(v)} <= {0.0, 1.0}


def better(metric: str) -> Literal["higher", "lower"] | None:
    """Which way is better."""
    known = scorers()
    return "higher" if metric in OVERALL else known[metric].better if metric in known else None


def with_overall(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with rows of the combined scores `OVERALL` for every video that has all they need."""
    if not {*STILL} <= set(frame["metric"]) or set(OVERALL) & set(frame["metric"]):
        return frame
    key = ["protocol", "model", "length", "method", "prompt", "seed"]
    wide = frame[frame["metric"].isin(QUALITY)].pivot(index=key, columns="metric", values="value")
    first = frame.drop_duplicates(key).set_index(key).loc[wide.index].reset_index()
    each = [combined({str(m): float(v) for m, v in row.items()}) for row in wide.to_dict("records")]
    made = []
    for name in OVERALL:
        rows = first.assign(
            metric=name, value=pd.Series([found[name] for found in each], dtype=float), terms=1, clips=1, skipped=None
        )
        made.append(rows[rows["value"].notna()])
    return pd.concat([frame, *made], ignore_index=True)


def _overall(values: pd.DataFrame, metric: str, cells: Mapping[str, Cell], seed: int) -> Interval:
    """A combined score: VBench's, of the means, where all dimensions are of the same videos; else the videos' mean."""
    found = summarise(values, metric, seed=seed)
    parts = {name: cells[name].interval for name in _NEEDS[metric]}
    if any(part.n != found.n for part in parts.values()):
        return found
    mean = combined({name: part.estimate for name, part in parts.items()})[metric]
    return found if mean is None else replace(found, estimate=mean)


def _with_best(
    rows: Sequence[Row], metrics: Sequence[str], groups: Mapping[Any, pd.DataFrame]
) -> tuple[list[Row], list[str]]:
    """The rows with the best of every length marked, and the metrics for which rows rest on different videos."""
    cells = [dict(row.cells) for row in rows]
    uneven = []
    for metric in metrics:
        way = better(metric)
        for length in dict.fromkeys(row.length for row in rows):
            here = [i for i, row in enumerate(rows) if row.length == length and metric in row.cells]
            known = {i: x for i in here if not np.isnan(x := rows[i].cells[metric].interval.estimate)}
            if way is None or len(known) < 2:
                continue
            scored = [groups[length, rows[i].label, metric].dropna(subset="value") for i in known]
            if len({frozenset(zip(of["prompt"], of["seed"], strict=True)) for of in scored}) > 1:
                uneven.append(metric)
                continue
            best = max(known.values()) if way == "higher" else min(known.values())
            for i, value in known.items():
                enough = rows[i].cells[metric].interval.clusters >= FEWEST
                if value == best and enough and len(set(known.values())) > 1:
                    cells[i][metric] = replace(cells[i][metric], best=True)
    return [replace(row, cells=of) for row, of in zip(rows, cells, strict=True)], list(dict.fromkeys(uneven))


def _stillness(shown: Sequence[str], scored: Sequence[str]) -> list[str]:
    """What must be said so that a frozen video cannot win silently."""
    won = [m for m in shown if m in WON_BY_STILLNESS]
    beside = {companion_of(m, scored) for m in won}
    if not won:
        return []
    if None in beside:
        return ["a frozen video wins °, and no measure of motion was scored: add one (motion, flow_motion)"]
    return [f"°: a frozen video wins this; read it beside {', '.join(title(str(m)) for m in sorted(map(str, beside)))}"]


def _reasons(frame: pd.DataFrame, of: Collection[str], order: Sequence[str]) -> list[tuple[str, str]]:
    """Why some of these metrics were skipped, each reason once with the metrics it is true of."""
    said: dict[str, list[str]] = {}
    for metric in (m for m in order if m in of):
        reasons = frame[(frame["metric"] == metric) & frame["skipped"].notna()]["skipped"]
        if len(reasons):
            said.setdefault(str(reasons.iloc[0]), []).append(title(metric))
    return [(why, ", ".join(names)) for why, names in said.items()]
