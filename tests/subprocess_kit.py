"""A system in an environment of its own without a model: `tests/fake_system.py` as its program, and what came of it."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from baselines.systems.environment import Project
from baselines.systems.subprocess_system import SubprocessSystem
from irope.systems import Place, Request, RunInfo, Shot

FAKE = Path(__file__).with_name("fake_system.py")
CLIP = 5
SEED = 40


@dataclass(frozen=True)
class Fake(SubprocessSystem):
    """Clips of 5 frames of 4x6 pixels at 8 frames per second."""

    title: ClassVar[str] = "Fake"
    fps: ClassVar[int] = 8
    size: ClassVar[tuple[int, int]] = (4, 6)
    native_seconds: ClassVar[float] = 0.625
    runner: ClassVar[Path] = FAKE

    def clip_frames(self) -> int:
        return CLIP

    def project(self) -> Project:
        return Project("fake", "Fake", "example.org/fake", "entry.py", (".",), "owner/fake", ("*.bin",))


class Run:
    """A fake system in a folder of its own: how it behaves, and what came of it."""

    def __init__(self, folder: Path) -> None:
        self.repo, self.work = folder / "repo", folder / "work"
        self.repo.mkdir()
        self.work.mkdir()
        (self.repo / "entry.py").touch()
        self.own: dict[str, Any] = {"python": sys.executable, "repo": str(self.repo)}
        self.frames: list[int] = []
        self.beats = 0

    def __call__(self, behaviour: str, frames: int = 12, shots: tuple[Shot, ...] = (), **options: Any) -> RunInfo:
        (self.repo / "behaviour").write_text(behaviour)
        self.frames.clear()
        place = Place(weights=self.work, own=self.own)
        shots = shots or (Shot("a cat", 0, frames),)
        request = Request(shots, frames / Fake.fps, frames, SEED, self.work, place)
        calls = {"beat": self.beat, "stop": lambda: False} | options
        return Fake().generate(request, self.out, **calls)

    def out(self, frames: np.ndarray) -> None:
        assert frames.dtype == np.uint8
        assert frames.shape[1:] == (4, 6, 3)
        assert (frames == frames[:, :1, :1, :1]).all()
        self.frames += frames[:, 0, 0, 0].tolist()

    def beat(self) -> None:
        self.beats += 1

    @property
    def runs(self) -> list[list[int]]:
        """The clips that each run of the program was asked for."""
        lines = (self.repo / "runs").read_text().splitlines() if (self.repo / "runs").exists() else []
        return [json.loads(line.partition(" ")[2]) for line in lines]

    @property
    def clips(self) -> list[str]:
        return sorted(path.name for path in (self.work / "clips").glob("clip-*"))

    def nothing_is_left(self) -> bool:
        pids = [int(line.split()[0]) for line in (self.repo / "runs").read_text().splitlines()]
        if (self.repo / "child").exists():
            pids.append(int((self.repo / "child").read_text()))
        return all(gone(pid) for pid in pids)


def gone(pid: int, within: float = 20.0) -> bool:
    """Whether a process has ended; one that nobody has asked about yet is a zombie."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False
