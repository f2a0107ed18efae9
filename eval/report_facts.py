"""What a report says besides tables and plots: where the videos come from, and which are the worst and the best."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.results import CellFiles, Results, VideoFiles
from eval.table import better

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Standout:
    """A video and its place among all of the experiment.

    Attributes:
        place: mean over metrics of the share of videos that it is at least as good as, 0..1.
        worst: up to three metrics in which it stands lowest, with their values.
    """

    label: str
    prompt: str
    seed: int
    file: Path
    command: str
    length: str
    place: float
    worst: tuple[tuple[str, float], ...]


def ranked(frame: pd.DataFrame) -> tuple[list[Standout], int]:
    """The videos of an experiment, worst first, and over how many metrics: those with a direction and two values.

    Every video counts once, in its longest scored window; videos are ranked among those of the same length. Ranks and
    not values are averaged, because the scales of metrics have nothing to do with each other.

    Args:
        frame: of `eval.experiment_table.experiment_frame`.
    """
    longest = frame[frame["seconds"] == frame.groupby("file")["seconds"].transform("max")]
    known = longest[longest["value"].notna() & longest["metric"].map(lambda name: better(name) is not None)]
    known = known[known.groupby(["metric", "length"])["value"].transform("nunique") > 1]
    if known.empty:
        return [], 0
    sign = known["metric"].map(lambda name: -1.0 if better(name) == "lower" else 1.0)
    scored = known.assign(better=known["value"] * sign)
    places = scored.groupby(["metric", "length"])["better"].rank(pct=True, method="average")
    found = []
    for (_, file), of in scored.assign(place=places).groupby(["method", "file"], sort=False):
        row, low = of.iloc[0], of.sort_values("place").head(3)
        worst = tuple(zip(low["metric"], low["value"].astype(float), strict=True))
        found.append(
            Standout(
                row["method"],
                row["prompt"],
                int(row["seed"]),
                Path(str(file)),
                row["command"],
                row["length"],
                float(of["place"].mean()),
                worst,
            )
        )
    found.sort(key=lambda video: (video.place, video.label, video.prompt, video.seed))
    return found, int(known["metric"].nunique())


def provenance(results: Results) -> dict[str, Any]:
    """Which videos stand behind the report, made by what: a function of what is on disk, without any folder of it."""
    makers: Counter[str] = Counter()
    cells = []
    for cell in results.cells:
        videos = [_video(cell, video, makers) for video in cell.videos]
        cells.append(
            {
                "cell": cell.label,
                "method": cell.method,
                "axes": dict(cell.axes),
                "videos": [video for video in videos if video is not None],
                "missing": [f"{v.video.stem}" for v, found in zip(cell.videos, videos, strict=True) if found is None],
                "not scored": results.missing.get(cell.label, 0),
            }
        )
    return {
        "experiment": results.name,
        "tier": results.tier,
        "protocol": results.protocol,
        "model": results.model,
        "made by": [json.loads(maker) | {"videos": count} for maker, count in makers.most_common()],
        "cells": cells,
    }


def _video(cell: CellFiles, video: VideoFiles, makers: Counter[str]) -> dict[str, Any] | None:
    try:
        facts = json.loads(video.sidecar.read_text(encoding="utf-8"))
        environment = facts.get("environment", {})
    except (OSError, ValueError, AttributeError):
        return None
    maker = {key: environment.get(key) for key in ("git", "python", "platform", "packages", "device")}
    makers[json.dumps(maker, sort_keys=True)] += 1
    return {
        "prompt": video.prompt,
        "seed": video.seed,
        "file": f"{cell.label}/{video.video.name}",
        "key": facts.get("key"),
        "frames_sha256_chain": facts.get("frames_sha256_chain"),
        "scored": video.scores.is_file(),
    }


def costs(results: Results) -> list[dict[str, Any]]:
    """A line a cell and device: n, the median seconds a frame, the largest KV bytes."""
    lines = []
    for (label, device), of in results.costs.groupby(["method", "device"], sort=False):
        line = {"label": label, "device": device, "n": len(of)}
        bytes_, seconds = of["kv_bytes"].max(), of["seconds_per_frame"].median()
        line |= {"kv_bytes": None if np.isnan(bytes_) else int(bytes_)}
        lines.append(line | {"seconds_per_frame": None if np.isnan(seconds) else float(seconds)})
    return lines
