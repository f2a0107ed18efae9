"""Discovery of cache policies by name, and their typed construction with near-name hints. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from irope.named_classes import NamedClasses
from irope.policy import CachePolicy, PolicyError
from irope.settings import defaults

_POLICIES = NamedClasses[CachePolicy]("policy", PolicyError, "irope.infinity", "baselines.policies")

P = TypeVar("P", bound=type[CachePolicy])


def register_policy(name: str) -> Callable[[P], P]:
    """Class decorator: make a `CachePolicy` known as ``name``.

    Raises:
        PolicyError: another class already has that name.
    """
    return _POLICIES.register(name)


def policies() -> dict[str, type[CachePolicy]]:
    """All known policies by name, sorted."""
    return _POLICIES.all()


def policy_class(name: str) -> type[CachePolicy]:
    """Look a policy up.

    Raises:
        PolicyError: unknown name; the message lists the choices and the nearest one.
    """
    return _POLICIES.of(name)


def policy_fields(policy: type[CachePolicy]) -> dict[str, Any]:
    """Field name -> default value."""
    return defaults(policy)


def make_policy(name: str, values: Mapping[str, Any] | None = None) -> CachePolicy:
    """Build a policy from plain values, as they come from a configuration.

    Raises:
        PolicyError: unknown policy, unknown field, a value of the wrong type, or settings the policy refuses.
    """
    return _POLICIES.make(name, values or {})
