"""Frame-to-frame attention maps, as ∞-RoPE's supplement G draws them: query frames on y, key frames on x."""

from __future__ import annotations

import json
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.plots.colours import CUT, GREY, INK, SWITCH
from eval.plots.plot import Key, NoPlotError, Plot, finish
from irope.explain.svg import FILL

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Maps = NDArray[np.float32]

PARTS = {"sink": FILL["sink"], "past": FILL["past"], "own block": FILL["new"], "other": "#c9ced6"}
"""Where attention goes, in the colours of ``irope explain``; the rest is memory pages and later frames."""
_EMPTY = "#eceff2"  # not attended
_GRIDDED = 96  # frames up to which block edges can be told apart


def attention(
    path: Path, *, scale: Literal["log", "power"] = "log", gamma: float = 0.4, name: str = "attention"
) -> Plot:
    """A panel a map with one colour scale for all, and below each how much of a segment's attention goes where.

    Args:
        path: npz with ``maps`` float32 [n, T, T], whose rows sum to 1 and are NaN where not attended, and ``info``, a
            JSON string: panels (label, events, block, sink), layer, step, model, prompt.
        scale: of the colours: logarithmic from 0.001 to the largest value, or a power of the value.

    Raises:
        NoPlotError: the file does not hold attention maps.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, PowerNorm
    from matplotlib.figure import Figure

    maps, info = read_maps(path)
    shades = colormaps["viridis"].with_extremes(bad=_EMPTY)
    count = len(maps)
    columns = count if count < 4 else 3 if count in (5, 6, 9) else 4
    rows = ceil(count / columns)
    figure = Figure(figsize=(2.9 * columns, 3.9 * rows), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    most = float(np.nanmax(maps))
    norm = LogNorm(1e-3, max(most, 2e-3), clip=True) if scale == "log" else PowerNorm(gamma, 0, most)
    shape = {"height_ratios": [3.2, 1] * rows}
    grid = figure.subplots(2 * rows, columns, squeeze=False, gridspec_kw=shape)
    for number in range(rows * columns):
        above, below = (
            grid[2 * (number // columns)][number % columns],
            grid[2 * (number // columns) + 1][number % columns],
        )
        if number >= count:
            above.set_axis_off()
            below.set_axis_off()
            continue
        panel = info["panels"][number]
        above.imshow(maps[number], norm=norm, cmap=shades, interpolation="nearest", origin="upper")
        _decorate(above, panel, maps.shape[1])
        _bars(below, segment_shares(maps[number], panel))
    bar = figure.colorbar(ScalarMappable(norm, shades), ax=list(figure.axes), shrink=0.6, pad=0.01, aspect=30)
    bar.set_label("attention (a row sums to 1)", fontsize=8, color=GREY)
    bar.ax.tick_params(labelsize=8)
    data = _data(maps, info)
    finish(figure, _title(info), _subtitle(info, maps), _keys(info), [_note(maps, info), f"prompt: {info['prompt']}"])
    said = f"{_title(info)}, {_subtitle(info, maps)}: {info['prompt']}"
    caption = f"{said}. Below each map: the mean attention of a segment's frames."
    return Plot(name, figure, data, caption)


def read_maps(path: Path) -> tuple[Maps, dict[str, Any]]:
    """Maps and info of a file; see `attention`.

    Raises:
        NoPlotError: the file does not hold attention maps.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            maps, info = np.asarray(file["maps"], dtype=np.float32), json.loads(str(file["info"]))
    except (OSError, ValueError, KeyError) as error:
        raise NoPlotError(f"{path} holds no attention maps: {error}") from error
    if maps.ndim != 3 or maps.shape[1] != maps.shape[2] or len(info["panels"]) != len(maps) or np.isnan(maps).all():
        raise NoPlotError(f"{path}: maps {list(maps.shape)} for {len(info['panels'])} panels; expected [n, T, T] for n")
    return maps, info


def segment_shares(map_TT: Maps, panel: dict[str, Any]) -> list[dict[str, Any]]:
    """Mean attention of the frames of each segment on the sink, on the past behind it, and on their own block.

    The first two blocks are left out: they have no past to look at. ``other`` is what is missing to 1. ``start``,
    ``stop``: frames of the segment.
    """
    block, sink = int(panel["block"]), int(panel["sink"])
    edges = [0, *sorted(int(frame) for frame, _ in panel["events"]), len(map_TT)]
    found = []
    for start, stop in pairwise(edges):
        frames = [t for t in range(max(start, 2 * block), stop) if np.isfinite(map_TT[t]).any()]
        if not frames:
            continue
        parts = np.zeros(3)
        for t in frames:
            row, begin = np.nan_to_num(map_TT[t]), t // block * block
            parts += [row[:sink].sum(), row[sink:begin].sum(), row[begin : begin + block].sum()]
        shares = dict(zip(("sink", "past", "own block"), (parts / len(frames)).tolist(), strict=True))
        found.append({"start": start, "stop": stop, **shares, "other": max(0.0, 1 - sum(shares.values()))})
    return found


