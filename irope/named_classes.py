"""Classes known by a name: a decorator registers them, importing their packages finds them. Standard library only."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from irope.settings import check_settings, hint

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])


class NamedClasses(Generic[T]):
    """The dataclasses of one kind, by name; nothing is imported before somebody asks for one.

    Args:
        kind: what they are, in messages: ``policy``.
        error: what is raised, whatever is wrong.
        places: modules that register some; of a package, every module below it.
        key: where a configuration names one, said before a name or a setting that is wrong.
    """

    def __init__(self, kind: str, error: type[Exception], *places: str, key: str = "") -> None:
        self.known: dict[str, type[T]] = {}
        self._kind, self._error, self._places = kind, error, places
        self._found = False
        self._where = f"{key}: " if key else ""

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator; refuses a name that another class has already."""

        def register(named: C) -> C:
            other = self.known.get(name, named)
            if (other.__module__, other.__qualname__) != (named.__module__, named.__qualname__):
                raise self._error(f"{self._kind} name {name!r} is taken by {other.__module__}.{other.__qualname__}")
            named.name = name
            self.known[name] = named
            return named

        return register

    def all(self) -> dict[str, type[T]]:
        """By name, sorted; an import error of a module shows as it is."""
        if not self._found:
            for place in self._places:
                package = importlib.import_module(place)
                for module in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{place}."):
                    importlib.import_module(module.name)
            self._found = True
        return dict(sorted(self.known.items()))

    def of(self, name: str) -> type[T]:
        """The class of that name, else an error with the choices and the nearest one."""
        known = self.all()
        if name not in known:
            raise self._error(f"{self._where}unknown {self._kind} {name!r}{hint(name, known)}")
        return known[name]

    def make(self, name: str, values: Mapping[str, Any]) -> T:
        """Build one from plain values, as they come from a configuration; refuses those that do not fit its fields."""
        named = self.of(name)
        check_settings(named, values, f"{self._where}{self._kind} {name!r}", self._error)
        return named(**values)
