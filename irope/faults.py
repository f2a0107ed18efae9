"""Workers under faults: kills, full and read-only disks, damaged files, wrong clocks, sleepers, two hosts.

Every fault is done to real worker processes on short videos of the embedded model, and what is on disk afterwards is
held to an undisturbed run: every video there once, the same bytes, nothing half under a final name.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from irope.claims import FOLDER, ClaimLost, Claims, Held
from irope.config import Settings, patched
from irope.errors import UserError
from irope.jobs import JobMaker, VideoJob

PATIENCE = 300.0
"""Seconds after which a worker counts as hanging."""

# A server that has loaded torch once starts a worker in a fraction of a second.
_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOAD = ["irope.generate", "irope.generator", "irope.models.tiny.model"]


@dataclass(frozen=True)
class Outcome:
    """What came of one fault: how it was done, what was seen, and every promise that was broken."""

    fault: str
    done: str
    result: str
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class Task:
    """What a worker process is to make, and what is wrong with the machine it is on.

    Attributes:
        host: the host it takes itself to be on; empty: this one.
        file_limit: bytes a file may have (a write beyond fails); 0: no limit.
        read_only: below this folder every attempt to write fails; empty: none does.
    """

    config: Settings
    videos: int
    events: str
    host: str = ""
    heartbeat: float = 10.0
    stale: float = 60.0
    file_limit: int = 0
    read_only: str = ""


def jobs_of(config: Settings, videos: int) -> list[VideoJob]:
    """The first ``videos`` of the configuration's prompts, with as many seeds as that takes."""
    found: list[VideoJob] = []
    maker = JobMaker()
    for seed in range(videos):
        found += maker.jobs(config, [seed])
        if len(found) >= videos:
            break
    return found[:videos]


def work(task: Task) -> None:
    """A worker process: makes what is missing and leaves with 1 if something could not be made."""
    import torch

    from irope.generate import as_they_come_free, generate_claimed
    from irope.generator import load_generator

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that watches
    if task.file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task.file_limit, task.file_limit))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    generator = load_generator(task.config)
    claims = Claims(Path(task.config["sys"]["out"]), task.heartbeat, task.stale)
    if task.host:
        claims.process = replace(claims.process, host=task.host, boot=f"boot of {task.host}")
        claims.worker = f"{task.host}:{os.getpid()}"
    if task.read_only:
        sys.addaudithook(_refuse_writes(task.read_only))
    todo = deque(jobs_of(task.config, task.videos))
    failures = 0
    _note(task, "begins")
    try:
        for job, claim in as_they_come_free(todo, claims, lambda _: None, poll=0.05):
            try:
                if claim is not None:
                    generate_claimed(job, claim, generator, checkpoint_blocks=1)
                    _note(task, "made", job)
            except ClaimLost:
                _note(task, "lost", job)
                todo.append(job)
            except (UserError, OSError) as error:
                _note(task, "failed", job, str(error))
                failures += 1
    except OSError as error:
        _note(task, "failed", None, str(error))
        failures += 1
    sys.exit(min(failures, 1))


def _note(task: Task, what: str, job: VideoJob | None = None, why: str = "") -> None:
    line = {"pid": os.getpid(), "what": what, "video": job and job.stem.name, "why": why}
    descriptor = os.open(task.events, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, (json.dumps(line) + "\n").encode())
    os.close(descriptor)


def _refuse_writes(folder: str) -> Any:
    """An audit hook under which this process finds ``folder`` read-only."""
    import errno

    changing = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.utime", "os.link", "os.truncate"}
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in changing or (event == "open" and arguments[2] & writing):
            path = arguments[0]
            if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(folder):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))

    return hook


