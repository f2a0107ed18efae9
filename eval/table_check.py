"""What may not stand in one table: scores of other weights, another protocol or another version of the code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.frame import MixedError
from eval.results import CellFiles, Results
from irope.identity import near_miss


def refuse_mixed(results: Results) -> None:
    """See that all scores of an experiment are of one model, protocol and version; what is an axis may differ.

    Other systems are models of their own; they may stand beside the 1.3B model, never beside the embedded one. Methods
    of the 1.3B model may each have the weights they were published with; `weights_note` says so.

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
        wanted = {"score.protocol.name": results.protocol, "video.model": cell.system or cell.model or results.model}
        there = {"score.protocol.name": made["score.protocol.name"], "video.model": made["video.model"]}
        for field, value in wanted.items():
            if there[field] != value:
                raise MixedError(
                    f"{video.scores}: {field} is {there[field]!r}, the experiment's is {value!r}: "
                    f"make and score that video again: {video.command}"
                )
        for group, facts in _comparable(cell, made):
            other, older = first.setdefault(group, (name, facts))
            differ = [field for field in near_miss(older, facts) if field.rpartition(".")[2] not in results.axes]
            if differ:
                old, new = (_values(of, differ[0]) for of in (older, facts))
                raise MixedError(
                    f"{other} and {name} differ in {', '.join(differ)} ({old} and {new}): they never share a table; "
                    f"make the older ones again: {results.command}"
                )


def weights_note(results: Results) -> str:
    """Which row has which weights, where the rows of the 1.3B model do not all have the same; else nothing."""
    own = [cell for cell in results.cells if not cell.system]
    if len({cell.model for cell in own}) < 2:
        return ""
    said = dict.fromkeys(f"{cell.label}: {cell.model.partition('/')[2]}" for cell in own)  # lengths are cells apart
    return "weights differ: " + "; ".join(said)


def _comparable(cell: CellFiles, made: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Groups within which facts must be the same, with those facts: all own cells; of the 1.3B model one cell also.

    Its weights may differ between cells, and never within one.
    """
    if cell.system or not cell.model.startswith("wan"):
        return [(cell.system, made)]
    shared = {key: value for key, value in made.items() if key not in ("video.model", "record.model")}
    return [("", shared), (f"cell {cell.label}", made)]


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
