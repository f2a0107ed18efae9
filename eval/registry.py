"""Discovery of scorers: one file each below eval/scorers, found by name with near-name hints."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from eval.scorer import Derived, Scorer
from irope.errors import UserError
from irope.settings import check_settings, hint

AnyScorer = Scorer | Derived
_SCORERS: dict[str, type[AnyScorer]] = {}

S = TypeVar("S", bound=type[AnyScorer])


class ScorerError(UserError, ValueError):
    """A scorer is unknown, or its settings are not valid."""


def register_scorer(name: str) -> Callable[[S], S]:
    """Class decorator: make a scorer known as ``name``.

    Raises:
        ScorerError: another class already has that name.
    """

    def register(scorer: S) -> S:
        other = _SCORERS.get(name)
        if other is not None and (other.__module__, other.__qualname__) != (scorer.__module__, scorer.__qualname__):
            raise ScorerError(f"scorer name {name!r} is taken by {other.__module__}.{other.__qualname__}")
        scorer.name = name
        _SCORERS[name] = scorer
        return scorer

    return register


@cache
def _discover() -> None:
    """Import every module below eval/scorers; an import error of one of them shows as it is."""
    package = importlib.import_module("eval.scorers")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)


def scorers() -> dict[str, type[AnyScorer]]:
    """All known scorers by name, sorted."""
    _discover()
    return dict(sorted(_SCORERS.items()))


def make_scorer(name: str, values: Mapping[str, Any] | None = None) -> AnyScorer:
    """Build a scorer from plain values, as they come from a configuration.

    Raises:
        ScorerError: unknown scorer, unknown setting, or a value of the wrong type.
    """
    known = scorers()
    if name not in known:
        raise ScorerError(f"unknown scorer {name!r}{hint(name, known)}")
    check_settings(known[name], values or {}, f"scorer {name!r}", ScorerError)
    return known[name](**dict(values or {}))
