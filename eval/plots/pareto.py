"""What quality costs: score against bytes of the KV cache and against seconds a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from eval.frame import title
from eval.plots.colours import GREY
from eval.plots.duration import spread_note
from eval.plots.numbers import cell_styles, short_labels
from eval.plots.plot import Key, NoPlotError, Plot, counted, finish, gaps, key, panels, subtitle
from eval.table import OVERALL, better
from irope.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from eval.results import Results

HEADLINES = ("quality", "world_prompt", "overall_consistency", "segment_alignment", "imaging_quality", "imaging")
"""Metrics that stand for quality, the first that was scored."""


_RING: dict[str, Any] = {"marker": "o", "markersize": 13, "markerfacecolor": "none", "markeredgecolor": GREY}


class MixedDevicesError(UserError, ValueError):
    """Times of different devices would share an axis; names the devices."""


def pareto(results: Results, numbers: pd.DataFrame, metric: str | None = None) -> Plot:
    """A point a cell in two panels, with the frontier of the cells that no other beats in both score and cost.

    Score: mean with its interval at the longest duration. KV: the bytes of the cache's pages, the largest of a cell's
    videos. Seconds a frame: the median of its videos, with the range from the 25 % to the 75 % quantile.

    Args:
        numbers: `eval.plots.numbers.numbers` of the results.
        metric: the score; by default the first of `HEADLINES` that is there.

    Raises:
        NoPlotError: no score to stand for quality, or no cost was recorded.
        MixedDevicesError: the videos were made on different devices.
    """
    costs = results.costs.dropna(subset=["seconds_per_frame", "kv_bytes"])
    metric = metric or next((name for name in HEADLINES if name in set(numbers["metric"])), None)
    if metric is None or metric not in set(numbers["metric"]):
        raise NoPlotError(f"no score stands for quality here (any of {', '.join(HEADLINES)})")
    way = better(metric)
    if way is None:
        raise NoPlotError(f"{metric} ranks nothing, so nothing can be won by cost")
    device = one_device(costs)
    data = _points(numbers[numbers["metric"] == metric], costs)
    if data.empty:
        raise NoPlotError("no cost was recorded beside the scored videos")
    looks, (labels, heading) = cell_styles(results), short_labels(results)
    scale, unit = _bytes_unit(float(data["kv_bytes"].min()))
    figure, axes = panels(2, size=(4.3, 3.4))
    columns = [("kv_bytes", 1 / scale, f"KV cache ({unit}), less is better")]
    columns += [("seconds_per_frame", 1000.0, "generation time (ms a frame), less is better")]
    for axis, (cost, factor, label) in zip(axes, columns, strict=True):
        for row in data.to_dict("records"):
            look, x, y = looks[row["method"]], row[cost] * factor, row["mean"]
            bar = [[max(0.0, y - _or(row["low"], y))], [max(0.0, _or(row["high"], y) - y)]]
            wide = [[x - row["time_low"] * factor], [row["time_high"] * factor - x]] if cost != "kv_bytes" else None
            axis.errorbar(x, y, yerr=bar, xerr=wide, fmt="none", ecolor=look.colour, elinewidth=1, capsize=2, alpha=0.6)
            axis.plot(x, y, marker=look.marker, color=look.colour, markersize=7, linestyle="none")
        best = data.loc[frontier(data[cost].tolist(), data["mean"].tolist(), way)].sort_values(cost)
        axis.plot(
            best[cost] * factor,
            best["mean"],
            color=GREY,
            linewidth=1,
            linestyle=(0, (4, 2)),
            zorder=1,
            drawstyle="steps-post",
        )
        axis.plot(best[cost] * factor, best["mean"], **_RING, linestyle="none")
        axis.set_xlabel(label, fontsize=8.5, color=GREY)
        axis.set_ylabel(f"{OVERALL.get(metric) or title(metric)}, {way} is better", fontsize=8.5, color=GREY)
        axis.margins(0.12)
    keys = [_dot(key(labels[label], looks[label])) for label in labels if label in set(data["method"])]
    keys.append(Key("frontier", {**_RING, "linestyle": (0, (4, 2)), "color": GREY, "linewidth": 1}))
    n = counted(data["prompts"].tolist(), data["videos"].tolist())
    seconds = float(data["seconds"].iloc[0])
    notes = [
        f"device: {device}; videos of {round(seconds, 1):g} s; frontier: cells that none beats in both score and cost",
        f"{spread_note(data, dots=False)}; of time: the middle half of the videos",
        *_left_out(labels, data),
        *gaps(results),
    ]
    finish(figure, f"{OVERALL.get(metric) or title(metric)} against cost", subtitle(results, n), keys, notes, heading)
    data["frontier_kv"] = data.index.isin(frontier(data["kv_bytes"].tolist(), data["mean"].tolist(), way))
    data["frontier_time"] = data.index.isin(frontier(data["seconds_per_frame"].tolist(), data["mean"].tolist(), way))
    caption = f"What the score costs in memory and time on {device}. {n}."
    return Plot("pareto", figure, data.assign(device=device), caption)


def one_device(costs: pd.DataFrame) -> str:
    """The device on which all videos were made.

    Raises:
        MixedDevicesError: there are several.
    """
    devices = sorted(set(costs["device"]))
    if len(devices) > 1:
        counts = costs["device"].value_counts()
        listed = ", ".join(f"{counts[name]} on {name or 'an unnamed device'}" for name in devices)
        raise MixedDevicesError(
            f"videos were made on different devices ({listed}): their times do not belong in one plot; "
            "plot folders of one device each, or make the videos again on one device"
        )
    return (devices[0] if devices else "") or "not recorded"


def frontier(cost: Sequence[float], score: Sequence[float], way: Literal["higher", "lower"]) -> list[int]:
    """Positions of the points that no other equals or beats in both cost and score while beating it in one."""
    sign = 1 if way == "higher" else -1
    points = [(c, -sign * s) for c, s in zip(cost, score, strict=True)]
    return [i for i, (c, s) in enumerate(points) if not any(a <= c and b <= s and (a, b) != (c, s) for a, b in points)]


def _points(numbers: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Rows of the longest duration with their costs."""
    at = numbers[numbers["seconds"] == numbers["seconds"].max()]
    time = costs.groupby("method")["seconds_per_frame"]
    found = time.quantile(np.array([0.25, 0.5, 0.75])).unstack().rename(columns={0.25: "time_low", 0.75: "time_high"})
    found = found.rename(columns={0.5: "seconds_per_frame"}).assign(kv_bytes=costs.groupby("method")["kv_bytes"].max())
    kept = ["method", "base", "metric", "seconds", "mean", "low", "high", "interval", "prompts", "videos"]
    return at[kept].merge(found, left_on="method", right_index=True).reset_index(drop=True)


def _bytes_unit(least: float) -> tuple[float, str]:
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if least >= 2 ** (10 * power):
            return float(2 ** (10 * power)), unit
    return 1.0, "bytes"


def _or(value: float, other: float) -> float:
    return other if np.isnan(value) else value


def _dot(entry: Key) -> Key:
    return Key(entry.label, {**entry.look, "linestyle": "none", "markersize": 7})


def _left_out(labels: dict[str, str], data: pd.DataFrame) -> list[str]:
    absent = [label for label in labels if label not in set(data["method"])]
    return [f"without score or cost: {', '.join(absent)}"] if absent else []
