"""A scored folder as `Results`: every folder of videos is a cell, so that plots work without an experiment file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.plots.colours import sortable
from eval.results import CellFiles, Results, VideoFiles
from eval.scores import read_scores
from eval.videos import SCORES
from irope.errors import UserError
from irope.settings import hint


def folder_results(path: Path, protocol: str | None = None) -> Results:
    """The scores of one protocol below ``path`` (a scored folder, or its ``scores``); no file outside it is looked at.

    A cell's label is the name of its method; ``METHOD@axis=value,axis=value`` is taken apart if all cells have the
    same axes. Videos that were not scored are not known here, so nothing counts as missing.

    Raises:
        UserError: nothing was scored, the protocol is not there or has to be chosen, or several models share it.
        ScoreFileError: a score file is broken.
    """
    root = path.parent if path.name == SCORES else path
    scores = root / SCORES
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    known = sorted(p.name for p in scores.iterdir() if any(p.rglob("*.json"))) if scores.is_dir() else []
    if not known:
        raise UserError(f"{root}: nothing was scored here; run: irope score {root}")
    if protocol is None and len(known) > 1:
        raise UserError(f"{scores} holds several protocols, choose one: --protocol {known[0]} (of {', '.join(known)})")
    if protocol is not None and protocol not in known:
        raise UserError(f"{scores}: no scores of protocol {protocol!r}{hint(protocol, known)}")
    chosen = protocol or known[0]
    found: dict[str, list[tuple[Path, dict[str, Any]]]] = defaultdict(list)
    for file in sorted((scores / chosen).rglob("*.json")):
        if (content := read_scores(file)) is not None:
            found[content["video"]["method"]].append((file, content))
    models = sorted({content["video"]["model"] or "" for files in found.values() for _, content in files})
    if len(models) > 1:
        names = " and ".join(name or "an unknown one" for name in models)
        raise UserError(f"{root} holds videos of the models {names}, which never share a plot; give each its folder")
    axes = _axes(found)
    order = sorted(
        found, key=lambda label: (label.partition("@")[0], [sortable(v) for v in axes[label].values()], label)
    )
    cells = [_cell(root, label, axes[label], found[label]) for label in order]
    return Results(
        name=root.resolve().name,
        description=f"the scored folder {root}",
        tier="",
        axes=tuple(next(iter(axes.values()))),
        protocol=chosen,
        model=models[0],
        published={},
        command=f"irope score {root}",
        cells=tuple(cells),
    )


def _axes(labels: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings in each label; none where the labels do not have the same."""
    found = {label: settings_of(label) for label in labels}
    same = len({tuple(settings) for settings in found.values()}) == 1
    return found if same else {label: {} for label in found}


def settings_of(label: str) -> dict[str, Any]:
    """``{"cut_delta": 6, "cut_mode": "offset"}`` of ``infinity_rope@cut_delta=6,cut_mode=offset``."""
    pairs = [part.partition("=") for part in label.partition("@")[2].replace("@", ",").split(",") if part]
    return {name: _value(text) for name, sign, text in pairs if sign}


def _value(text: str) -> Any:
    if text in ("null", "true", "false"):
        return {"null": None, "true": True, "false": False}[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _cell(root: Path, label: str, axes: dict[str, Any], files: list[tuple[Path, dict[str, Any]]]) -> CellFiles:
    videos, seconds = [], set()
    for file, content in files:
        facts = content["video"]
        video = (root / facts["name"]).with_name(facts["file"])
        videos.append(VideoFiles(facts["prompt"], facts["seed"], video, file, f"irope score {video}"))
        for window in content["windows"]:
            start, stop = map(int, window.split("-"))
            seconds.add(float(max(1, round((stop - start) / facts["fps"]))))
    method = label.partition("@")[0] if axes else label
    return CellFiles(label, method, axes, tuple(sorted(seconds)), {}, tuple(videos))
