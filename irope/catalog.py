"""What can be chosen by name: policies, methods, models, prompt sets. Reads no tensor library and no Hydra."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

import conf
from irope.errors import UserError
from irope.policy import CachePolicy
from irope.registry import policies, policy_fields
from irope.script import PromptScript, load_prompts
from irope.settings import hint

CONF = Path(conf.__file__).parent

# libyaml where PyYAML was built with it: ten times faster.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Entry:
    """One line of ``irope list``.

    Attributes:
        settings: what can be set, with its default.
        source: paper and code behind it.
        schedule: rollout schedule, for a policy.
        missing: why it cannot run here, and how to get what it needs.
    """

    name: str
    summary: str
    settings: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    schedule: str = ""
    missing: str = ""


def policy_entry(name: str, policy: type[CachePolicy]) -> Entry:
    """A registered policy: the first line of its docstring, its settings, its source, its schedule."""
    summary = (policy.__doc__ or "").strip().partition("\n")[0]
    return Entry(name, summary, policy_fields(policy), policy.source, policy.schedule)


def policy_entries() -> list[Entry]:
    return [policy_entry(name, policy) for name, policy in policies().items()]


def file_entries(folder: Path) -> list[Entry]:
    """The YAML files of a folder of configurations, by file name.

    The summary is the field ``description``, or else the first comment that is not for Hydra.

    Raises:
        UserError: a file is no YAML mapping; the message names file and place.
    """
    return [_file_entry(path) for path in sorted(folder.glob("*.yaml"))]


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys of a YAML file. UserError with file and place if it holds none."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict | None):
        raise UserError(f"{path} holds a {type(values).__name__}, expected keys with values")
    return values or {}


def _file_entry(path: Path) -> Entry:
    values = read_mapping(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = (line.lstrip("# ").rstrip() for line in lines if line.startswith("#"))
    comment = next((line for line in comments if line and not line.startswith("@")), "")
    # The file name is what a command line accepts, whatever the field ``name`` says.
    return Entry(path.stem, str(values.get("description") or comment))


def prompt_entries(folder: Path | None = None) -> list[Entry]:
    """The prompt sets, with the model that each is written for, the number of its scripts and their length."""
    found = []
    for path in sorted((folder or CONF / "prompts").glob("*.yaml")):
        entry = _file_entry(path)
        values = read_mapping(path)
        found.append(replace(entry, summary=f"[{_size(values)}] {entry.summary}"))
    return found


def _size(values: Mapping[str, Any]) -> str:
    """``model=tiny; 20 scripts of 40 s``."""
    scripts = _scripts(values)
    lengths = sorted({sum(s.seconds for s in script.segments if s.seconds) for script in scripts})
    prompts = all(len(script.segments) == 1 for script in scripts)
    parts = [f"model={values['model']}"] if "model" in values else []
    parts.append(f"{len(scripts)} {'prompt' if prompts else 'script'}{'s' * (len(scripts) != 1)}")
    if lengths and lengths[-1]:
        parts[-1] += f" of {lengths[0]:g} s" if len(lengths) == 1 else f" of {lengths[0]:g} to {lengths[-1]:g} s"
    return "; ".join(parts)


def _scripts(values: Mapping[str, Any]) -> tuple[PromptScript, ...]:
    lines = values.get("scripts") or []
    return load_prompts("\n".join(json.dumps(x) if isinstance(x, dict) else str(x) for x in lines)) if lines else ()


def method_entries() -> list[Entry]:
    """Every policy is a method of its own name; a file may replace it or add a preset."""
    found = {entry.name: entry for entry in [*policy_entries(), *file_entries(CONF / "method")]}
    return [found[name] for name in sorted(found)]


KINDS: dict[str, Callable[[], list[Entry]]] = {
    "policies": policy_entries,
    "methods": method_entries,
    "models": lambda: file_entries(CONF / "model"),
    "prompts": prompt_entries,
}


def entries(kind: str, kinds: Mapping[str, Callable[[], list[Entry]]] = KINDS) -> list[Entry]:
    """What ``irope list KIND`` shows, sorted by name.

    Raises:
        UserError: unknown kind, with the nearest one.
    """
    if kind not in kinds:
        raise UserError(f"nothing is called {kind!r}{hint(kind, kinds)}")
    return kinds[kind]()
