"""Hydra's sweep grammar: ``a,b``, ``range(0,5)``, ``choice(..)`` and ``glob(*)`` become the values of an axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from irope.config import ALIASES, GROUPS, ConfigError, group_options, quote
from irope.registry import policies


@dataclass(frozen=True)
class Axis:
    """One thing that varies: a key of the configuration (or a group, such as ``method``) and its values.

    Attributes:
        values: each as the right-hand side of an override.
    """

    key: str
    values: tuple[str, ...]

    @property
    def is_group(self) -> bool:
        return self.key in GROUPS

    @property
    def short(self) -> str:
        """The last word of the key: ``cut_delta`` of ``video.method.policy.cut_delta``."""
        return self.key.rpartition(".")[2]


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def parse(override: str) -> Override:
    """One override, read by Hydra's own parser. ConfigError with the text if it cannot be read."""
    if "=" not in override and not override.startswith("~"):
        raise ConfigError(f"{override!r} is not an override; write key=value, for example method=infinity_rope")
    try:
        return _parser().parse_override(quote(override))
    except HydraException as error:
        raise ConfigError(f"cannot read the override {override}: {str(error).splitlines()[0]}") from error


def axis(key: str, values: str) -> Axis:
    """The axis that ``key=values`` stands for; one value is an axis of one.

    Raises:
        ConfigError: it cannot be read, is an interval without steps, or a glob that matches nothing.
    """
    override = parse(f"{key}={values}")
    key = ALIASES.get(override.key_or_group, override.key_or_group)
    if not override.is_sweep_override():
        return Axis(key, (override.get_value_element_as_str(),))
    if not override.is_discrete_sweep():
        raise ConfigError(f"{key}={values}: an interval has no steps; write range(start,stop,step) or a list a,b,c")
    glob: Any = override.value()
    if isinstance(glob, Glob):
        options = sorted(policies()) if override.key_or_group in ALIASES else group_options(key)
        found = tuple(glob.filter(options))
        if not found:
            raise ConfigError(f"{override.key_or_group}={values} matches nothing; there are: {', '.join(options)}")
        return Axis(key, found)
    return Axis(key, tuple(override.sweep_string_iterator()))


def split(overrides: Iterable[str], multirun: bool) -> tuple[list[str], list[Axis]]:
    """Plain overrides, and the axes of those that sweep.

    Raises:
        ConfigError: an override cannot be read, or sweeps without ``multirun``.
    """
    fixed: list[str] = []
    axes: list[Axis] = []
    for override in overrides:
        parsed = parse(override)
        if not parsed.is_sweep_override():
            fixed.append(override)
        elif not multirun:
            raise ConfigError(f"{override}: several values are a sweep; give -m as well, or one value")
        else:
            key, _, values = override.partition("=")
            axes.append(axis(key, values))
    return fixed, axes


def value_of(key: str, text: str) -> Any:
    """The value that ``key=text`` gives, as Hydra reads it. ConfigError if it cannot be read."""
    return parse(f"{key}={text}").value()


def key_of(override: str) -> str:
    """The key an override speaks of, aliases resolved: ``method`` for ``policy=rolling``."""
    key = override.lstrip("+~").partition("=")[0]
    return ALIASES.get(key, key)


def without(overrides: Sequence[str], keys: Iterable[str]) -> list[str]:
    """Those of the overrides that speak of none of ``keys``."""
    gone = set(keys)
    return [override for override in overrides if key_of(override) not in gone]