@dataclass
class Stage:
    """One results folder, its workers, and what has been seen in it.

    Attributes:
        expected: name of every final file -> SHA-256 of its bytes in the undisturbed run; of sidecars, of their hash
            chain and key.
        problems: promises that were broken.
    """

    folder: Path
    task: Task
    expected: Mapping[str, str]
    problems: list[str] = field(default_factory=list)
    _kept: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.out = self.folder / "videos"
        self.out.mkdir(parents=True, exist_ok=True)
        config = patched(self.task.config, "sys.out", str(self.out))
        self.task = replace(self.task, config=config, events=str(self.folder / "events.jsonl"))
        self.jobs = jobs_of(config, self.task.videos)

    def start(self, **changes: Any) -> BaseProcess:
        """Start a worker."""
        _CONTEXT.set_forkserver_preload(_PRELOAD)
        process = _CONTEXT.Process(target=work, args=(replace(self.task, **changes),), daemon=True)
        process.start()
        return process

    def wait(self, *processes: BaseProcess) -> list[int]:
        """Exit codes; a worker that does not end is a problem, and killed."""
        deadline = time.monotonic() + PATIENCE
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                self.problems.append(f"a worker did not end in {PATIENCE:g} s")
                process.kill()
                process.join()
        return [process.exitcode or 0 for process in processes]

    def run(self, workers: int = 1, **changes: Any) -> list[int]:
        """Run workers to their end; their exit codes."""
        return self.wait(*[self.start(**changes) for _ in range(workers)])

    def held(self) -> list[Held]:
        return Claims(self.out).held()

    def complete(self) -> bool:
        return all(job.done for job in self.jobs)

    def look(self) -> int:
        """Hold what is under final names to the undisturbed run; returns the number of finished videos."""
        present = {path.name: path for path in self._finals()}
        for name in sorted(present.keys() - self.expected.keys()):
            if not name.endswith(".error.json"):
                self.problems.append(f"{name}: no video of this name was asked for")
        for name, path in present.items():
            if path.suffix != ".json" and name in self.expected and digest(path) != self.expected[name]:
                self.problems.append(f"{name}: not the file of the undisturbed run, or half of it")
        done = [job for job in self.jobs if job.done]
        for job in done:
            stat = job.sidecar.stat()
            now = (stat.st_ino, stat.st_mtime_ns)
            if self._kept.setdefault(job.stem.name, now) != now:
                self.problems.append(f"{job.stem.name}: finished once, and made again")
                self._kept[job.stem.name] = now
        names = {job.stem.name for job in done}
        for name in self._kept.keys() - names:
            self.problems.append(f"{name}: a finished video was lost")
            del self._kept[name]
        return len(done)

    def forget(self, jobs: Sequence[VideoJob]) -> None:
        """Videos that are damaged on purpose are to be made again."""
        for job in jobs:
            self._kept.pop(job.stem.name, None)

    def end(self) -> None:
        """The same command once more, undisturbed; then everything must be there, made once."""
        if any(self.run()):
            self.problems.append(f"afterwards a worker failed: {self.events('failed')[-1:]}")
        if (count := self.look()) != len(self.jobs):
            self.problems.append(f"{count} of {len(self.jobs)} videos are finished")
        for job in self.jobs:
            if job.done and digest(job.sidecar) != self.expected[job.sidecar.name]:
                self.problems.append(f"{job.stem.name}: another frame hash chain")
        made = Counter(event["video"] for event in self.events("made"))
        if twice := sorted(name for name, count in made.items() if count > 1):
            self.problems.append(f"made twice: {', '.join(twice)}")
        if (self.out / FOLDER).exists():
            self.problems.append(
                f"unfinished work is left: {sorted(path.name for path in (self.out / FOLDER).iterdir())}"
            )

    def events(self, what: str) -> list[dict[str, Any]]:
        path = Path(self.task.events)
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["what"] == what]

    def outcome(self, fault: str, done: str, result: str) -> Outcome:
        return Outcome(fault, done, result, tuple(dict.fromkeys(self.problems)))

    def _finals(self) -> Iterator[Path]:
        for folder in self.out.iterdir():
            if folder.name != FOLDER:
                yield from folder.iterdir()


def digest(path: Path) -> str:
    """SHA-256 of a file; of a sidecar, only of what the frames decide: key, sizes and hash chain."""
    content = path.read_bytes()
    if path.suffix == ".json":
        facts = json.loads(content)
        content = json.dumps([facts[name] for name in ("key", "bytes", "pixel_frames", "frames_sha256_chain")]).encode()
    return hashlib.sha256(content).hexdigest()


def undisturbed(folder: Path, config: Settings, videos: int) -> tuple[Stage, float]:
    """A run that nothing happens to, from which the others are judged, and its seconds per video.

    Raises:
        UserError: it fails, or two videos of it would be one.
    """
    stage = Stage(folder, Task(config, videos, ""), {})
    if len({job.key for job in stage.jobs}) < videos:
        raise UserError(f"{videos} videos are asked for, but the prompts give fewer different ones")
    stage.run(videos=0)  # starts the server that loads torch
    start = time.perf_counter()
    if any(stage.run()):
        raise UserError(f"the undisturbed run failed: {stage.events('failed')}")
    seconds = (time.perf_counter() - start) / videos
    stage.expected = {path.name: digest(path) for path in stage._finals()}
    stage.end()
    if stage.problems:
        raise UserError(f"the undisturbed run is not complete: {'; '.join(stage.problems)}")
    return stage, seconds
