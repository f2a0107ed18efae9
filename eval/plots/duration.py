"""Score against duration: does a method hold its quality as the video grows?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.frame import title
from eval.plots.colours import GREY, Style
from eval.plots.numbers import cell_styles, prompt_means, short_labels
from eval.plots.plot import Key, NoPlotError, Plot, counted, finish, gaps, key, panels, subtitle, title_panel, varied
from eval.plots.published import PUBLISHED_KEY, draw_published, published_notes, published_points
from eval.stats import FEWEST
from eval.table import OVERALL, better

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from eval.results import Results


def duration(results: Results, numbers: pd.DataFrame) -> Plot:
    """Mean of each metric over the nominal duration, a line a cell; bars are 95 % intervals, or ranges with dots.

    Args:
        numbers: `eval.plots.numbers.numbers` of the results.

    Raises:
        NoPlotError: fewer than two durations were scored.
    """
    durations = sorted(numbers["seconds"].unique()) if len(numbers) else []
    if len(durations) < 2:
        raise NoPlotError("a plot against duration needs two durations; this experiment has one")
    metrics, undrawn = varied(numbers, "seconds")
    if not metrics:
        raise NoPlotError(f"nothing changes with the duration: {'; '.join(undrawn)}")
    looks, (labels, heading) = cell_styles(results), short_labels(results)
    shown = [label for label in labels if label in set(numbers["method"])]
    dots = prompt_means(results) if (numbers["prompts"] < FEWEST).any() else None
    places = steps(durations)
    printed = published_points(results)
    printed = printed.assign(place=printed["seconds"].map(places))
    printed = printed[printed["place"].notna()]
    figure, axes = panels(len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        title_panel(axis, OVERALL.get(metric) or title(metric), better(metric))
        for place, label in enumerate(shown):
            rows = numbers[(numbers["metric"] == metric) & (numbers["method"] == label)].sort_values("seconds")
            # Lines side by side, so that bars of methods that score alike can be told apart.
            beside = min(0.09, 0.6 / len(shown)) * (place - (len(shown) - 1) / 2)
            draw_points(axis, rows, rows["seconds"].map(places) + beside, looks[label], dots, (label, metric))
        draw_published(axis, printed[printed["metric"] == metric], "place", looks)
        axis.set_xticks(list(places.values()), [f"{s:g}" for s in durations])
        axis.set_xlim(-0.45, places[durations[-1]] + 0.45)
        axis.set_xlabel("duration (s), axis about logarithmic", fontsize=8, color=GREY)
    keys: list[Key] = [key(labels[label], looks[label]) for label in shown]
    keys += [PUBLISHED_KEY] if len(printed) else []
    n = counted(numbers["prompts"].tolist(), numbers["videos"].tolist())
    said = spread_note(numbers)
    partial = _partial(numbers, shown, len(durations))
    notes = [said, *undrawn, *([f"not scored at every duration: {partial}"] if partial else [])]
    notes += [*published_notes(printed), *gaps(results)]
    finish(figure, "Score against duration", subtitle(results, n), keys, notes, heading)
    caption = f"Mean of every metric over videos of {', '.join(f'{s:g}' for s in durations)} s; {said}. {n}."
    return Plot("duration", figure, numbers.reset_index(drop=True), caption)


def steps(durations: Sequence[float]) -> dict[float, float]:
    """Places of durations on the axis: a doubling is one step; no step is below 1 or above 2, so that there is room for
    the bars at 120 and 240 s and no void between 5 and 60 s."""
    gaps = [min(2.0, max(1.0, float(np.log2(b / a)))) for a, b in pairwise(durations)]
    return dict(zip(durations, [0.0, *np.cumsum(gaps).tolist()], strict=True))


def draw_points(
    axis: Axes,
    rows: pd.DataFrame,
    x: pd.Series[Any],
    style: Style,
    dots: pd.Series[float] | None,
    name: tuple[str, str],
) -> None:
    """A line through the means with a bar for each interval, or range; below `FEWEST` prompts a dot a prompt.

    Args:
        rows: of `eval.plots.numbers.numbers`, for one method and metric, in the order of x.
        dots: `eval.plots.numbers.prompt_means`, of which those of ``name`` (method, metric) are drawn.
    """
    if rows.empty:
        return
    at = np.asarray(x, dtype=np.float64)
    mean, low, high = (np.asarray(rows[c], dtype=np.float64) for c in ("mean", "low", "high"))
    below, above = np.nan_to_num(np.maximum(mean - low, 0)), np.nan_to_num(np.maximum(high - mean, 0))
    axis.errorbar(at, mean, yerr=(below, above), fmt="none", ecolor=style.colour, elinewidth=1.1, capsize=2, alpha=0.75)
    axis.plot(at, mean, **style.line, linewidth=1.5, marker=style.marker, markersize=4.5)
    if dots is None:
        return
    for place, seconds, count in zip(at, rows["seconds"], rows["prompts"], strict=True):
        if count < FEWEST and (name[0], seconds, name[1]) in dots.index:
            values = dots.loc[name[0], seconds, name[1]].to_numpy()
            axis.plot(np.full(len(values), place), values, ".", color=style.colour, markersize=3, alpha=0.5)


def spread_note(numbers: pd.DataFrame, dots: bool = True) -> str:
    """What the bars are, and the dots if there are any."""
    if (numbers["prompts"] <= 1).all():
        return "one prompt says nothing of others: no bars"
    few = numbers["prompts"] < FEWEST
    interval = "bars: 95 % intervals over prompts"
    ranges = f"bars: the range of the prompts{' (dots)' * dots}, which are too few for an interval (below {FEWEST})"
    if few.all():
        return ranges
    return f"{interval}, or the range where they are fewer than {FEWEST}{' (dots)' * dots}" if few.any() else interval


def _partial(numbers: pd.DataFrame, shown: list[str], durations: int) -> str:
    there = numbers.groupby("method")["seconds"].nunique()
    return ", ".join(label for label in shown if there[label] < durations)
