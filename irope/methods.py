"""What a method is: its policy or system, the weights its authors publish it with, source, licence. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irope.catalog import CONF, Entry, method_entries, read_mapping
from irope.models.wan.catalogue import DEFAULT, entry_of_file, parts_of
from irope.registry import policies, policy_class, policy_fields
from irope.systems import System, systems


@dataclass(frozen=True)
class Method:
    """One row of ``irope list methods``.

    Attributes:
        kind: policy with its settings, or the system, in words.
        weights: name of the weights of the 1.3B model, or the repository of a system; empty: it needs none.
        missing: places where they were looked for and not found.
        licence: of the weights.
    """

    name: str
    summary: str
    kind: str
    weights: str
    missing: tuple[Path, ...]
    source: str
    licence: str


def methods(root: Path) -> list[Method]:
    """Every method, sorted by name.

    Args:
        root: of the weights folder, laid out as published: ``<root>/<owner>/<repo>/<file>``.
    """
    return [_method(entry, root) for entry in method_entries()]


def method_values(name: str) -> dict[str, Any]:
    """``video.method`` of a method as its file and those it builds on say, read without Hydra.

    Raises:
        PolicyError: no file and no policy has that name.
    """
    path = CONF / "method" / f"{name}.yaml"
    if not path.is_file():
        policy = policy_class(name)
        settings = {"name": name, **policy_fields(policy)}
        return {"source": policy.source, "generator": policy.generator, "steps": policy.steps, "policy": settings}
    own = read_mapping(path)
    base = next((one for one in own.pop("defaults", []) if one != "_self_"), None)
    values = method_values(base) if base else {}
    policy_settings = {**values.get("policy", {}), **own.get("policy", {})}
    return {**values, **own, **({"policy": policy_settings} if policy_settings else {})}


def weights_note(config: Mapping[str, Any]) -> str | None:
    """One sentence if the 1.3B model runs with other weights than its method was published with; else None."""
    model, method = config["video"]["model"], config["video"]["method"]
    if model["name"] != "wan_1_3b" or "policy" not in method:
        return None
    own, given = method.get("generator") or DEFAULT, str(model["generator"] or DEFAULT)
    known = entry_of_file(Path(given))
    if given == own or (known is not None and known.name == own):
        return None
    return f"method={method['name']} was published with the weights {own}; these videos are made with {given}"


def _method(entry: Entry, root: Path) -> Method:
    values = method_values(entry.name)
    if "system" in values:
        return _system(entry, values["system"], root)
    weights = values.get("generator") or DEFAULT
    parts = parts_of(weights)
    return Method(
        name=entry.name,
        summary=entry.summary,
        kind=f"policy {_settings(values['policy'])}",
        weights=weights,
        missing=tuple(part.path(root) for part in parts if not part.path(root).exists()),
        source=str(values.get("source") or ""),
        licence=parts[0].licence,
    )


def _system(entry: Entry, settings: Mapping[str, Any], root: Path) -> Method:
    system: type[System] = systems()[settings["name"]]
    return Method(
        name=entry.name,
        summary=entry.summary,
        kind=f"system {system.name}",
        weights=", ".join(system.needs),
        missing=tuple(root / repo for repo in system.needs if not (root / repo).exists()),
        source=system.source,
        licence=system.licence,
    )


def _settings(policy: Mapping[str, Any]) -> str:
    """``infinity_rope: window 6, sink 1, compat paper``: window, sink, and what is not the policy's default."""
    defaults = policy_fields(policies()[policy["name"]])
    shown = {key: value for key, value in policy.items() if key in ("window", "sink") or defaults.get(key) != value}
    return f"{policy['name']}: " + ", ".join(f"{key} {value}" for key, value in shown.items() if key != "name")
