"""What may not stand in one table: scores of other weights, another protocol or another version of the code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.frame import MixedError
from eval.results import Results
from irope.identity import near_miss


def refuse_mixed(results: Results) -> None:
    """See that all scores of an experiment are of one model, protocol and version; what is an axis may differ.

    Other systems are models of their own; they may stand beside the 1.3B model, never beside the embedded one.

    Settings, weights and precision of the scorers are compared by ``results.frame``.

    Raises:
        MixedError: naming two videos, the fields that differ, and what to do.
    """
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    systems = [cell.label for cell in results.cells if cell.system]
    if systems and len(systems) < len(results.cells) and not results.model.startswith("wan"):
        raise MixedError(
            f"{', '.join(systems)}: scores of other systems never stand beside those of the embedded model; "
            "leave one of the two out: irope table -m method=..."
        )
    for cell, video, content in results.score_files():
        name, made = str(content["video"]["name"]), _made(content)
        wanted = {"score.protocol.name": results.protocol, "video.model": cell.system or results.model}
        there = {"score.protocol.name": made["score.protocol.name"], "video.model": made["video.model"]}
        for field, value in wanted.items():
            if there[field] != value:
                raise MixedError(
                    f"{video.scores}: {field} is {there[field]!r}, the experiment's is {value!r}: "
                    f"make and score that video again: {video.command}"
                )
        if cell.system not in first:
            first[cell.system] = name, made
            continue
        other, older = first[cell.system]
        differ = [field for field in near_miss(older, made) if field.rpartition(".")[2] not in results.axes]
        if differ:
            old, new = (_values(of, differ[0]) for of in (older, made))
            raise MixedError(
                f"{other} and {name} differ in {', '.join(differ)} ({old} and {new}): they never share a table; "
                f"make the older ones again: {results.command}"
            )


def _made(content: Mapping[str, Any]) -> dict[str, Any]:
    record = content["video"].get("record") or {}
    return {
        "score.protocol.name": content["protocol"]["name"],
        "score.protocol.settings": content["protocol"].get("settings"),
        "video.model": content["video"]["model"],
        "record.version": record.get("version"),
        "record.model": record.get("model"),
    }


def _values(made: Mapping[str, Any], field: str) -> object:
    """The value at a dotted name whose first part may itself hold dots."""
    for key, value in made.items():
        if field == key:
            return value
        if field.startswith(f"{key}.") and isinstance(value, Mapping):
            return value.get(field[len(key) + 1 :])
    return None
