"""The numbers that plots share: means with intervals as the tables have them, curves in time, and their bands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from eval.plots.colours import Style, styles
from eval.stats import FEWEST, Interval, expanded_level

if TYPE_CHECKING:
    import pandas as pd

    from eval.results import Results

RESAMPLES = 1_999
"""Of the bands of curves, which are looked at and not read off."""

NUMBERS = ("method", "base", "seconds", "metric", "mean", "low", "high", "interval", "prompts", "videos")


def cell_styles(results: Results) -> dict[str, Style]:
    """The look of every cell, by label."""
    return styles((cell.label, cell.method, [cell.axes[axis] for axis in results.axes]) for cell in results.cells)


def short_labels(results: Results) -> tuple[dict[str, str], str]:
    """What the legend calls every cell, and the legend's title: what all cells have in common is said once."""
    methods = {cell.method for cell in results.cells}
    if len(methods) == 1 and results.axes and len(results.cells) > 1:
        settings = {c.label: ", ".join(f"{axis}={show(c.axes[axis])}" for axis in results.axes) for c in results.cells}
        if len(set(settings.values())) == len(settings):
            return settings, methods.pop()
    return {cell.label: cell.label for cell in results.cells}, ""


def show(value: Any) -> str:
    """A setting as it is written in a configuration."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def numbers(results: Results) -> pd.DataFrame:
    """The cells of the tables (`eval.table`) as rows: columns `NUMBERS` and the axes; the Overall where it is defined.

    A row without any value is left out. ``interval`` is the method of `eval.stats.Interval`.
    """
    import pandas as pd

    from eval.table import tables

    frame = results.frame
    lengths = frame.groupby("length")["seconds"].median()
    cells = {cell.label: cell for cell in results.cells}
    rows = []
    for table in tables(frame) if len(frame) else ():
        for row in table.rows:
            cell = cells[row.label]
            named = {"method": cell.label, "base": cell.method, "seconds": float(lengths[row.length]), **cell.axes}
            for metric in table.metrics:
                if metric in row.cells and row.cells[metric].interval.n:
                    rows.append(named | {"metric": metric} | _bounds(row.cells[metric].interval))
    made = pd.DataFrame(rows, columns=[*NUMBERS, *results.axes])
    return made.astype({"mean": float, "low": float, "high": float})


def _bounds(found: Interval) -> dict[str, Any]:
    bounds = {"mean": found.estimate, "low": found.low, "high": found.high, "interval": found.method}
    return bounds | {"prompts": found.clusters, "videos": found.n}


def prompt_means(results: Results) -> pd.Series[float]:
    """Mean over seeds, indexed by method, seconds, metric and prompt: the dots shown where prompts are few."""
    known = results.frame.dropna(subset=["value"])
    seconds = known.groupby("length")["seconds"].transform("median")
    return known.assign(seconds=seconds).groupby(["method", "seconds", "metric", "prompt"])["value"].mean()


def curves(results: Results) -> pd.DataFrame:
    """Curves of the longest window from the start: columns method, prompt, seed, metric, second (middle of its window),
    value; NaN where a window has none."""
    import pandas as pd

    rows = [row for cell, video, content in results.score_files() for row in _curves(cell.label, video, content)]
    return pd.DataFrame(rows, columns=["method", "prompt", "seed", "metric", "second", "value"])


def longest(content: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
    """Frames and scores of the longest window that begins with the video; None if there is none."""
    found = {
        int(name.split("-")[1]): scored["scores"] for name, scored in content["windows"].items() if name[:2] == "0-"
    }
    return max(found.items(), key=lambda item: item[0]) if found else None


def _curves(label: str, video: Any, content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    window = longest(content)
    if window is None:
        return
    length = window[0] / content["video"]["fps"]
    for metric, found in window[1].items():
        curve = found.get("curve")
        if curve is None:
            continue
        same = {"method": label, "prompt": video.prompt, "seed": video.seed, "metric": metric}
        for i, value in enumerate(curve["values"]):
            start, stop = i * curve["seconds"], min((i + 1) * curve["seconds"], length)
            if stop - start < 0.5 * curve["seconds"] and i:
                continue  # a few frames at the end are no second
            yield same | {"second": (start + stop) / 2, "value": float("nan") if value is None else value}


def band(x: NDArray[np.float64], seed: int = 0) -> tuple[NDArray[np.float64], ...]:
    """(mean, low, high, prompts) of curves ``x`` float64 [prompts, points], NaN where a prompt has no value.

    Low and high are a pointwise 95 % bootstrap over prompts, as `eval.stats.mean_interval` but with `RESAMPLES`
    resamples that keep whole curves together; the range of the prompts where fewer than `FEWEST` have a value.
    """
    known = ~np.isnan(x)
    count = known.sum(axis=0)
    with np.errstate(invalid="ignore"):
        mean = np.where(known, x, 0).sum(axis=0) / count
    low, high = mean.copy(), mean.copy()
    patterns, which = np.unique(known, axis=1, return_inverse=True)
    for number, rows in enumerate(patterns.T):
        columns = np.flatnonzero(which.ravel() == number)
        values = x[np.ix_(rows, columns)]
        if not rows.any():
            continue
        least, most = values.min(axis=0), values.max(axis=0)
        if rows.sum() < FEWEST:
            low[columns], high[columns] = least, most
            continue
        spread = most - least > 1e-12 * np.maximum(1, np.abs(values).max(axis=0))  # BCa divides by it
        if spread.any():
            found = stats.bootstrap(
                (values[:, spread],),
                np.mean,
                axis=0,
                n_resamples=RESAMPLES,
                batch=max(1, 5_000_000 // values.size),
                confidence_level=expanded_level(int(rows.sum())),
                rng=np.random.default_rng(seed),
            ).confidence_interval
            low[columns[spread]], high[columns[spread]] = found.low, found.high
    return mean, low, high, count