def _decorate(axis: Axes, panel: dict[str, Any], frames: int) -> None:
    block, sink = int(panel["block"]), int(panel["sink"])
    axis.set_title(panel["label"], fontsize=9.5, loc="left", color=INK)
    axis.tick_params(labelsize=8, colors=INK, length=3)
    axis.set_ylabel("query frame (latent)", fontsize=8, color=GREY)
    axis.set_xlabel("key frame (latent)", fontsize=8, color=GREY)
    if frames <= _GRIDDED:
        for edge in range(block, frames, block):
            axis.axhline(edge - 0.5, color="white", linewidth=0.35, alpha=0.55)
            axis.axvline(edge - 0.5, color="white", linewidth=0.35, alpha=0.55)
    if sink:
        axis.axvline(sink - 0.5, color=PARTS["sink"], linewidth=1.1)
    for frame, kind in panel["events"]:
        look: dict[str, Any] = {"color": CUT if kind == "cut" else SWITCH, "linewidth": 1.1, "linestyle": (0, (3, 2))}
        axis.axhline(frame - 0.5, **look)
        axis.axvline(frame - 0.5, **look)


def _bars(axis: Axes, shares: list[dict[str, Any]]) -> None:
    """A stacked bar for each segment, with its numbers."""
    names = [f"{s['start']}–{s['stop'] - 1}" for s in shares]
    left = np.zeros(len(shares))
    for part, colour in PARTS.items():
        values = np.array([s[part] for s in shares])
        if part == "other" and (values < 0.005).all():
            continue
        axis.barh(range(len(shares)), values, left=left, color=colour, height=0.78)
        for place, value in enumerate(values):
            if value >= 0.12:
                ink = "white" if part == "own block" else INK
                axis.text(
                    left[place] + value / 2, place, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=ink
                )
        left = left + values
    axis.set_yticks(range(len(shares)), names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.5, 1])
    axis.tick_params(labelsize=7.5, colors=INK, length=2)
    axis.set_ylabel("frames", fontsize=8, color=GREY)
    axis.set_xlabel("mean attention", fontsize=8, color=GREY)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _title(info: dict[str, Any]) -> str:
    return f"Attention maps: layer {info['layer']}, denoising step {info['step']}"


def _subtitle(info: dict[str, Any], maps: Maps) -> str:
    own = ", the embedded model" if str(info["model"]).startswith("tiny") else ""
    named = f"{info['name']} · " if info.get("name") else ""
    return f"{named}model {info['model']}{own} · {maps.shape[1]} latent frames · n = 1 video a map"


def _keys(info: dict[str, Any]) -> list[Key]:
    kinds = {kind for panel in info["panels"] for _, kind in panel["events"]}
    keys = [
        Key(part, {"marker": "s", "linestyle": "none", "color": colour, "markersize": 8})
        for part, colour in PARTS.items()
    ]
    keys.append(Key("not attended", {"marker": "s", "linestyle": "none", "color": _EMPTY, "markersize": 8}))
    keys += [Key("end of the sink", {"color": PARTS["sink"], "linewidth": 1.2})]
    if "switch" in kinds:
        keys.append(Key("prompt switch", {"color": SWITCH, "linewidth": 1.2, "linestyle": (0, (3, 2))}))
    if "cut" in kinds:
        keys.append(Key("scene cut", {"color": CUT, "linewidth": 1.2, "linestyle": (0, (3, 2))}))
    return keys


def _note(maps: Maps, info: dict[str, Any]) -> str:
    grid = "white lines: blocks; " if maps.shape[1] <= _GRIDDED else ""
    return f"{grid}bars: the frames of a segment without the first two blocks; one colour scale for all maps"


def _data(maps: Maps, info: dict[str, Any]) -> pd.DataFrame:
    """One row an attended pair: panel, query, key, attention."""
    import pandas as pd

    parts = []
    for panel, map_TT in zip(info["panels"], maps, strict=True):
        query, key = np.nonzero(np.isfinite(map_TT))
        parts.append(
            pd.DataFrame({"panel": panel["label"], "query": query, "key": key, "attention": map_TT[query, key]})
        )
    return pd.concat(parts, ignore_index=True)
