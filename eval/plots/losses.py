"""Loss curves of training runs of the embedded model, from their ``losses.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.plots.colours import GREY, INK, LINES, RULE, Style
from eval.plots.plot import Key, NoPlotError, Plot, finish, panels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NEEDED = ("step", "stage", "loss_first", "loss_later", "minutes")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#1b1b1b")
_PANELS = {"loss_first": "first block of a clip", "loss_later": "blocks after it"}


def losses(paths: Sequence[Path], *, name: str = "losses") -> Plot:
    """Loss over steps, a panel for first blocks and one for later ones, a line a run; stages are marked.

    Args:
        paths: ``losses.csv`` files; a run is called by its folder.

    Raises:
        NoPlotError: a file is missing, holds no losses, or two runs have one name.
    """
    import pandas as pd
    from matplotlib.ticker import LogLocator, NullFormatter

    runs = {path.resolve().parent.name: _read(path) for path in paths}
    if len(runs) < len(paths):
        raise NoPlotError("two of these losses.csv lie in folders of one name; runs are told apart by their folder")
    figure, axes = panels(len(_PANELS), size=(4.6, 2.9))
    keys = []
    for number, (run, rows) in enumerate(runs.items()):
        look = Style(_COLOURS[number % len(_COLOURS)], "", LINES[number % len(LINES)]).line
        keys.append(Key(f"{run}: {rows['step'].iloc[-1]} steps, {rows['minutes'].iloc[-1]:.0f} min", look))
        for axis, column in zip(axes, _PANELS, strict=True):
            axis.plot(rows["step"], rows[column], linewidth=1.2, alpha=0.85, **look)
    longest = max(runs.values(), key=lambda rows: rows["step"].iloc[-1])
    for axis, title in zip(axes, _PANELS.values(), strict=True):
        axis.set_yscale("log")
        axis.set_title(title, fontsize=9.5, loc="left", color=INK, pad=16)
        axis.set_xlabel("step", fontsize=8, color=GREY)
        axis.set_ylabel("loss", fontsize=8, color=GREY)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        _mark_stages(axis, longest)
    note = (
        "squared error of the predicted flow per element, cells on the subject weighted up to five times, mean over "
        "the steps since the last point. Stages differ in clips and pasts: compare runs, not stages"
    )
    subtitle = f"the embedded model · {len(runs)} run{'s' * (len(runs) > 1)}"
    finish(figure, "Training loss", subtitle, keys, [note])
    data = pd.concat([rows.assign(run=run) for run, rows in runs.items()], ignore_index=True)
    return Plot(name, figure, data, f"Training loss of {', '.join(runs)}; {note}.")


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        rows = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise NoPlotError(f"{path} cannot be read as CSV: {error}") from error
    if missing := [column for column in NEEDED if column not in rows]:
        raise NoPlotError(f"{path} is no losses.csv of irope train tiny: it has no column {missing[0]}")
    if rows.empty:
        raise NoPlotError(f"{path} holds no loss yet; a run reports every 25 steps")
    return rows


def _mark_stages(axis: Axes, rows: pd.DataFrame) -> None:
    """A line where a stage begins, its name above the frame."""
    begins = rows.groupby("stage", sort=False)["step"].agg(["first", "last"])
    for number, (stage, (first, last)) in enumerate(begins.iterrows()):
        if number:
            axis.axvline(first, color=RULE, linewidth=1.0)
        axis.annotate(
            str(stage), ((first + last) / 2, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", ha="center", fontsize=7.5, color=GREY,
        )  # fmt: skip
