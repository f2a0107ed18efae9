"""The videos behind one number of a table, worst first, each with the command that makes it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.experiment_table import experiment_frame, experiment_rows
from eval.frame import length_name, ordered_metrics
from eval.results import Results
from eval.table import Table, better, with_overall
from eval.table_cells import CellName, find_cell
from eval.table_published import PAPER_NAMES


@dataclass(frozen=True)
class VideoScore:
    """One video of a cell; ``value`` is NaN with the reason in ``skipped`` where it has no score."""

    prompt: str
    seed: int
    value: float
    file: str
    command: str
    skipped: str = ""

    def record(self) -> dict[str, Any]:
        """JSON types; NaN becomes None."""
        value = None if np.isnan(self.value) else self.value
        return {
            "prompt": self.prompt,
            "seed": self.seed,
            "value": value,
            "skipped": self.skipped or None,
            "file": self.file,
            "command": self.command,
        }


@dataclass(frozen=True)
class Why:
    """The videos of a cell in the order ``order`` says, those without a score last."""

    cell: CellName
    order: str
    videos: tuple[VideoScore, ...]


def videos_behind(results: Results, text: str) -> Why:
    """The videos behind the cell that ``text`` names, as in `eval.table_cells.find_cell`; of the combined scores each
    video's own.

    Raises:
        CellError: no such cell, or several. UserError: nothing is scored.
    """
    frame = with_overall(experiment_frame(results))
    rows = experiment_rows(results, frame)
    short = PAPER_NAMES if results.protocol.startswith("vbench") else {}
    metrics = tuple(ordered_metrics(frame))
    table = Table(results.protocol, results.model, "stock", metrics, tuple(rows), (), results.axes, short=short)
    cell = find_cell(text, table)
    of = frame[(frame["method"] == cell.label) & (frame["length"] == cell.length) & (frame["metric"] == cell.metric)]
    found: dict[Any, dict[Any, Any]] = {(row["prompt"], row["seed"]): row for row in of.to_dict("records")}
    asked = next(
        files
        for files in results.cells
        if files.label == cell.label and (not files.seconds or cell.length in map(length_name, files.seconds))
    )
    videos = []
    for files in asked.videos:
        row = found.get((files.prompt, files.seed))
        value = float("nan") if row is None else float(row["value"])
        why = "" if not np.isnan(value) else _absence(row, files.video)
        videos.append(VideoScore(files.prompt, files.seed, value, str(files.video), files.command, why))
    way = better(cell.metric)
    sign = -1 if way == "lower" else 1
    videos.sort(key=lambda v: (np.isnan(v.value), sign * v.value if not np.isnan(v.value) else 0, v.prompt, v.seed))
    order = f"worst first, {way} is better" if way else "lowest first; it ranks nothing"
    return Why(cell, order, tuple(videos))


def _absence(row: dict[Any, Any] | None, video: Path) -> str:
    if row is not None:
        return str(row["skipped"] or "skipped")
    if video.is_file():
        return "not scored"
    error = video.with_suffix(".error.json")
    return f"failed, see {error}" if error.is_file() else "not made"
