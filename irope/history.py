"""What past work took: a line for each video that was made or scored, appended by every worker to a file of its own.

Only estimates are made from it. Losing it loses no result.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = ".history"


@dataclass(frozen=True)
class Made:
    """A video that was generated.

    Attributes:
        seconds: from its first block to its sidecar, on one worker; ``size`` of its files in bytes.
        device: name of the device, as tables show it.
    """

    model: str
    method: str
    device: str
    latents: int
    seconds: float
    size: int


@dataclass(frozen=True)
class Scored:
    """A video that was scored: pixel ``frames`` in ``seconds`` on one worker, under a protocol."""

    model: str
    protocol: str
    device: str
    frames: int
    seconds: float


class History:
    """The records below a results folder."""

    def __init__(self, out: Path) -> None:
        self.folder = out / FOLDER

    def add(self, record: Made | Scored) -> None:
        """Append a record to this process's file; nothing if that is impossible, as results matter more."""
        line = json.dumps({"kind": type(record).__name__} | asdict(record), ensure_ascii=False)
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / f"{socket.gethostname()}-{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def __iter__(self) -> Iterator[Made | Scored]:
        """Every record that can be read; a line that was cut short by a kill is left out."""
        kinds = {"Made": Made, "Scored": Scored}
        for file in sorted(self.folder.glob("*.jsonl")):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    facts = json.loads(line)
                    yield kinds[facts.pop("kind")](**facts)
