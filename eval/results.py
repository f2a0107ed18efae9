"""What an experiment has on disk: its cells, the videos behind them, their scores and their cost, as pandas tables.

Tables, plots, the report and the W&B sink are pure functions of a `Results`; whoever knows the experiment (the command
line) makes one. Reading changes nothing on disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.scores import read_scores

if TYPE_CHECKING:
    import pandas as pd


SCRIPTED = "scripted"
"""Length of videos that are as long as their scripts, where these differ."""


@dataclass(frozen=True)
class VideoFiles:
    """One video of a cell, there or not.

    Attributes:
        prompt, seed: id of the prompt and seed, which pair it with the videos of other cells.
        video: the mp4; its sidecar JSON has the same name.
        scores: the score file of the experiment's protocol.
        command: makes this one video again, from a shell in the project.
    """

    prompt: str
    seed: int
    video: Path
    scores: Path
    command: str

    @property
    def sidecar(self) -> Path:
        return self.video.with_suffix(".json")


@dataclass(frozen=True)
class CellFiles:
    """One combination of settings.

    Attributes:
        label: its name in tables and folders, unique in the experiment: ``infinity_rope@cut_delta=6``.
        method: the method it is a variant of: ``infinity_rope``.
        axes: what was varied, method apart: ``{"cut_delta": 6}``. Every cell of an experiment has the same axes.
        seconds: nominal durations that are scored, each a window from the start; empty for videos that are as long as
            their script, which are scored whole.
        config: the whole resolved configuration.
        system: name of the system that made the videos; empty for the model of the experiment.
        model: that makes the videos; empty: the experiment's.
    """

    label: str
    method: str
    axes: Mapping[str, Any]
    seconds: tuple[float, ...]
    config: Mapping[str, Any]
    videos: tuple[VideoFiles, ...]
    system: str = ""
    model: str = ""


@dataclass(frozen=True)
class Results:
    """An experiment with everything that was made for it so far.

    Attributes:
        name, tier: ``delta_ablation`` and ``quick``; ``sweep`` and an empty tier for a sweep of the command line.
        axes: names of what varies besides method, prompt, seed and duration, in order.
        protocol, model: ``embedded``, ``tiny/stable``.
        published: tables of conf/paper it answers, each with the axis behind each of the table's own keys:
            ``{"delta_ablation": {"delta": "cut_delta"}}``.
        command: continues the experiment, from a shell in the project.
        left_out: which rows the experiment would have, and why they have no videos, or none of one length; in words.
    """

    name: str
    description: str
    tier: str
    axes: tuple[str, ...]
    protocol: str
    model: str
    published: Mapping[str, Mapping[str, str]]
    command: str
    cells: tuple[CellFiles, ...] = field(repr=False, default=())
    left_out: Sequence[str] = ()

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All scores, a row for each value: the columns of `eval.frame.COLUMNS` (``method`` is the cell's label), and

        - ``base``: the method the cell is a variant of; a column for each of ``axes``;
        - ``seconds``: nominal duration; for scripts the real one without the rest of its last block, or, where scripts
          differ in length, their mean, ``length`` being `SCRIPTED`;
        - ``file``: the mp4; ``command``: makes the video again.

        Without a score it has no rows. Raises `eval.frame.MixedError` as `load_frame`.
        """
        from eval.frame import checked_frame

        records: dict[str, Any] = {}
        rows = list(self._rows(records))
        frame = checked_frame(rows, records, ("base", *self.axes, "seconds", "file", "command"))
        scripted = frame["method"].isin([cell.label for cell in self.cells if not cell.seconds])
        if frame.loc[scripted, "seconds"].nunique() > 1:  # of other prompts: nothing to compare by duration
            frame.loc[scripted, "length"] = SCRIPTED
            frame.loc[scripted, "seconds"] = frame.loc[scripted, "seconds"].mean()
        return frame

    @cached_property
    def costs(self) -> pd.DataFrame:
        """What each finished video cost, from its sidecar: columns method (the label), base, the axes, prompt, seed,

        latents, ``seconds_per_frame`` (generation time per pixel frame), ``kv_bytes`` (of the cache's pages),
        ``kv_peak_bytes`` and ``device`` (its name). Timings of different devices do not belong in one plot.
        """
        import pandas as pd

        columns = ["method", "base", *self.axes, "prompt", "seed", "latents"]
        columns += ["seconds_per_frame", "kv_bytes", "kv_peak_bytes", "device"]
        return pd.DataFrame(list(self._costs()), columns=columns)

    @property
    def missing(self) -> Mapping[str, int]:
        """Videos without scores, by cell; cells that are complete are left out."""
        gaps = {cell.label: sum(not video.scores.is_file() for video in cell.videos) for cell in self.cells}
        return {label: count for label, count in gaps.items() if count}

    def score_files(self) -> Iterator[tuple[CellFiles, VideoFiles, dict[str, Any]]]:
        """Every score file that is there, with its cell and video: for curves, which the frame does not hold."""
        for cell in self.cells:
            for video in cell.videos:
                if (content := read_scores(video.scores)) is not None:
                    yield cell, video, content

    def _rows(self, records: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The values of every score file; ``records`` takes what each video was made with, by its name."""
        from eval.frame import rows_of

        for cell, video, content in self.score_files():
            records[content["video"]["name"]] = content["video"].get("record")
            for row in rows_of(content):
                real = row.pop("real_seconds")
                nominal = min(cell.seconds, key=lambda s: abs(s - real), default=float(round(real)))
                yield row | {
                    **cell.axes,
                    "method": cell.label,
                    "base": cell.method,
                    "seconds": nominal if abs(nominal - real) < 1 else real,
                    "file": str(video.video),
                    "command": video.command,
                }

    def _costs(self) -> Iterator[dict[str, Any]]:
        for cell in self.cells:
            for video in cell.videos:
                facts = _sidecar(video.sidecar)
                if facts is None:
                    continue
                cost = facts["cost"]
                yield {
                    **cell.axes,
                    "method": cell.label,
                    "base": cell.method,
                    "prompt": video.prompt,
                    "seed": video.seed,
                    "latents": facts["latents"],
                    "seconds_per_frame": _number(cost["seconds_total"]) / facts["pixel_frames"],
                    "kv_bytes": _number(cost["kv_page_bytes"]),
                    "kv_peak_bytes": _number(cost["kv_peak_bytes"]),
                    "device": facts["environment"]["device"].get("name", ""),
                }


def _number(value: float | None) -> float:
    """NaN for what is not known: other systems have no cache of ours, and an imported video took nobody's time here."""
    return float("nan") if value is None else value


def _sidecar(path: Path) -> dict[str, Any] | None:
    """A finished video's facts; None where there are none, or the file is damaged: the video counts as missing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"cost", "latents", "pixel_frames"} <= found.keys() else None
