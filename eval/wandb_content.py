"""What is sent to Weights & Biases, as plain data: one run for each cell, and one for the whole experiment.

A pure function of a `Results` and of the tables made from it; the client itself is not needed here. The id of a run is
made from what it is about, so sending again updates the same run, from any machine; its digest is made from all that
it holds, so that what has not changed is not sent again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from eval.experiment_table import experiment_frame
from eval.results import CellFiles, Results
from eval.table import Table, better
from irope.identity import config_key, file_digest

if TYPE_CHECKING:
    import pandas as pd

LARGEST_VIDEO = 32 * 2**20
"""Bytes; a longer mp4 is left out, and that is said."""

Line: TypeAlias = tuple[Any, ...]

_PARTS = ("mean", "low", "high", "n", "prompts", "interval")
_OWN = ("sys", "hydra", "report")  # where and how the work ran, not what it is
_SECRET = re.compile(r"(^|_)(api_?key|token|secret|password|passwd|credentials?)$", re.IGNORECASE)
_MACHINE_PATH = re.compile(r"^(/|~|[A-Za-z]:[\\/])")
_PATH_IN_COMMAND = re.compile(r"(?<![^\s='\"])[/~][^\s'\"]*/")


@dataclass(frozen=True)
class Grid:
    """A table of one run; a `Path` in a row is a video."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Line, ...]


@dataclass(frozen=True)
class Content:
    """One run, whole.

    Attributes:
        id: unique in a project, and the same whenever the same cell is sent.
        best: summary metric -> "max" or "min", whichever is better.
        history: a row for each second of video, in order.
        images: name -> PNG.
        files: name in the artifact -> file; ``archive`` the same for the many small ones, which become one zip.
        notes: what was left out, for the log.
    """

    id: str
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    description: str
    config: Mapping[str, Any]
    best: Mapping[str, str]
    summary: Mapping[str, float | int | str]
    history: tuple[Mapping[str, float | int], ...]
    grid: Grid
    images: Mapping[str, Path] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    archive: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Changes with anything that is sent, the bytes of files included."""
        plain = {key: value for key, value in asdict(self).items() if key not in ("notes", "grid")}
        rows = [[_plain(value) for value in row] for row in self.grid.rows]
        return config_key({"content": _plain(plain), "columns": self.grid.columns, "rows": rows})


def contents(
    results: Results,
    tables: Sequence[Table],
    *,
    videos: int = 4,
    images: Mapping[str, Path] | None = None,
    files: Mapping[str, Path] | None = None,
) -> list[Content]:
    """The runs of an experiment: its cells in order, those without any score left out, then the experiment itself.

    Args:
        tables: of ``results.frame``; summaries are their numbers.
        videos: how many of each cell are sent along, the same prompts and seeds of every cell.
        images, files: pictures and tables of the experiment's own run.
    """
    curves, missing = _curves(results), results.missing
    scores = dict(list(experiment_frame(results).groupby("method")))
    cells = [
        _cell(results, cell, tables, curves.get(cell.label, ()), missing.get(cell.label, 0), scores[cell.label], videos)
        for cell in results.cells
        if cell.label in scores
    ]
    return [*cells, _experiment(results, tables, sum(missing.values()), images or {}, files or {})]


def run_id(results: Results, label: str, config: Mapping[str, Any]) -> str:
    """The id of a cell's run: experiment, tier, label, protocol, model and the configuration, machine paths apart."""
    identity = {"experiment": results.name, "tier": results.tier, "cell": label, "config": public_config(config)}
    return config_key(identity | {"protocol": results.protocol, "model": results.model})


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as others may see it: no secrets, no folders of this machine, nothing of where the work ran."""
    return {key: _public(key, value) for key, value in config.items() if key not in _OWN}


def _public(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _public(str(k), v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_public(key, item) for item in value]
    if isinstance(value, Path):
        return value.name
    if isinstance(value, str) and _SECRET.search(key):
        return "(left out)"
    if isinstance(value, str) and _MACHINE_PATH.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value


def public_command(command: str) -> str:
    """A command without the folders of this machine: ``sys.out=/data/me/runs`` becomes ``sys.out=runs``."""
    return _PATH_IN_COMMAND.sub("", command)


def _group(results: Results) -> str:
    return f"{results.name}-{results.tier}" if results.tier else results.name


def _cell(
    results: Results,
    cell: CellFiles,
    tables: Sequence[Table],
    history: Sequence[Mapping[str, float | int]],
    missing: int,
    scores: pd.DataFrame,
    most: int,
) -> Content:
    summary, best = _summary(tables, cell.label)
    costs = results.costs[results.costs["method"] == cell.label]
    summary["videos"] = len(costs)
    summary["videos missing"] = missing
    if costs["seconds_per_frame"].notna().any():
        summary["seconds per frame (median)"] = float(costs["seconds_per_frame"].median())
    if costs["kv_bytes"].notna().any():
        summary["KV bytes"] = int(costs["kv_bytes"].max())
    grid, notes = _videos(cell, scores, most)
    return Content(
        id=run_id(results, cell.label, cell.config),
        name=cell.label,
        group=_group(results),
        job_type=results.protocol,
        tags=_tags(results),
        description=results.description,
        config=_about(results)
        | {"cell": cell.label, "method": cell.method, "axes": dict(cell.axes), "better": _directions(tables)}
        | {"config": public_config(cell.config)},
        best=best,
        summary=summary,
        history=tuple(history),
        grid=grid,
        notes=notes,
    )


def _experiment(
    results: Results, tables: Sequence[Table], missing: int, images: Mapping[str, Path], files: Mapping[str, Path]
) -> Content:
    configs = {cell.label: public_config(cell.config) for cell in results.cells}
    archive = {f"{c.label}/{v.scores.name}": v.scores for c in results.cells for v in c.videos if v.scores.is_file()}
    return Content(
        id=run_id(results, "", {"cells": config_key(configs)}),
        name=f"{results.name} {results.tier}".strip(),
        group=_group(results),
        job_type="report",
        tags=_tags(results),
        description=results.description,
        config=_about(results) | {"cells": list(configs), "axes": list(results.axes), "better": _directions(tables)},
        best={},
        summary={
            "cells": len(results.cells),
            "videos scored": len(archive),
            "videos missing": missing,
        },
        history=(),
        grid=Grid("results", ("cell", "length", "metric", *_PARTS), tuple(_numbers(tables))),
        images=images,
        files=files,
        archive=archive,
    )


def _about(results: Results) -> dict[str, Any]:
    about = {"experiment": results.name, "tier": results.tier, "protocol": results.protocol, "model": results.model}
    return about | {"command": public_command(results.command)}


def _tags(results: Results) -> tuple[str, ...]:
    return tuple(tag[:64] for tag in (results.tier, results.protocol, results.model) if tag)


def _directions(tables: Sequence[Table]) -> dict[str, str]:
    return {metric: way for table in tables for metric in table.metrics if (way := better(metric))}


def _numbers(tables: Sequence[Table]) -> Iterator[Line]:
    """Every number of the tables: cell, length, metric, and `_PARTS`; None where there is no interval."""
    for table in tables:
        for row in table.rows:
            for metric in (metric for metric in table.metrics if metric in row.cells):
                found = row.cells[metric].interval
                if found.n:
                    parts = (found.estimate, found.low, found.high)
                    numbers = (value if math.isfinite(value) else None for value in parts)
                    yield row.label, row.length, metric, *numbers, found.n, found.clusters, found.method


def _summary(tables: Sequence[Table], label: str) -> tuple[dict[str, float | int | str], dict[str, str]]:
    """``metric/40s/mean``, ``low``, ``high``, ``n`` ... of one cell, and whether a mean is best high or low."""
    summary: dict[str, float | int | str] = {}
    best: dict[str, str] = {}
    for cell, length, metric, *parts in _numbers(tables):
        if cell == label:
            name = f"{metric}/{length.replace(' ', '')}"
            summary |= {f"{name}/{p}": value for p, value in zip(_PARTS, parts, strict=True) if value is not None}
            if way := better(metric):
                best[f"{name}/mean"] = "max" if way == "higher" else "min"
    return summary, best


def _curves(results: Results) -> dict[str, list[dict[str, float | int]]]:
    """For each cell a row a second: the mean over videos of every metric's curve in the longest window, with its n."""
    found: dict[str, dict[str, list[Sequence[float | None]]]] = {}
    width: dict[str, float] = {}
    for cell, _, content in results.score_files():
        if not content["windows"]:
            continue
        longest = max(content["windows"], key=lambda name: int(name.partition("-")[2]))
        for metric, entry in content["windows"][longest]["scores"].items():
            if curve := entry.get("curve"):
                found.setdefault(cell.label, {}).setdefault(metric, []).append(curve["values"])
                width[metric] = float(curve["seconds"])
    return {label: list(_rows(of, width)) for label, of in found.items()}


