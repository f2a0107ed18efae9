"""What can be chosen by name: policies, methods, models, prompt sets. Reads no tensor library and no Hydra."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import conf
from irope.errors import UserError
from irope.policy import CachePolicy
from irope.registry import policies, policy_fields
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


def _file_entry(path: Path) -> Entry:
    text = path.read_text(encoding="utf-8")
    try:
        values = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict | None):
        raise UserError(f"{path} holds a {type(values).__name__}, expected keys with values")
    comments = (line.lstrip("# ").rstrip() for line in text.splitlines() if line.startswith("#"))
    comment = next((line for line in comments if line and not line.startswith("@")), "")
    # The file name is what a command line accepts, whatever the field ``name`` says.
    return Entry(path.stem, str((values or {}).get("description") or comment))


def method_entries() -> list[Entry]:
    """Every policy is a method of its own name; a file may replace it or add a preset."""
    found = {entry.name: entry for entry in [*policy_entries(), *file_entries(CONF / "method")]}
    return [found[name] for name in sorted(found)]


KINDS: dict[str, Callable[[], list[Entry]]] = {
    "policies": policy_entries,
    "methods": method_entries,
    "models": lambda: file_entries(CONF / "model"),
    "prompts": lambda: file_entries(CONF / "prompts"),
}


def entries(kind: str, kinds: Mapping[str, Callable[[], list[Entry]]] = KINDS) -> list[Entry]:
    """What ``irope list KIND`` shows, sorted by name.

    Raises:
        UserError: unknown kind, with the nearest one.
    """
    if kind not in kinds:
        raise UserError(f"nothing is called {kind!r}{hint(kind, kinds)}")
    return kinds[kind]()
