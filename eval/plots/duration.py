"""Score against duration: does a method hold its quality as the video grows?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from eval.frame import title
from eval.plots.colours import GREY, Style
from eval.plots.numbers import cell_styles, prompt_means, short_labels
from eval.plots.plot import Key, NoPlotError, Plot, counted, finish, gaps, key, panels, subtitle, title_panel
from eval.plots.published import PUBLISHED_KEY, draw_published, published_points
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
    metrics = list(dict.fromkeys(numbers["metric"]))
    looks, (labels, heading) = cell_styles(results), short_labels(results)
    shown = [label for label in labels if label in set(numbers["method"])]
    dots = prompt_means(results) if (numbers["prompts"] < FEWEST).any() else None
    printed = published_points(results)
    figure, axes = panels(len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        title_panel(axis, OVERALL.get(metric) or title(metric), better(metric))
        for place, label in enumerate(shown):
            rows = numbers[(numbers["metric"] == metric) & (numbers["method"] == label)].sort_values("seconds")
            # Lines side by side, so that bars of methods that score alike can be told apart.
            beside = 1.0 + 0.028 * (place - (len(shown) - 1) / 2) * min(1, 6 / len(shown))
            draw_points(axis, rows, rows["seconds"] * beside, looks[label], dots, (label, metric))
        draw_published(axis, printed[printed["metric"] == metric], "seconds", looks)
        axis.set_xscale("log")
        axis.set_xticks(durations, [f"{s:g}" for s in durations])
        axis.set_xticks([], minor=True)
        axis.set_xlim(durations[0] / 1.25, durations[-1] * 1.25)
        axis.set_xlabel("duration (s)", fontsize=8, color=GREY)
    keys: list[Key] = [key(labels[label], looks[label]) for label in shown]
    keys += [PUBLISHED_KEY] if len(printed) else []
    n = counted(numbers["prompts"].tolist(), numbers["videos"].tolist())
    said = spread_note(numbers)
    left = [f"not scored at every duration: {names}" for names in [_partial(numbers, shown, len(durations))] if names]
    finish(figure, "Score against duration", subtitle(results, n), keys, [said, *left, *gaps(results)], heading)
    caption = f"Mean of every metric over videos of {', '.join(f'{s:g}' for s in durations)} s; {said}. {n}."
    return Plot("duration", figure, numbers.reset_index(drop=True), caption)


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
    x = np.asarray(x, dtype=np.float64)
    mean, low, high = (np.asarray(rows[c], dtype=np.float64) for c in ("mean", "low", "high"))
    below, above = np.nan_to_num(np.maximum(mean - low, 0)), np.nan_to_num(np.maximum(high - mean, 0))
    axis.errorbar(x, mean, yerr=(below, above), fmt="none", ecolor=style.colour, elinewidth=1.1, capsize=2, alpha=0.75)
    axis.plot(x, mean, **style.line, linewidth=1.5, marker=style.marker, markersize=4.5)
    if dots is None:
        return
    for at, seconds, count in zip(x, rows["seconds"], rows["prompts"], strict=True):
        if count < FEWEST and (name[0], seconds, name[1]) in dots.index:
            values = dots.loc[name[0], seconds, name[1]].to_numpy()
            axis.plot(np.full(len(values), at), values, ".", color=style.colour, markersize=3, alpha=0.5)


def spread_note(numbers: pd.DataFrame) -> str:
    """What the bars are."""
    few = numbers["prompts"] < FEWEST
    interval = "bars: 95 % intervals over prompts"
    ranges = f"bars: the range of the prompts (dots), which are too few for an interval (below {FEWEST})"
    if few.all():
        return ranges
    return f"{interval}; where dots are drawn, the range of fewer than {FEWEST} prompts" if few.any() else interval


def _partial(numbers: pd.DataFrame, shown: list[str], durations: int) -> str:
    there = numbers.groupby("method")["seconds"].nunique()
    return ", ".join(label for label in shown if there[label] < durations)
