"""What lies in a results folder, by name alone: cheap enough to ask about 100,000 videos again and again.

A listed name says that something was finished under it, as everything gets its final name last; whether it is whole and
has the right key is looked at before work is left out (`irope.finished`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from irope.claims import Claims, Held
from irope.finished import FAILURE

SIDECAR = ".json"
MEASURED = "measured"
BESIDE = ("scores", MEASURED)
"""Folders of a results folder that hold no videos."""


@dataclass(frozen=True)
class Count:
    """How far a cell is. ``done`` videos are made and scored, ``made`` ones made; ``working``: somebody is at it."""

    videos: int
    made: int
    done: int
    failed: int
    working: int

    @property
    def todo(self) -> int:
        """Videos that still need something, also those that failed: they are tried again."""
        return self.videos - self.done

    def __add__(self, other: Count) -> Count:
        return Count(
            self.videos + other.videos,
            self.made + other.made,
            self.done + other.done,
            self.failed + other.failed,
            self.working + other.working,
        )


NOTHING = Count(0, 0, 0, 0, 0)


class Inventory:
    """The state of a results folder at one moment.

    Args:
        out: the folder of videos (``sys.out``); ``scores`` the folder of one protocol's score files.
    """

    def __init__(self, out: Path, scores: Path) -> None:
        self.out, self.scores = out, scores
        self._made: dict[str, set[str]] = {}
        self._failed: dict[str, set[str]] = {}
        self._scored: dict[str, set[str]] = {}

    def made(self, label: str) -> set[str]:
        """Names of the finished videos of a cell."""
        self._look(label)
        return self._made[label]

    def failed(self, label: str) -> set[str]:
        """Names of the videos of a cell whose last try failed."""
        self._look(label)
        return self._failed[label]

    def scored(self, label: str) -> set[str]:
        """Names of the videos of a cell that have a score file."""
        if label not in self._scored:
            names = _names(self.scores / label) if label in self._score_folders else []
            self._scored[label] = {name.removesuffix(SIDECAR) for name in names if name.endswith(SIDECAR)}
        return self._scored[label]

    def known(self, label: str) -> bool:
        """Whether a cell has a folder. Asking for the names in 100,000 folders that are not there takes seconds."""
        return label in self._folders

    @cached_property
    def _folders(self) -> set[str]:
        return set(_names(self.out))

    @cached_property
    def _score_folders(self) -> set[str]:
        return set(_names(self.scores))

    @cached_property
    def held(self) -> list[Held]:
        """Who works on what now."""
        return Claims(self.out).held()

    @cached_property
    def working(self) -> set[str]:
        """Keys somebody works on now."""
        return {held.key for held in self.held}

    def count(self, label: str, videos: Iterable[tuple[str, str]], score: bool = True) -> Count:
        """How far a cell is, of whose videos (name, key) are given; without ``score`` a video that is made is done."""
        made, failed, scored, working = self.made(label), self.failed(label), self.scored(label), self.working
        total = n_made = done = broken = busy = 0
        for name, key in videos:
            total += 1
            is_made = name in made
            n_made += is_made
            done += is_made and (not score or name in scored)
            broken += name in failed
            busy += key in working
        return Count(total, n_made, done, broken, busy)

    def labels(self) -> list[str]:
        """Every folder of videos."""
        if not self.out.is_dir():
            return []
        with os.scandir(self.out) as entries:
            return sorted(e.name for e in entries if e.is_dir() and e.name[0] != "." and e.name not in BESIDE)

    def _look(self, label: str) -> None:
        if label in self._made:
            return
        names = _names(self.out / label) if self.known(label) else []
        self._failed[label] = {name.removesuffix(FAILURE) for name in names if name.endswith(FAILURE)}
        self._made[label] = {
            name.removesuffix(SIDECAR) for name in names if name.endswith(SIDECAR) and not name.endswith(FAILURE)
        }


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (twice as fast for large folders)
    except (FileNotFoundError, NotADirectoryError):
        return []
