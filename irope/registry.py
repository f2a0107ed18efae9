"""Discovery of cache policies by name, and their typed construction with near-name hints. Standard library only."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from irope.policy import CachePolicy, PolicyError
from irope.settings import check_settings, defaults, hint

_POLICIES: dict[str, type[CachePolicy]] = {}

P = TypeVar("P", bound=type[CachePolicy])


def register_policy(name: str) -> Callable[[P], P]:
    """Class decorator: make a `CachePolicy` known as ``name``.

    Raises:
        PolicyError: another class already has that name.
    """

    def register(policy: P) -> P:
        other = _POLICIES.get(name)
        if other is not None and (other.__module__, other.__qualname__) != (policy.__module__, policy.__qualname__):
            raise PolicyError(f"policy name {name!r} is taken by {other.__module__}.{other.__qualname__}")
        policy.name = name
        _POLICIES[name] = policy
        return policy

    return register


@cache
def _discover() -> None:
    """Import every module that may hold policies; an import error of one of them shows as it is."""
    importlib.import_module("irope.infinity")
    package = importlib.import_module("baselines.policies")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def policies() -> dict[str, type[CachePolicy]]:
    """All known policies by name, sorted."""
    _discover()
    return dict(sorted(_POLICIES.items()))


def policy_class(name: str) -> type[CachePolicy]:
    """Look a policy up.

    Raises:
        PolicyError: unknown name; the message lists the choices and the nearest one.
    """
    _discover()
    if name not in _POLICIES:
        raise PolicyError(f"unknown policy {name!r}{hint(name, policies())}")
    return _POLICIES[name]


def policy_fields(policy: type[CachePolicy]) -> dict[str, Any]:
    """Field name -> default value."""
    return defaults(policy)


def make_policy(name: str, values: Mapping[str, Any] | None = None) -> CachePolicy:
    """Build a policy from plain values, as they come from a configuration.

    Raises:
        PolicyError: unknown policy, unknown field, a value of the wrong type, or settings the policy refuses.
    """
    policy = policy_class(name)
    check_settings(policy, values or {}, f"policy {name!r}", PolicyError)
    return policy(**dict(values or {}))
