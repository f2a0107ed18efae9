"""Discovery of cache policies by name, and their typed construction with near-name hints. Standard library only."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from irope.policy import CachePolicy, PolicyError

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


def hint(name: str, choices: Iterable[str]) -> str:
    """'; did you mean 'x'? choices: ...', for the end of an error message."""
    known = sorted(choices)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    guess = f"did you mean {' or '.join(repr(match) for match in near)}? " if near else ""
    return f"; {guess}choices: {', '.join(known)}"


def policy_class(name: str) -> type[CachePolicy]:
    """Look a policy up.

    Raises:
        PolicyError: unknown name; the message lists the choices and the nearest one.
    """
    known = policies()
    if name not in known:
        raise PolicyError(f"unknown policy {name!r}{hint(name, known)}")
    return known[name]


def policy_fields(policy: type[CachePolicy]) -> dict[str, Any]:
    """Field name -> default value."""
    return {field.name: None if field.default is MISSING else field.default for field in fields(policy)}


def make_policy(name: str, values: Mapping[str, Any] | None = None) -> CachePolicy:
    """Build a policy from plain values, as they come from a configuration.

    Raises:
        PolicyError: unknown policy, unknown field, a value of the wrong type, or settings the policy refuses.
    """
    policy = policy_class(name)
    kinds = {key: kind for key, kind in get_type_hints(policy).items() if key in policy_fields(policy)}
    for key, value in (values or {}).items():
        if key not in kinds:
            raise PolicyError(f"policy {name!r} has no setting {key!r}{hint(key, kinds)}")
        if not _matches(value, kinds[key]):
            raise PolicyError(f"policy {name!r}: {key}={value!r} is not valid; {_describe(value, kinds[key])}")
    return policy(**dict(values or {}))


def _matches(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return any(_matches(value, option) for option in get_args(kind))
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, (int, float)) if kind is float else isinstance(value, kind)


def _describe(value: Any, kind: Any) -> str:
    options = [kind] if get_origin(kind) not in (Union, types.UnionType) else list(get_args(kind))
    choices = [str(choice) for option in options if get_origin(option) is Literal for choice in get_args(option)]
    if choices:
        return "it is not one of the choices" + hint(str(value), choices)
    return "expected " + " or ".join(option.__name__ for option in options).replace("NoneType", "null")
