"""Tables of scores: one for each protocol and model; a row for each method and length, an interval in each cell."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from eval.companions import WON_BY_STILLNESS, companion_of
from eval.frame import ordered_metrics, title
from eval.overall import QUALITY, combined
from eval.registry import scorers
from eval.stats import Interval, mean_interval, rate_interval

Aggregate = Literal["stock", "videos", "frames", "clips"]
"""How videos are averaged. ``stock``: as VBench in one process, by frames for the consistencies, by videos else."""

OVERALL = {"quality": "Overall", "overall_without_dynamic": "Overall without dynamic degree"}


@dataclass(frozen=True)
class Cell:
    """One number of a table; ``best`` of its column among the methods of one length."""

    interval: Interval
    best: bool = False

    def text(self, digits: int) -> str:
        return self.interval.text(digits)


@dataclass(frozen=True)
class Table:
    """Scores of one protocol and model: ``rows`` is (length, method) -> metric -> cell."""

    protocol: str
    model: str
    aggregate: Aggregate
    metrics: tuple[str, ...]
    rows: dict[tuple[str, str], dict[str, Cell]]
    notes: tuple[str, ...]

    @property
    def caption(self) -> str:
        return caption(self.protocol, self.model)


def caption(protocol: str, model: str) -> str:
    """What a table holds; scores of one model are never shown as if they were another's."""
    return f"protocol {protocol}, " + (f"videos of the model {model}" if model else "videos of unknown origin")


def tables(frame: pd.DataFrame, aggregate: Aggregate = "stock", seed: int = 0) -> list[Table]:
    """One table for each protocol and model in the frame; scores of two protocols never share a column."""
    return [
        _table(group, str(protocol), str(model), aggregate, seed)
        for (protocol, model), group in frame.groupby(["protocol", "model"], sort=True)
    ]


def _table(frame: pd.DataFrame, protocol: str, model: str, aggregate: Aggregate, seed: int) -> Table:
    metrics = ordered_metrics(frame)
    rows: dict[tuple[str, str], dict[str, Cell]] = {}
    lengths = sorted(frame["length"].unique(), key=lambda text: float(text.split()[0]))
    for length in lengths:
        at = frame[frame["length"] == length]
        for method in sorted(at["method"].unique()):
            of = at[at["method"] == method]
            cells = {m: Cell(summarise(of[of["metric"] == m], m, aggregate, seed)) for m in metrics}
            rows[length, method] = cells | dict(_overall(of, cells, seed))
    shown = [m for m in metrics if any(row[m].interval.n for row in rows.values())]
    shown += [m for m in OVERALL if any(m in row for row in rows.values())]
    notes = [f"{names}: skipped, because {why}" for why, names in _reasons(frame, set(metrics) - set(shown), metrics)]
    notes += [f"{names}: not of every video; {why}" for why, names in _reasons(frame, set(shown), metrics)]
    notes += _stillness(shown)
    return Table(protocol, model, aggregate, tuple(shown), _with_best(rows, shown), tuple(notes))


def summarise(values: pd.DataFrame, metric: str, aggregate: Aggregate = "stock", seed: int = 0) -> Interval:
    """Mean of one metric of one method over its videos, with a 95 % interval clustered by prompt.

    With frames or clips as weights the estimate is VBench's weighted mean, and the interval is that of the linearised
    ratio (every video's value is replaced by mean + weight / mean weight * (value - mean)).
    """
    known = scorers()
    scorer = known.get(metric)
    samples = {(p, s): v for p, s, v in zip(values["prompt"], values["seed"], values["value"], strict=True)}
    kind = (scorer.pooled if scorer else "videos") if aggregate == "stock" else aggregate
    weights = np.asarray(values["terms"] if kind == "frames" else values["clips"], dtype=np.float64)
    x = np.asarray(values["value"], dtype=np.float64)
    weights = weights[~np.isnan(x)]
    if kind == "videos" or len(set(weights)) <= 1:
        return rate_interval(samples) if is_rate(metric, x) else mean_interval(samples, seed=seed)
    mean = float(np.average(x[~np.isnan(x)], weights=weights))
    w = np.nan_to_num(np.asarray(values["terms"] if kind == "frames" else values["clips"], dtype=np.float64))
    linear = mean + w / weights.mean() * (x - mean)
    found = mean_interval(dict(zip(samples, linear, strict=True)), seed=seed)
    return replace(found, estimate=mean)


