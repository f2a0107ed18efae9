"""The effects of distortions as JSON, as Markdown tables and as a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eval.validate import BLIND, Effect
from irope.provenance import environment, write_json_atomic

_INK = {True: "#1f5fa8", False: "#d95f02", None: "#9a9a9a"}
_ARROW = {"up": "↑", "down": "↓", "blind": "="}

_LEGEND = f"""Mean change of each score at full strength, over {{clips}} clips of a set, each against itself.
✓: the score moves as `eval/validate.py` declares (↑ must rise, ↓ must fall, with a 95 % interval that excludes 0;
= must stay, within {BLIND:.0%} of the largest change in its row). ✗: it does not. No mark: nothing is declared.
Intervals and the weaker strengths are in the JSON file beside this one."""


def to_json(effects: Sequence[Effect], clips: int, command: str) -> dict[str, Any]:
    """JSON types, with the date, the command and the environment."""
    return {
        "schema": 1,
        "kind": "distortions",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "clips": clips,
        "environment": environment("cpu"),
        "declared": sum(effect.holds is not None for effect in effects),
        "hold": sum(effect.holds is True for effect in effects),
        "effects": [effect.to_json() for effect in effects],
    }


def to_markdown(effects: Sequence[Effect], clips: int, command: str) -> str:
    """One table a set of clips: scorers by distortions."""
    declared = [effect for effect in effects if effect.holds is not None]
    held = sum(effect.holds is True for effect in declared)
    lines = [
        "# What distortions do to the scores",
        "",
        f"`{command}`, {datetime.now(UTC):%Y-%m-%d}. {held} of {len(declared)} declared effects hold.",
        "",
        _LEGEND.format(clips=clips),
    ]
    for clip_set in dict.fromkeys(effect.clip_set for effect in effects):
        rows = _grid([effect for effect in effects if effect.clip_set == clip_set])
        names = list(next(iter(rows.values())))
        lines += ["", f"## {clip_set}", "", "| score | clean | " + " | ".join(names) + " |"]
        lines += ["| --- | ---: |" + " ---: |" * len(names)]
        for scorer, row in rows.items():
            clean = next(iter(row.values())).clean
            lines.append(f"| {scorer} | {_number(clean)} | " + " | ".join(_cell(row[name]) for name in names) + " |")
    return "\n".join(lines) + "\n"


def _grid(effects: Sequence[Effect]) -> dict[str, dict[str, Effect]]:
    rows: dict[str, dict[str, Effect]] = {}
    for effect in effects:
        rows.setdefault(effect.scorer, {})[effect.distortion] = effect
    return rows


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _cell(effect: Effect) -> str:
    change = effect.interval.estimate
    text = "0" if abs(change) < 5e-4 else ("+" if change > 0 else "−") + _number(abs(change))
    if effect.expected is None:
        return text
    return f"{text} {_ARROW[effect.expected]}{'✓' if effect.holds else '✗'}"


def write(effects: Sequence[Effect], clips: int, command: str, stem: Path, plot: Path | None = None) -> list[Path]:
    """Write ``stem``.json and ``stem``.md, and the plot if a path is given; gives the paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    data, table = stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".md")
    write_json_atomic(data, json.loads(json.dumps(to_json(effects, clips, command))))
    table.write_text(to_markdown(effects, clips, command), encoding="utf-8")
    if plot is not None:
        draw(effects, plot)
    return [data, table, *([plot] if plot else [])]


def draw(effects: Sequence[Effect], path: Path, sets: Sequence[str] = ("world", "photo")) -> None:
    """Small multiples: a row a score, a column a distortion; change of the score over the strength, rows share a scale.

    One line a set of clips: full for the first, dashed for the second. Blue: moves or stays as declared, orange: does
    not, grey: nothing is declared. Scorers that have nothing declared are left out.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    kept = [effect for effect in effects if effect.clip_set in sets]
    scorers = list(dict.fromkeys(effect.scorer for effect in kept if effect.expected is not None))
    columns = list(dict.fromkeys(effect.distortion for effect in kept))
    by_key = {(effect.scorer, effect.distortion, effect.clip_set): effect for effect in kept}
    figure = Figure(figsize=(1.25 * len(columns) + 1.6, 0.62 * len(scorers) + 0.9))
    canvas = FigureCanvasSVG(figure) if path.suffix == ".svg" else FigureCanvasAgg(figure)
    axes = figure.subplots(len(scorers), len(columns), sharex=True, sharey="row", squeeze=False)
    for row, scorer in zip(axes, scorers, strict=True):
        for axis, column in zip(row, columns, strict=True):
            axis.axhline(0, color="#d0d0d0", linewidth=0.6)
            for style, clip_set in zip(("-", "--"), sets, strict=False):
                if effect := by_key.get((scorer, column, clip_set)):
                    axis.plot(
                        (0, *effect.strengths), (0, *effect.means), style, color=_INK[effect.holds], linewidth=1.5
                    )
            axis.set_xticks([])
            axis.tick_params(labelsize=6, length=2)
            axis.margins(y=0.15)
            for side in ("top", "right", "bottom"):
                axis.spines[side].set_visible(False)
            axis.spines["left"].set_linewidth(0.5)
        row[0].set_ylabel(scorer, rotation=0, ha="right", va="center", fontsize=8)
        row[0].yaxis.set_label_coords(-0.42, 0.5)
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column.replace("_", " "), fontsize=8)
    figure.text(
        0.5,
        0.005,
        "change of the score, strength from 0 (left) to 1 (right); full line: embedded world, dashed: photographs;\n"
        "blue: moves or stays as declared, orange: does not, grey: nothing declared",
        ha="center",
        fontsize=7,
        color="#555555",
    )
    figure.subplots_adjust(left=0.2, right=0.99, top=0.95, bottom=0.045, hspace=0.3, wspace=0.12)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "irope"}):  # small, and the same file every time
        canvas.print_figure(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
