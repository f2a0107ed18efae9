"""Settings of a dataclass chosen by name: typed checks of plain values, and errors with the nearest valid name."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def hint(name: str, choices: Iterable[str]) -> str:
    """'; did you mean 'x'? choices: ...', for the end of an error message."""
    known = sorted(choices)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    guess = f"did you mean {' or '.join(repr(match) for match in near)}? " if near else ""
    return f"; {guess}choices: {', '.join(known)}"


def defaults(kind: type[Any]) -> dict[str, Any]:
    """Field name -> default value of a dataclass."""
    return {field.name: None if field.default is MISSING else field.default for field in fields(kind)}


def check_settings(kind: type[Any], values: Mapping[str, Any], what: str, error: type[Exception]) -> None:
    """See that plain values, as they come from a configuration, fit the fields of a dataclass.

    Args:
        what: names the thing in the message, for example ``policy 'rolling'``.

    Raises:
        error: an unknown field or a value of the wrong type.
    """
    for key, value in values.items():
        known = (kind, key, value.__class__, value if value.__hash__ else None)
        if known in _GOOD:
            continue
        kinds = {name: hinted for name, hinted in get_type_hints(kind).items() if name in defaults(kind)}
        if key not in kinds:
            raise error(f"{what} has no setting {key!r}{hint(key, kinds)}")
        if not _matches(value, kinds[key]):
            raise error(f"{what}: {key}={value!r} is not valid; {_describe(value, kinds[key])}")
        if value.__hash__ and len(_GOOD) < _MOST:
            _GOOD.add(known)


_GOOD: set[tuple[Any, str, type, Any]] = set()
"""Class, setting, type and value that were found to fit: a sweep tries the same few many thousand times."""
_MOST = 10_000


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
