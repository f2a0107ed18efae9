"""What a prompt switch costs against the number of cached frames: flush, recache, and the law fitted to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.plots.colours import GREY, INK, style
from eval.plots.plot import Key, NoPlotError, Plot, finish, key, panels
from irope.latency_report import ReportError, clock_of, load_report

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

POLICY = {"flush": "infinity_rope", "recache": "kv_recache"}


def latency(path: Path, *, name: str = "latency") -> Plot:
    """Left: what the cache costs at a switch, beyond an ordinary block. Right: the wait for the new prompt's frames.

    Args:
        path: JSON of ``irope run latency``.

    Raises:
        NoPlotError: the file holds no latency measurement.
    """
    try:
        report = load_report(path)
    except ReportError as error:
        raise NoPlotError(str(error)) from error
    clock = clock_of(report)
    kind = "CPU time" if clock == "cpu" else "wall time"
    figure, (cost, wait) = panels(2, size=(3.9, 2.9))
    rows = {method: [row for row in report["rows"] if row["method"] == method] for method in POLICY}
    for method, found in rows.items():
        look = style(POLICY[method])
        _points(cost, found, "cache_ms", clock, look.colour, look.marker, "none")
        _points(wait, found, "first_frame_ms", clock, look.colour, look.marker, look.line["linestyle"])
    ordinary = [row["ordinary_ms"][clock]["median"] for row in rows["flush"]]
    wait.plot([row["window"] for row in rows["flush"]], ordinary, color=GREY, linewidth=1.2, linestyle=":")
    keys = [key(f"{method} ({policy})", style(policy)) for method, policy in POLICY.items()]
    keys.append(Key("an ordinary block", {"color": GREY, "linewidth": 1.2, "linestyle": ":"}))
    if (fit := report["fit"][clock]) is not None:
        frames = np.linspace(0, max(row["window"] for row in rows["recache"]), 100)
        law: dict[str, Any] = {
            "color": style(POLICY["recache"]).colour,
            "linewidth": 1.2,
            "linestyle": "-",
            "alpha": 0.6,
        }
        cost.plot(frames, fit["a_ms"] * frames + fit["b_ms"] * frames**2, **law)
        keys.append(Key(f"fit: {fit['a_ms']:.3g} R {fit['b_ms']:+.2g} R², R² = {fit['r2']:.3f}", law))
    _label(cost, "cache work at the switch", f"ms beyond an ordinary block, {kind}")
    _label(wait, "until the new prompt's first frames", f"ms, {kind}")
    own = ", the embedded model" if report["model"].startswith("tiny") else ""
    device, repeats = report["environment"]["device"], report["settings"]["repeats"]
    subtitle = f"model {report['model']}{own} · {device['name']} · n = {repeats} switches a point"
    event = [row["event_us"]["5 s"]["median"] for row in rows["flush"]]
    note = (
        "points: medians, bars from p10 to p90; the wait is one block: context pass, denoising, decoding. A flush "
        f"itself takes {min(event):.0f}–{max(event):.0f} µs on the host and writes no byte of the cache"
    )
    title = "What a prompt switch costs: KV Flush against KV Recache"
    finish(figure, title, subtitle, keys, [note, *report["notes"]])
    caption = f"{subtitle}. Bars: p10 to p90; {kind}."
    return Plot(name, figure, _data(report, clock), caption)


def _points(axis: Axes, rows: list[dict[str, Any]], what: str, clock: str, colour: str, marker: str, line: Any) -> None:
    windows = [row["window"] for row in rows]
    low, middle, high = (np.array([row[what][clock][part] for row in rows]) for part in ("p10", "median", "p90"))
    axis.errorbar(
        windows, middle, [middle - low, high - middle], color=colour, marker=marker, linestyle=line,
        markersize=5, linewidth=1.4, elinewidth=0.9, capsize=2,
    )  # fmt: skip
    axis.set_xticks(windows)


def _label(axis: Axes, title: str, unit: str) -> None:
    axis.set_title(title, fontsize=9.5, loc="left", color=INK)
    axis.set_xlabel("window = frames a recache encodes again, R", fontsize=8, color=GREY)
    axis.set_ylabel(unit, fontsize=8, color=GREY)
    axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))


def _data(report: dict[str, Any], clock: str) -> pd.DataFrame:
    """One row a method and window; times are medians with p10 and p90."""
    import pandas as pd

    parts = ("cache_ms", "first_frame_ms", "ordinary_ms", "extra_ms", "prompt_ms")
    return pd.DataFrame(
        {
            **{name: row[name] for name in ("method", "window", "recached", "n", "bytes_written")},
            **{f"{part}_{which}": row[part][clock][which] for part in parts for which in ("median", "p10", "p90")},
            "event_us_median": row["event_us"]["5 s"]["median"],
        }
        for row in report["rows"]
    )
