"""Score over a setting that an experiment varies: the curves of Δ, f0, the window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from eval.frame import title
from eval.plots.colours import GREY, Style, styles
from eval.plots.duration import draw_points, spread_note
from eval.plots.numbers import prompt_means, show
from eval.plots.plot import Key, NoPlotError, Plot, counted, finish, gaps, key, panels, subtitle, title_panel, varied
from eval.plots.published import PUBLISHED_KEY, draw_published, published_notes, published_points
from eval.stats import FEWEST
from eval.table import OVERALL, better

if TYPE_CHECKING:
    import pandas as pd

    from eval.results import Results

NAMES = {"cut_delta": "jump index Δ of RoPE Cut", "f0": "first index f0", "window": "cache size (latent frames)"}
"""What axes are called below a plot; others by their own name."""


def numeric_axes(results: Results) -> list[str]:
    """Axes with at least two values, all of them numbers."""
    found = []
    for axis in results.axes:
        values = {cell.axes[axis] for cell in results.cells}
        if len(values) > 1 and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            found.append(axis)
    return found


def ablation(results: Results, numbers: pd.DataFrame, axis: str) -> Plot:
    """Mean of each metric over ``axis``, at the longest duration, a line for each method and combination of the other
    axes; bands are 95 % intervals, or bars and dots where prompts are few. Published values are open markers.

    Args:
        numbers: `eval.plots.numbers.numbers` of the results.

    Raises:
        NoPlotError: no two values of the axis were scored.
    """
    at = numbers[numbers["seconds"] == numbers["seconds"].max()] if len(numbers) else numbers
    if at.empty or at[axis].nunique() < 2:
        raise NoPlotError(f"a plot over {axis} needs two of its values; fewer were scored")
    seconds = float(at["seconds"].iloc[0])
    others = [name for name in results.axes if name != axis]
    at = at.assign(line=[_line(row, others) for row in at.to_dict("records")], **{axis: at[axis].astype(float)})
    lines = _lines(at, others)
    metrics, undrawn = varied(at, axis)
    if not metrics:
        raise NoPlotError(f"nothing changes with {axis}: {'; '.join(undrawn)}")
    values = sorted(at[axis].unique())
    dots = prompt_means(results) if (at["prompts"] < FEWEST).any() else None
    printed = published_points(results)
    printed = printed[(printed["seconds"].isna() | (printed["seconds"] == seconds)) & printed[axis].notna()]
    figure, panels_ = panels(len(metrics))
    for panel, metric in zip(panels_, metrics, strict=True):
        title_panel(panel, OVERALL.get(metric) or title(metric), better(metric))
        for name, style in lines.items():
            rows = at[(at["line"] == name) & (at["metric"] == metric)].sort_values(axis)
            _curve(panel, rows, axis, style, dots)
        draw_published(panel, printed[printed["metric"] == metric], axis, {})
        panel.set_xticks(values, [f"{v:g}" for v in values])
        panel.margins(x=0.06)
        panel.set_xlabel(NAMES.get(axis, axis), fontsize=8, color=GREY)
    keys: list[Key] = [key(name, style) for name, style in lines.items()]
    keys += [PUBLISHED_KEY] if len(printed) else []
    n = counted(at["prompts"].tolist(), at["videos"].tolist())
    said = spread_note(at).replace("bars: 95 %", "bands: 95 %")
    about = [f"{said}; videos of {round(seconds, 1):g} s", *undrawn, *published_notes(printed), *gaps(results)]
    called = NAMES.get(axis, axis)
    finish(figure, f"Score against {called}", subtitle(results, n), keys, about)
    caption = f"Mean of every metric over {called} ({axis}), videos of {round(seconds, 1):g} s; {said}. {n}."
    return Plot(f"ablation-{axis}", figure, at.drop(columns="line").reset_index(drop=True), caption)


def _curve(panel: Any, rows: pd.DataFrame, axis: str, style: Style, dots: pd.Series[float] | None) -> None:
    if rows.empty:
        return
    if (rows["prompts"] < FEWEST).any():
        for _, row in rows.groupby(axis):  # the dots of a point are those of its own cell
            name = (row["method"].iloc[0], row["metric"].iloc[0])
            draw_points(panel, row, row[axis], style, dots, name)
        panel.plot(rows[axis], rows["mean"], **style.line, linewidth=1.5)
        return
    low, high = rows["low"].fillna(rows["mean"]), rows["high"].fillna(rows["mean"])
    panel.fill_between(rows[axis], low, high, color=style.colour, alpha=0.16, linewidth=0)
    panel.plot(rows[axis], rows["mean"], **style.line, linewidth=1.5, marker=style.marker, markersize=4.5)


def _line(row: dict[Any, Any], others: list[str]) -> str:
    settings = ", ".join(f"{name}={show(_plain(row[name]))}" for name in others)
    return f"{row['base']}, {settings}" if settings else str(row["base"])


def _lines(at: pd.DataFrame, others: list[str]) -> dict[str, Style]:
    """The look of every line: a method's own, or shades of it over the other axes."""
    first = at.drop_duplicates("line")
    return styles(
        (row["line"], row["base"], [_plain(row[name]) for name in others]) for row in first.to_dict("records")
    )


def _plain(value: Any) -> Any:
    """A setting as it was before pandas: null is None again, 6.0 is 6."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value
