"""Drift within a video: the course of every score that has one, averaged over prompts."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.frame import ordered_metrics, title
from eval.plots.colours import GREY
from eval.plots.events import CUT_KEY, MOST, SWITCH_KEY, draw_events, event_times
from eval.plots.numbers import band, cell_styles, curves, short_labels
from eval.plots.plot import NoPlotError, Plot, counted, finish, gaps, key, panels, subtitle, title_panel, varied
from eval.stats import FEWEST
from eval.table import better

if TYPE_CHECKING:
    import pandas as pd

    from eval.results import Results

POINTS = 120
"""Of a curve; longer videos are averaged over stretches of whole seconds."""
BANDED = 6
"""Lines up to which bands are drawn; more would hide each other."""
OTHER_COURSE = frozenset({"cut_sharpness", "unrequested_cuts", "flow_dynamic", "dynamic_degree"})
"""Scorers whose course (steps between frames, motion) is not in the unit of their value."""


def drift(results: Results, metrics: Collection[str] = ()) -> Plot:
    """Mean curve of each cell over the seconds of the longest scored window, with a pointwise 95 % band over prompts.

    Below `FEWEST` prompts the band is left out and the prompts' range is drawn as thin lines. ``data`` has a row for
    each method, metric and second: mean, low, high, prompts. ``metrics`` selects the panels, all if empty.

    Raises:
        NoPlotError: no score has a course of at least three seconds.
    """
    known = curves(results)
    known = known[~known["metric"].isin(OTHER_COURSE)]
    known = known[known["metric"].isin(metrics)] if metrics else known
    known = known[known.groupby("metric")["value"].transform("count") > 0]
    if known.empty or known["second"].max() < 2:
        raise NoPlotError("no score with a course of at least three seconds was found")
    known, width = _coarser(known)
    looks, (labels, heading), times = cell_styles(results), short_labels(results), event_times(results)
    shown = [label for label in labels if label in set(known["method"])]
    data = _bands(known, [m for m in ordered_metrics(results.frame) if m in set(known["metric"])], shown)
    drawn, undrawn = varied(data, "second")
    if not drawn:
        raise NoPlotError(f"no score changes within a video: {'; '.join(undrawn)}")
    drawn_events = times if len(times) <= MOST else {}
    figure, axes = panels(len(drawn), across=2 if known["second"].max() > 30 else 3)
    for axis, metric in zip(axes, drawn, strict=True):
        title_panel(axis, title(metric), better(metric))
        draw_events(axis, drawn_events)
        for place, label in enumerate(shown):
            rows = data[(data["metric"] == metric) & (data["method"] == label)]
            look, every = looks[label], max(1, len(rows) // 5)
            marks: dict[str, Any] = {
                "marker": look.marker,
                "markersize": 4,
                "markevery": (place * every // len(shown), every),
            }
            axis.plot(rows["second"], rows["mean"], **look.line, **marks, linewidth=1.5)
            if len(shown) > BANDED:
                continue
            if (rows["prompts"] < FEWEST).any():
                for bound in ("low", "high"):
                    axis.plot(rows["second"], rows[bound], color=look.colour, linewidth=0.5, alpha=0.6)
            else:
                axis.fill_between(rows["second"], rows["low"], rows["high"], color=look.colour, alpha=0.14, linewidth=0)
        axis.set_xlim(0, float(known["second"].max()) + width / 2)
        axis.set_xlabel("time in the video (s)", fontsize=8, color=GREY)
    keys = [key(labels[label], looks[label]) for label in shown]
    keys += [entry for entry, cut in ((SWITCH_KEY, False), (CUT_KEY, True)) if any(c == cut for _, c in drawn_events)]
    videos = known.groupby(["method", "metric"])[["prompt", "seed"]].apply(lambda g: len(g.drop_duplicates()))
    prompts = known.groupby(["method", "metric"])["prompt"].nunique()
    n = counted(prompts.tolist(), videos.tolist()).replace(" a point", " a line")
    notes = [_spread(data, width, len(shown)), *undrawn, *_about_events(times, drawn_events), *gaps(results)]
    finish(figure, "Drift within a video", subtitle(results, n), keys, notes, heading)
    caption = f"The course of every score in time, the mean over prompts; {notes[0]}. {n}."
    return Plot("drift", figure, data, caption)


def _coarser(known: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """At most `POINTS` points a curve, each the mean of a stretch of whole seconds, and the length of a stretch."""
    stretch = int(np.ceil(known["second"].max() / POINTS))
    if stretch <= 1:
        return known, 1.0
    middle = (known["second"] // stretch + 0.5) * stretch
    grouped = known.assign(second=middle).groupby(["method", "prompt", "seed", "metric", "second"], sort=False)
    return grouped["value"].mean().reset_index(), float(stretch)


def _bands(known: pd.DataFrame, metrics: list[str], shown: list[str]) -> pd.DataFrame:
    import pandas as pd

    made = []
    for (label, metric), rows in known.groupby(["method", "metric"]):
        each = rows.groupby(["prompt", "second"])["value"].mean().unstack()  # [prompts, seconds], NaN where none
        mean, low, high, prompts = band(each.to_numpy(dtype=np.float64))
        columns = {"second": each.columns, "mean": mean, "low": low, "high": high, "prompts": prompts}
        made.append(pd.DataFrame({"method": label, "metric": metric, **columns}))
    data = pd.concat(made, ignore_index=True)
    ranks = {name: rank for rank, name in enumerate([*shown, *metrics])}
    return data.sort_values(
        ["metric", "method", "second"], key=lambda c: c.map(ranks) if c.name != "second" else c, ignore_index=True
    )


def _spread(data: pd.DataFrame, width: float, lines: int) -> str:
    of = "" if width == 1 else f"; means of {width:g} s"
    if lines > BANDED:
        return f"the spread over prompts of so many lines is in the CSV file{of}"
    few = data["prompts"] < FEWEST
    if (data["prompts"] <= 1).all():
        return f"one prompt says nothing of others: no bands{of}"
    if not few.any():
        return f"bands: pointwise 95 % bootstrap over prompts{of}"
    return f"thin lines: the range of the prompts where they are too few for an interval (below {FEWEST}){of}"


def _about_events(times: dict[tuple[float, bool], float], drawn: dict[tuple[float, bool], float]) -> list[str]:
    if times and not drawn:
        return [f"switches and cuts come at {len(times)} different times and are not marked"]
    if any(share < 1 for share in drawn.values()):
        return ["faint event lines: only some of the prompts have that event"]
    return []
