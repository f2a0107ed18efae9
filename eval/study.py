"""Readings of the policy study, selected and averaged: a mean with its interval, a difference paired by prompt.

Everything here is of the embedded model; a prompt has one video a cell, and every cell met the same noise.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from eval.paired import holm, paired
from eval.stats import FEWEST, Interval, mean_interval, rate_interval

RESAMPLES = 1_999
"""Of a bootstrap; there are thousands of intervals in a report."""

RATES = frozenset({"action", "streak", "same", "at_once", "responded"})
"""Measures that are 0 or 1 for a video."""

APPEARANCE = ("color", "background", "iou")
QUALITY = ("action", *APPEARANCE)

NAMES = {
    "action": "action",
    "iou": "IoU",
    "color": "colour",
    "background": "background",
    "shape": "shape",
    "streak": "streaks",
    "visible": "visible",
    "pace": "pace",
    "home": "home",
    "seam": "seam",
    "returns": "returns",
    "lag": "blocks until seen",
    "at_once": "at once",
    "responded": "responded",
    "before": "old prompt before",
    "edge": "edge",
    "once": "background at once",
    "late": "background late",
    "jump": "jump px",
    "same": "same subject",
    "mass": "attention",
}
"""Of measures, as tables and pictures call them."""

Values = dict[int, float]


@dataclass(frozen=True)
class Readings:
    """One cell: a policy, a checkpoint, a list of prompts. ``data`` is its file (`irope.policy_study`)."""

    data: Mapping[str, Any]

    @property
    def label(self) -> str:
        return str(self.data["label"])

    @property
    def checkpoint(self) -> str:
        return str(self.data["checkpoint"])

    @property
    def facts(self) -> Mapping[str, Any]:
        facts: Mapping[str, Any] = self.data["facts"]
        return facts

    @cached_property
    def starts(self) -> tuple[float, ...]:
        """Seconds at which stretches begin, where the cell is read in stretches."""
        return tuple(sorted({row["start"] for row in self.data["readings"] if "start" in row}))

    def values(self, measure: str, start: float | None = None) -> Values:
        """The measure by prompt, without prompts that have none; of one stretch if ``start`` is given."""
        rows = [row for row in self.data["readings"] if start is None or row["start"] == start]
        found = {row["prompt"]: _value(row, measure) for row in rows}
        return {prompt: value for prompt, value in found.items() if value is not None}

    def interval(self, measure: str, start: float | None = None) -> Interval:
        return interval(self.values(measure, start), measure)


def _value(row: Mapping[str, Any], measure: str) -> float | None:
    if "shown" in row and measure in ("lag", "at_once", "responded"):
        late = lag(row["shown"])
        return {"lag": float(late), "at_once": float(late == 0), "responded": float(late < len(row["shown"]))}[measure]
    value = row[measure]
    return None if value is None else float(value)


def lag(shown: Sequence[int]) -> int:
    """Blocks that pass before the new prompt is seen in two blocks running (the last block counts alone).

    A video that never shows it has the number of blocks looked at: means of it are restricted means.
    """
    for block, here in enumerate(shown):
        if here and (block + 1 == len(shown) or shown[block + 1]):
            return block
    return len(shown)


def interval(values: Values, measure: str) -> Interval:
    """Mean over prompts with a 95 % interval: Wilson's for a rate, a bootstrap else."""
    return rate_interval(values) if measure in RATES else mean_interval(values, resamples=RESAMPLES)


@dataclass(frozen=True)
class Difference:
    """A minus B, paired by prompt; ``p`` is corrected for all comparisons of its family (Holm)."""

    name: str
    measure: str
    interval: Interval
    p: float

    @property
    def enough(self) -> bool:
        """Whether there are prompts enough to say anything."""
        return self.interval.clusters >= FEWEST

    @property
    def sign(self) -> int:
        """1 or -1 where the difference is significant at 5 % after the correction, else 0."""
        return int(np.sign(self.interval.estimate)) if self.enough and self.p < 0.05 else 0

    def text(self) -> str:
        of = self.interval
        d = digits(self.measure)
        return f"{self.name}: {of.estimate:+.{d}f} ({of.low:+.{d}f} to {of.high:+.{d}f}), p {p_text(self.p)}"


def digits(measure: str) -> int:
    """Decimals worth showing: changes of the background are hundredths."""
    return 3 if measure in ("once", "late") else 2


def p_text(p: float) -> str:
    return "–" if np.isnan(p) else "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0")


def differences(pairs: Iterable[tuple[str, str, Values, Values]]) -> list[Difference]:
    """One family: (name, measure, values of A, of B) each; p-values corrected for all of them together."""
    found = [(name, measure, paired(a, b, rate=measure in RATES, resamples=RESAMPLES)) for name, measure, a, b in pairs]
    adjusted = holm({number: pair.p_value for number, (_, _, pair) in enumerate(found)})
    return [Difference(n, m, pair.difference, adjusted[i]) for i, (n, m, pair) in enumerate(found)]


@dataclass(frozen=True)
class Study:
    """All cells of a tier, in their order."""

    cells: tuple[Readings, ...]

    @property
    def checkpoints(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.checkpoint for cell in self.cells))

    def find(self, part: str, checkpoint: str, **facts: Any) -> list[Readings]:
        """The cells of a part of the study that have these facts."""
        return [
            cell
            for cell in self.cells
            if cell.data["part"] == part
            and cell.checkpoint == checkpoint
            and all(cell.facts.get(name) == value for name, value in facts.items())
        ]

    def one(self, part: str, checkpoint: str, **facts: Any) -> Readings | None:
        """The only cell that has these facts, None if the tier has none or several."""
        found = self.find(part, checkpoint, **facts)
        return found[0] if len(found) == 1 else None

    def choices(self, part: str, checkpoint: str, fact: str) -> list[Any]:
        """Values that a fact takes, in the order of the cells."""
        found = [cell.facts.get(fact) for cell in self.find(part, checkpoint)]
        return [value for value in dict.fromkeys(found) if value is not None]


def load_study(files: Sequence[Path]) -> Study:
    """Read the files of cells. Raises OSError or ValueError for one that is missing or damaged."""
    return Study(tuple(Readings(json.loads(path.read_text(encoding="utf-8"))) for path in files))
