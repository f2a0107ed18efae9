"""What training reports, and its file ``losses.csv``: a row a report, none twice and none missing after a kill."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from irope.provenance import write_atomic

COLUMNS = ("step", "stage", "loss_first", "loss_later", "frames_per_second", "minutes")


@dataclass(frozen=True)
class Progress:
    """A report on the last steps: mean losses per element of first blocks and of later ones, speed in latent frames a
    second, and minutes of training so far, those before a resume included."""

    step: int
    steps: int
    stage: str
    loss_first: float
    loss_later: float
    frames_per_second: float
    minutes: float = 0.0


class LossLog:
    """Goes on with ``path`` from ``step``: rows of later steps, which will come again, are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self._path, self._began = path, time.monotonic()
        rows = path.read_text(encoding="utf-8").split("\n")[1:-1] if path.exists() else []  # the last may be torn
        kept = [row for row in rows if int(row.partition(",")[0]) <= step]
        self._minutes = float(kept[-1].rpartition(",")[2]) if kept else 0.0
        write_atomic(path, "".join(f"{row}\n" for row in [",".join(COLUMNS), *kept]).encode())

    def add(self, progress: Progress) -> Progress:
        """Append a report; returns it with its minutes."""
        progress = replace(progress, minutes=self._minutes + (time.monotonic() - self._began) / 60)
        values = (getattr(progress, column) for column in COLUMNS)
        row = ",".join(f"{value:.5g}" if isinstance(value, float) else str(value) for value in values)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{row}\n")
        return progress
