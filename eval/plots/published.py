"""Published numbers as open markers, where they may stand beside ours: the same protocol and the same generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eval.plots.colours import INK, PAPER, Style, style
from eval.plots.plot import Key

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from eval.results import Results

_LOOK: dict[str, Any] = {"linestyle": "none", "markerfacecolor": PAPER, "markeredgewidth": 1.3, "markersize": 6.5}
PUBLISHED_KEY = Key("published (open markers)", {**_LOOK, "marker": "o", "markeredgecolor": INK})


def published_points(results: Results) -> pd.DataFrame:
    """Rows of the published tables that the experiment answers and that may be drawn beside ours: columns base,
    seconds, metric, mean, table, and the axes (missing where a table does not say).

    Empty where the protocol or the generator is another one.
    """
    import pandas as pd

    from eval.published import SAME_ROWS, published_frame
    from eval.table_published import named, our_metrics, why_apart

    rows = []
    ours = {SAME_ROWS.get(cell.method, cell.method) for cell in results.cells}
    printed = published_frame() if results.published else None
    for name, axes in results.published.items():
        if printed is None or why_apart(named(name), results.protocol, results.model):
            continue
        here = printed[(printed["table"] == name) & (printed["protocol"] == results.protocol)]
        for row in here[here["method"].isin(ours)].to_dict("records"):
            setting = dict(part.split("=", 1) for part in row["setting"].split(", ") if part)
            same = {"base": row["method"], "seconds": row["seconds"], "mean": row["value"], "table": name}
            same |= {axis: _value(setting[theirs]) for theirs, axis in axes.items() if theirs in setting}
            rows += [same | {"metric": metric} for metric in our_metrics(row["metric"])]
    return pd.DataFrame(rows, columns=["base", "seconds", "metric", "mean", "table", *results.axes])


def published_notes(points: pd.DataFrame) -> list[str]:
    """Where the open markers come from."""
    from eval.table_published import OWN_WEIGHTS, named

    notes = [f"published: {named(str(name)).source}, no interval" for name in points["table"].unique()]
    own = sorted(set(points["base"]) & OWN_WEIGHTS)
    return notes + [
        f"published {', '.join(own)}: generators with weights of their own besides the cache policy"
    ] * bool(own)


def draw_published(axis: Axes, points: pd.DataFrame, x: str, looks: Mapping[str, Style]) -> None:
    """Open markers at column ``x``, never joined to our lines, in the colour of the method."""
    for base, rows in points.dropna(subset=[x]).groupby("base", sort=False):
        own = looks.get(str(base)) or style(str(base))
        axis.plot(rows[x].astype(float), rows["mean"], marker=own.marker, markeredgecolor=own.colour, zorder=4, **_LOOK)


def _value(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
