"""Two methods of a scored folder against each other, metric by metric."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from eval.frame import ordered_metrics, with_systems
from eval.paired import Comparison, compare
from eval.stats import Interval
from eval.table import better, caption, is_rate, samples_of, summarise, with_overall
from irope.errors import UserError
from irope.settings import hint


@dataclass(frozen=True)
class Group:
    """Comparisons at one length under one protocol: metric -> (A, B, A against B)."""

    protocol: str
    model: str
    length: str
    a: str
    b: str
    metrics: dict[str, tuple[Interval, Interval, Comparison]]

    @property
    def caption(self) -> str:
        return caption(self.protocol, self.model)

    def records(self) -> Iterator[dict[str, Any]]:
        """A record for each metric, JSON types."""
        for metric, (a, b, found) in self.metrics.items():
            d = found.paired.difference
            numbers = {
                "mean_a": a.estimate,
                "mean_b": b.estimate,
                "difference": d.estimate,
                "low": d.low,
                "high": d.high,
                "p": found.paired.p_value,
                "p_holm": found.p_adjusted,
            }
            yield {
                "protocol": self.protocol,
                "model": self.model,
                "length": self.length,
                "metric": metric,
                "a": self.a,
                "b": self.b,
                **{name: None if pd.isna(value) else value for name, value in numbers.items()},
                "prompts": d.clusters,
                "pairs": d.n,
                "verdict": found.verdict,
            }


def comparisons(frame: pd.DataFrame, a: str, b: str, seed: int = 0, *, strict: bool = True) -> list[Group]:
    """A against B at every length and protocol that both were scored at, the combined scores included.

    Metrics that rank nothing, such as motion, are left to the table.

    Raises:
        UserError: a method was not scored, or the two have no length in common; without ``strict`` that is no error.
    """
    known = sorted(set(frame["method"]))
    for name in (a, b):
        if strict and name not in known:
            raise UserError(f"no scores of method {name!r}{hint(name, known)}")
    frame = with_overall(with_systems(frame[frame["method"].isin([a, b])]))
    groups = []
    for (protocol, model, length), at in frame.groupby(["protocol", "model", "length"], sort=False):
        of_a, of_b = at[at["method"] == a], at[at["method"] == b]
        metrics = [m for m in ordered_metrics(at) if better(m) is not None]
        sides = [
            {m: samples_of(of[of["metric"] == m]) for m in metrics if (of["metric"] == m).any()} for of in (of_a, of_b)
        ]
        lower = [m for m in metrics if better(m) == "lower"]
        rates = [m for m in metrics if is_rate(m, at[at["metric"] == m]["value"])]
        found = compare(*sides, lower_is_better=lower, rates=rates, seed=seed)
        rows = {
            m: (
                summarise(of_a[of_a["metric"] == m], m, seed=seed),
                summarise(of_b[of_b["metric"] == m], m, seed=seed),
                compared,
            )
            for m, compared in found.items()
            if compared.paired.difference.n
        }
        if rows:
            groups.append(Group(str(protocol), str(model), str(length), a, b, rows))
    if strict and not groups:
        raise UserError(f"{a} and {b} have no prompt of the same length in common")
    return groups