def is_rate(metric: str, values: Iterable[float]) -> bool:
    """Whether a metric is yes or no for each video; a mean over clips is not."""
    known = scorers()
    return metric in known and known[metric].rate and {v for v in values if not np.isnan(v)} <= {0.0, 1.0}


def _overall(frame: pd.DataFrame, cells: dict[str, Cell], seed: int) -> Iterator[tuple[str, Cell]]:
    """The combined scores, where every dimension they need is there; the interval is over the videos' own."""
    means = combined({name: cells[name].interval.estimate for name in QUALITY if name in cells})
    wide = frame.pivot(index=["prompt", "seed"], columns="metric", values="value")
    for name in OVERALL:
        mean = means[name]
        if mean is None:
            continue
        each = {index: combined({str(m): float(v) for m, v in row.items()})[name] for index, row in wide.iterrows()}
        yield name, Cell(replace(mean_interval(each, seed=seed), estimate=mean))


def better(metric: str) -> Literal["higher", "lower"] | None:
    """Which way is better."""
    known = scorers()
    return "higher" if metric in OVERALL else known[metric].better if metric in known else None


def _with_best(
    rows: dict[tuple[str, str], dict[str, Cell]], metrics: Sequence[str]
) -> dict[tuple[str, str], dict[str, Cell]]:
    marked = {key: dict(row) for key, row in rows.items()}
    for length in {length for length, _ in rows}:
        here = [key for key in rows if key[0] == length]
        for metric in metrics:
            values = {key: rows[key][metric].interval.estimate for key in here if metric in rows[key]}
            known = {key: value for key, value in values.items() if not np.isnan(value)}
            way = better(metric)
            if way is None or len(known) < 2 or len(set(known.values())) == 1:
                continue
            best = max(known.values()) if way == "higher" else min(known.values())
            for key, value in known.items():
                if value == best:
                    marked[key][metric] = replace(rows[key][metric], best=True)
    return marked


def _stillness(shown: Sequence[str]) -> list[str]:
    """What must be said so that a frozen video cannot win silently."""
    won = [m for m in shown if m in WON_BY_STILLNESS]
    beside = {companion_of(m, shown) for m in won}
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


def heading(metric: str) -> str:
    """Column heading with the direction that is better."""
    arrow = {"higher": " ↑", "lower": " ↓", None: ""}[better(metric)]
    return OVERALL.get(metric, title(metric)) + ("°" if metric in WON_BY_STILLNESS else "") + arrow


def as_markdown(table: Table, digits: int = 3) -> str:
    """A Markdown table; the best of a column in bold, n beside the method."""
    head = ["length", "method", "n", *(heading(m) for m in table.metrics)]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for (length, method), row in table.rows.items():
        n = _row_n(row, table.metrics)
        cells = [_marked(row.get(m), digits, n, "**") for m in table.metrics]
        lines.append(f"| {' | '.join([length, method, str(n), *cells])} |")
    return "\n".join([f"{table.caption}", "", *lines, *(f"\n{note}" for note in table.notes)])


def _row_n(row: dict[str, Cell], metrics: Sequence[str]) -> int:
    return max((row[m].interval.n for m in metrics if m in row), default=0)


def _marked(cell: Cell | None, digits: int, n: int, mark: str) -> str:
    """The cell with its own n where it has fewer videos than its row."""
    if cell is None:
        return "–"
    text = f"{mark}{cell.text(digits)}{mark}" if cell.best else cell.text(digits)
    return text if cell.interval.n in (0, n) else f"{text} n={cell.interval.n}"


def as_records(table: Table) -> list[dict[str, object]]:
    """A record for each cell, JSON types; NaN becomes None."""
    return [
        {
            "protocol": table.protocol,
            "model": table.model,
            "length": length,
            "method": method,
            "metric": metric,
            "mean": _finite(cell.interval.estimate),
            "low": _finite(cell.interval.low),
            "high": _finite(cell.interval.high),
            "interval": cell.interval.method,
            "n": cell.interval.n,
            "prompts": cell.interval.clusters,
        }
        for (length, method), row in table.rows.items()
        for metric, cell in row.items()
        if metric in table.metrics
    ]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def as_json(found: Sequence[Table]) -> str:
    return json.dumps([record for table in found for record in as_records(table)], indent=1, ensure_ascii=False)


def as_csv(found: Sequence[Table]) -> str:
    return pd.DataFrame([record for table in found for record in as_records(table)]).to_csv(index=False)
