"""Which plots make sense for an experiment, by what was varied, scored and recorded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.plots.ablation import ablation, numeric_axes
from eval.plots.drift import drift
from eval.plots.duration import duration
from eval.plots.numbers import numbers
from eval.plots.pareto import pareto
from eval.plots.plot import NoPlotError, Plot
from eval.plots.switches import switches
from eval.table import OVERALL, better
from irope.errors import UserError
from irope.settings import hint

if TYPE_CHECKING:
    from eval.results import Results

KINDS = ("duration", "drift", "ablation", "pareto", "switches")
"""What ``--only`` takes."""


@dataclass(frozen=True)
class Drawn:
    """Plots that could be made and, by kind, why the others could not."""

    plots: tuple[Plot, ...]
    left_out: dict[str, str]


def figures(results: Results, only: Collection[str] = ()) -> list[Plot]:
    """The plots that make sense for these results; see `draw`."""
    return list(draw(results, only).plots)


def draw(results: Results, only: Collection[str] = (), metrics: Collection[str] = ()) -> Drawn:
    """Every plot of the kinds in ``only`` (all `KINDS` if empty) that the results have data for.

    ``metrics`` selects the panels, all if empty; against cost the first that ranks is drawn.

    Raises:
        UserError: an unknown kind or metric, or nothing was scored yet.
        MixedError: as `eval.results.Results.frame`.
    """
    for kind in only:
        if kind not in KINDS:
            raise UserError(f"no plot {kind!r}{hint(kind, KINDS)}")
    if results.frame["value"].notna().sum() == 0:
        raise UserError(f"{results.name}: nothing was scored yet; run: {results.command}")
    known = set(results.frame["metric"]) | set(OVERALL)
    for metric in metrics:
        if metric not in known:
            raise UserError(f"no scores of {metric!r}{hint(metric, known)}")
    plots: list[Plot] = []
    left_out: dict[str, str] = {}
    for kind, make in _makers(results, list(metrics)):
        if only and kind not in only:
            continue
        try:
            plots.append(make())
        except (NoPlotError, UserError) as error:  # one that cannot be drawn keeps no other from being drawn
            left_out[kind] = str(error)
    return Drawn(tuple(plots), left_out)


def _makers(results: Results, metrics: list[str]) -> Iterator[tuple[str, Callable[[], Plot]]]:
    table = numbers(results)
    table = table[table["metric"].isin(metrics)] if metrics else table
    yield "duration", lambda: duration(results, table)
    yield "drift", lambda: drift(results, metrics)
    axes = numeric_axes(results)
    for axis in axes:
        yield "ablation", lambda axis=axis: ablation(results, table, axis)  # type: ignore[misc]
    yield "pareto", lambda: pareto(results, table, next((m for m in metrics if better(m)), next(iter(metrics), None)))
    yield "switches", lambda: switches(results)
