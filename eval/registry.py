"""Discovery of scorers: one file each below eval/scorers, found by name with near-name hints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from eval.scorer import Derived, Scorer
from irope.errors import UserError
from irope.named_classes import NamedClasses

AnyScorer = Scorer | Derived

S = TypeVar("S", bound=type[AnyScorer])


class ScorerError(UserError, ValueError):
    """A scorer is unknown, or its settings are not valid."""


_SCORERS = NamedClasses[AnyScorer]("scorer", ScorerError, "eval.scorers")


def register_scorer(name: str) -> Callable[[S], S]:
    """Class decorator: make a scorer known as ``name``.

    Raises:
        ScorerError: another class already has that name.
    """
    return _SCORERS.register(name)


def scorers() -> dict[str, type[AnyScorer]]:
    """All known scorers by name, sorted."""
    return _SCORERS.all()


def make_scorer(name: str, values: Mapping[str, Any] | None = None) -> AnyScorer:
    """Build a scorer from plain values, as they come from a configuration.

    Raises:
        ScorerError: unknown scorer, unknown setting, or a value of the wrong type.
    """
    return _SCORERS.make(name, values or {})
