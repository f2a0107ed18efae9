"""The report of the policy study: verdicts, tables, pictures, made of the cells' files alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.study import Study, load_study
from eval.study_claims import Claim, claims
from eval.study_tables import Table, tables
from irope.identity import config_key
from irope.provenance import write_atomic, write_json_atomic

if TYPE_CHECKING:
    from eval.plots.plot import Plot

ENOUGH = 64
"""Prompts below which verdicts are called preliminary."""

NOT_THE_LARGE_MODEL = (
    "Every number here is of the **embedded model** (64 x 64 pixels, a few million parameters), never of the 1.3B "
    "model; what shows or does not show here says how these cache policies act on a small causal generator."
)


def write_report(files: Sequence[Path], folder: Path, command: str) -> list[Path]:
    """``policy_study-KEY.md``, ``.json`` and pictures in ``folder``; the key is that of the cells.

    Raises:
        OSError, ValueError: a file is missing or damaged.
    """
    from eval.plots.plot import save
    from eval.plots.study import plots

    study = load_study(files)
    key = config_key([cell.data["key"] for cell in study.cells])
    base = folder / f"policy_study-{key[:8]}"
    found, made = claims(study), tables(study)
    pictures = plots(study)
    saved = [path for path in save(pictures, base, ["png"]) if path.suffix == ".png"]
    facts = _facts(study, command) | {"key": key}
    record = facts | {
        "files": [path.relative_to(folder).as_posix() for path in files],
        "claims": [asdict(claim) | {"verdict": claim.verdict} for claim in found],
        "tables": [{"title": table.title, "rows": table.numbers} for table in made],
    }
    report, data = base.with_suffix(".md"), base.with_suffix(".json")
    shown = [(plot.caption, f"{base.name}/{plot.name}.png") for plot in pictures]
    write_atomic(report, markdown(facts, found, made, shown).encode())
    write_json_atomic(data, record)
    return [report, data, *saved]


def plots_of(report: Path) -> list[Plot]:
    """The pictures of a report, from its JSON and the cells' files beside it.

    Raises:
        OSError, ValueError: the report, or a file of a cell, is missing or damaged.
    """
    from eval.plots.study import plots

    names = json.loads(report.read_text(encoding="utf-8"))["files"]
    return plots(load_study([report.parent / name for name in names]))


def _facts(study: Study, command: str) -> dict[str, Any]:
    spent: dict[str, float] = {}
    for cell in study.cells:
        spent[cell.checkpoint] = spent.get(cell.checkpoint, 0.0) + float(cell.data["seconds"]["cpu"])
    first = study.cells[0].data
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoints": {cell.checkpoint: cell.data["weights"] for cell in study.cells},
        "seed": first["seed"],
        "cells": len(study.cells),
        "prompts": max(len(cell.data["prompts"]) for cell in study.cells),
        "cpu_seconds": {name: round(seconds, 1) for name, seconds in spent.items()},
        "environment": first.get("environment", {}),
    }


def markdown(
    facts: dict[str, Any], found: Sequence[Claim], made: Sequence[Table], shown: Sequence[tuple[str, str]] = ()
) -> str:
    """The report as Markdown; ``shown`` are (caption, path) of pictures."""
    weights = ", ".join(f"`{name}` ({digest[:12]})" for name, digest in facts["checkpoints"].items())
    spent = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in facts["cpu_seconds"].items())
    about = (
        f"`{facts['command']}`, {facts['date']}; checkpoints {weights}; seed {facts['seed']}; {facts['cells']} cells; "
        f"CPU minutes: {spent}. A cell is one batched roll-out; all cells of a prompt met the same noise. n counts "
        "prompts, one video each; brackets are 95 % intervals over prompts (square: the range, where prompts are too "
        "few). Readings and identities: docs/policy-study.md."
    )
    rules = (
        "Rules fixed beforehand: all conditions hold: shows; some: shows in part; none: does not show. p-values are of "
        "paired sign-flip tests, Holm-corrected within a condition."
    )
    if facts["prompts"] < ENOUGH:
        rules += f" **On {facts['prompts']} prompts every verdict is preliminary: judge on {ENOUGH} or more.**"
    title = "# The policy study of the embedded model"
    lines = [
        *(line for text in (title, NOT_THE_LARGE_MODEL, about, "## Claims", rules) for line in (text, "")),
        *_verdicts(found, tuple(facts["checkpoints"])),
    ]
    for claim in found:
        lines += [f"**{claim.number}, `{claim.checkpoint}`: {claim.text}: {claim.verdict}.**", ""]
        said = {None: "not tested or too few prompts", True: "holds", False: "does not hold"}
        lines += [f"- {one.text}: *{said[one.holds]}*. {one.numbers}." for one in claim.conditions]
        lines.append("")
    for caption, path in shown:
        lines += [f"![{caption}]({path})", "", caption, ""]
    lines += ["## Tables", "", *(table.markdown() for table in made)]
    return "\n".join(lines)


def _verdicts(found: Sequence[Claim], checkpoints: Sequence[str]) -> list[str]:
    by_number = {(claim.number, claim.checkpoint): claim for claim in found}
    lines = [
        f"| claim | {' | '.join(f'`{name}`' for name in checkpoints)} |",
        f"| --- |{' --- |' * len(checkpoints)}",
    ]
    for number, text in dict.fromkeys((claim.number, claim.text) for claim in found):
        verdicts = [by_number[number, name].verdict for name in checkpoints]
        lines.append(f"| {number} {text} | {' | '.join(verdicts)} |")
    return [*lines, ""]