def _rows(curves: Mapping[str, list[Sequence[float | None]]], width: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    rows: dict[float, dict[str, float | int]] = {}
    for metric, values in curves.items():
        for at in range(max(map(len, values))):
            known = [value for curve in values if at < len(curve) and (value := curve[at]) is not None]
            if known:
                row = rows.setdefault(at * width[metric], {"second": at * width[metric]})
                row |= {f"curve/{metric}": float(np.mean(known)), f"curve/{metric} n": len(known)}
    yield from (rows[second] for second in sorted(rows))


def _videos(cell: CellFiles, frame: pd.DataFrame, most: int) -> tuple[Grid, tuple[str, ...]]:
    """A row for each scored video, with the video itself for the first ``most`` of them that are small enough."""
    columns = list(dict.fromkeys(zip(frame["metric"], frame["length"], strict=True)))
    scores: dict[str, dict[tuple[str, str], float]] = {}
    for file, metric, length, value in zip(
        frame["file"], frame["metric"], frame["length"], frame["value"], strict=True
    ):
        scores.setdefault(file, {})[metric, length] = float(value)
    shown = [column for column in columns if any(math.isfinite(of.get(column, math.nan)) for of in scores.values())]
    rows: list[Line] = []
    sent = large = 0
    for video in cell.videos:
        if (of := scores.get(str(video.video))) is None:
            continue
        there = sent + large < most and video.video.is_file()
        small = there and video.video.stat().st_size <= LARGEST_VIDEO
        sent, large = sent + small, large + (there and not small)
        values = [value if math.isfinite(value := of.get(column, math.nan)) else None for column in shown]
        rows.append((video.prompt, video.seed, public_command(video.command), video.video if small else None, *values))
    heads = ("prompt", "seed", "command", "video", *(f"{m} {length}" for m, length in shown))
    notes = []
    if sent + large < len(rows):
        notes.append(f"with {sent} of {len(rows)} videos")
    if large:
        notes.append(f"{large} larger than {LARGEST_VIDEO / 2**20:.0f} MiB left out")
    return Grid("videos", heads, tuple(rows)), tuple(notes)


def _plain(value: Any) -> Any:
    """JSON types, a file as the digest of its bytes."""
    if isinstance(value, Path):
        return file_digest(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
