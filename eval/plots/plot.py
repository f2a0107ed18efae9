"""A plot with the numbers behind it; its frame (title, panels, legend, notes) and how it is written to disk."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.plots.colours import GREY, INK, RULE, Style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from eval.results import Results

FORMATS = ("svg", "png", "pdf")
DPI = 120
_PANEL = (3.3, 2.35)  # inches
_LETTER = 0.068  # inches, the mean width of a letter of the legend and the notes


class NoPlotError(Exception):
    """There is nothing to draw, or it may not be drawn; the text says why and what would help."""


@dataclass(frozen=True)
class Plot:
    """One picture.

    Attributes:
        name: of its files, unique among the plots of an experiment.
        data: what was drawn, one row a point.
        caption: a sentence or two on what is seen, with n and what the bands are.
    """

    name: str
    figure: Figure
    data: pd.DataFrame
    caption: str


@dataclass(frozen=True)
class Key:
    """An entry of the legend: keywords of a `matplotlib.lines.Line2D`."""

    label: str
    look: Mapping[str, Any]


def key(label: str, style: Style) -> Key:
    """The entry of a method."""
    return Key(label, {**style.line, "marker": style.marker, "markersize": 5, "linewidth": 1.6})


def panels(count: int, *, size: tuple[float, float] = _PANEL, across: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels in rows of up to ``across``, styled alike; widened for the legend by `finish`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(count, 2 if count == 4 else across)
    rows = ceil(count / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    axes = [axis for row in grid for axis in row]
    for axis in axes[count:]:
        axis.set_axis_off()
    for axis in axes[:count]:
        tidy(axis)
    return figure, axes[:count]


def tidy(axis: Axes) -> None:
    """Light frame and grid, small numbers."""
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(GREY)
    axis.grid(True, color=RULE, linewidth=0.6, alpha=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8, colors=INK, length=3)


def title_panel(axis: Axes, title: str, better: str | None) -> None:
    """Name of a panel, and on its y axis which way is better."""
    axis.set_title(title, fontsize=9.5, loc="left", color=INK)
    said = {"higher": "higher is better", "lower": "lower is better", None: "ranks nothing"}[better]
    axis.set_ylabel(said, fontsize=8, color=GREY)


def finish(
    figure: Figure, title: str, subtitle: str, keys: Sequence[Key], notes: Sequence[str], heading: str = ""
) -> None:
    """Title above, legend at the right, notes below: none of them over data."""
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    wide = max(5.2, width)
    legend = 0.0
    if keys:
        lines = [Line2D([], [], **key.look) for key in keys]
        labels = ["\n".join(textwrap.wrap(key.label, 34, break_on_hyphens=False)) or key.label for key in keys]
        legend = 0.75 + _LETTER * max(len(line) for text in [*labels, heading] for line in text.splitlines())
        drawn = figure.legend(
            lines,
            labels,
            loc="outside right upper",
            frameon=False,
            fontsize=8.5,
            handlelength=3.2,
            title=heading or None,
            alignment="left",
        )
        drawn.get_title().set_fontsize(8.5)
        drawn.get_title().set_color(GREY)
    letters = int((wide + legend) / _LETTER)
    below = [line for note in notes for line in textwrap.wrap(note, letters)]
    above = textwrap.wrap(subtitle.replace("n = ", "n\u00a0=\u00a0"), int(wide / 0.078))  # beside the legend
    figure.align_ylabels()
    # The title keeps room below itself for the smaller lines, which are placed relative to it.
    room = figure.suptitle(title + "\n" * len(above), x=0.01, ha="left", fontsize=12, color=INK, linespacing=1.15)
    figure.axes[0].annotate(
        "\n".join(above), (0, 0), xycoords=room, va="bottom", ha="left", fontsize=9.5, color=GREY, annotation_clip=False
    ).set_in_layout(False)
    if below:
        figure.supxlabel("\n".join(below), x=0.01, ha="left", fontsize=8, color=GREY)
    least = 0.25 * len(keys) + 0.2  # a long legend beside a single row
    figure.set_size_inches(wide + legend, max(height, least) + 0.2 * len(above) + 0.16 * len(below) + 0.3)


def subtitle(results: Results, n: str) -> str:
    """Experiment, tier, protocol, model and n: what every plot says of itself."""
    tier = f" ({results.tier})" if results.tier else ""
    model = results.model or "unknown"
    own = ", the embedded model" if results.model.startswith("tiny") else ""
    return f"{results.name}{tier} · protocol {results.protocol} · model {model}{own} · {n}"


def counted(prompts: Sequence[int], videos: Sequence[int]) -> str:
    """``n = 8 prompts (16 videos)``, with the range where lines differ."""

    def span(numbers: Sequence[int]) -> str:
        low, high = min(numbers, default=0), max(numbers, default=0)
        return f"{low}" if low == high else f"{low}–{high}"

    of_videos = "" if list(prompts) == list(videos) else f" ({span(videos)} videos)"
    return f"n = {span(prompts)} prompt{'' if span(prompts) == '1' else 's'}{of_videos} a point"


def varied(numbers: pd.DataFrame, x: str) -> tuple[list[str], list[str]]:
    """The metrics worth a panel over column ``x``, and notes on the others: those without a second x, and those that
    have one and the same value everywhere."""
    from eval.frame import title

    shown: list[str] = []
    single: list[str] = []
    same: dict[str, list[str]] = {}
    for metric, rows in numbers.groupby("metric", sort=False):
        values = rows["mean"].dropna()
        if rows.loc[values.index, x].nunique() < 2:
            single.append(title(str(metric)))
        elif values.nunique() == 1:
            same.setdefault(f"{values.iloc[0]:g}", []).append(title(str(metric)))
        else:
            shown.append(str(metric))
    notes = [f"{value} everywhere, not drawn: {', '.join(names)}" for value, names in same.items()]
    notes += [f"known at one point only, not drawn: {', '.join(single)}"] if single else []
    return shown, notes


def gaps(results: Results) -> list[str]:
    """What is not in the plot because it is not on disk."""
    missing = results.missing
    if not missing:
        return []
    listed = list(missing.items())
    named = ", ".join(f"{label} {count}" for label, count in listed[:4]) + (", …" if len(listed) > 4 else "")
    return [f"not there yet, left out: {sum(missing.values())} videos without scores ({named})"]


def save(plots: Sequence[Plot], folder: Path, formats: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write every plot as ``NAME.svg``, ``NAME.png`` and its data as ``NAME.csv``, and ``plots.md`` that shows them.

    The same plots give the same bytes. A file is complete or not there. Gives the paths.

    Raises:
        ValueError: a format not in `FORMATS`.
    """
    if unknown := sorted(set(formats) - set(FORMATS)):
        raise ValueError(f"format {unknown[0]!r}: {', '.join(FORMATS)}")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for plot in plots:
        for form in formats:
            written.append(folder / f"{plot.name}.{form}")
            _replace(written[-1], lambda part, form=form, plot=plot: _print(plot.figure, part, form))
        written.append(folder / f"{plot.name}.csv")
        _replace(written[-1], lambda part, plot=plot: plot.data.to_csv(part, index=False, lineterminator="\n"))
    shown = next((form for form in ("png", "svg", "pdf") if form in formats), "png")
    text = "\n\n".join(
        f"## {p.name}\n\n![{p.name}]({p.name}.{shown})\n\n{p.caption} [Data]({p.name}.csv)" for p in plots
    )
    written.append(folder / "plots.md")
    _replace(written[-1], lambda part: part.write_text(f"# Plots\n\n{text}\n", encoding="utf-8"))
    return written


def _replace(path: Path, write: Any) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)


def _print(figure: Figure, path: Path, form: str) -> None:
    from matplotlib import rc_context

    # No date, no random ids: the same figure is the same file.
    dated: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "irope"}):
        figure.savefig(path, format=form, dpi=DPI, metadata=dated[form])
