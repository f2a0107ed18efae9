"""Canonical JSON and the keys made from it: equal settings give equal keys, whatever wrote them down.

A key is the hash of a whole resolved configuration subtree. When a key is not found, `near_miss` names the fields that
differ from one that is there, which is what a user wants to know.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

KEY_DIGITS = 20  # hex digits: 80 bits, so a million keys collide with a probability of about 4e-13
LARGEST_EXACT = 2**53  # above it not every integer is a float, so 5 == 5.0 is only taken literally below it
_ABSENT = object()
_PLAIN = {type(None), bool, int, str}  # canonical as they are
_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


class CanonicalError(ValueError):
    """An object has no canonical JSON; the message names the field."""


def canonical_json(obj: Any) -> str:
    """One line of JSON that depends on the value of `obj` only: keys sorted, 5.0 written as 5, tuples as lists.

    Raises CanonicalError for NaN, infinities, keys that are not strings and anything JSON does not know.
    """
    plain = type(obj) is dict and all(type(k) is str and type(v) in _PLAIN for k, v in obj.items())
    return _ENCODE(obj if plain else _canonical(obj, ""))


def config_key(obj: Any) -> str:
    """The key of a resolved configuration: KEY_DIGITS hex digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(canonical_json(obj).encode()).hexdigest()[:KEY_DIGITS]


def key_of_parts(parts: Mapping[str, str]) -> str:
    """The `config_key` of an object whose fields are canonical JSON already, under plain names."""
    text = ",".join([f'"{name}":{parts[name]}' for name in sorted(parts)])
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()[:KEY_DIGITS]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def near_miss(a: Any, b: Any) -> list[str]:
    """The dotted names of the fields in which `a` and `b` differ, sorted; empty exactly when their keys are equal.

    A field that only one side has counts; list items are numbered (`events.0.block`); the root itself is `.`.
    Raises CanonicalError as `canonical_json` does.
    """
    return _differing(_canonical(a, ""), _canonical(b, ""), "")


def _canonical(obj: Any, path: str) -> Any:
    """`obj` rebuilt from None, bool, int, float, str, list and dict, equal values in equal form."""
    match obj:
        case None | bool() | str():
            # str(...) also turns a str subclass (an Enum, an OmegaConf string) into the plain text JSON would write.
            return str.__str__(obj) if isinstance(obj, str) else obj
        case int():
            return int(obj)
        case float():
            if not math.isfinite(obj):
                raise CanonicalError(f"{path or 'the value'} is {obj}: a key needs finite numbers")
            return int(obj) if obj.is_integer() and abs(obj) <= LARGEST_EXACT else float(obj)
        case list() | tuple():
            return [_canonical(item, _join(path, str(i))) for i, item in enumerate(obj)]
        case Mapping():
            for key in obj:
                if not isinstance(key, str):
                    raise CanonicalError(
                        f"{path or 'the value'} has the key {key!r} of type {type(key).__name__}: write it as a string"
                    )
            return {str.__str__(key): _canonical(value, _join(path, key)) for key, value in obj.items()}
        case _:
            raise CanonicalError(
                f"{path or 'the value'} is a {type(obj).__qualname__}, which JSON does not know: "
                "give numbers, strings, lists or dicts (dataclass: dataclasses.asdict, array: .tolist(), path: str)"
            )


def _differing(a: Any, b: Any, path: str) -> list[str]:
    """`near_miss` of two canonical objects that lie at `path`."""
    if isinstance(a, dict) and isinstance(b, dict):
        names = sorted(a.keys() | b.keys())
        pairs = [(name, a.get(name, _ABSENT), b.get(name, _ABSENT)) for name in names]
    elif isinstance(a, list) and isinstance(b, list):
        pairs = [(str(i), x, y) for i, (x, y) in enumerate(zip_longest(a, b, fillvalue=_ABSENT))]
    else:
        # Python holds True == 1, JSON does not; 5 and 5.0 are one type by now.
        return [] if type(a) is type(b) and a == b else [path or "."]
    return [field for name, x, y in pairs for field in _differing(x, y, _join(path, name))]


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
