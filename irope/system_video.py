"""Make one video of a system, or import one that exists: files, frame counts, cuts and the sidecar JSON."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irope.finished import clear_failure
from irope.jobs import VideoJob
from irope.provenance import environment
from irope.sidecars import facts, publish
from irope.systems import Found, Request, Shot, System, SystemFailedError, place_from
from irope.video import VideoWriter

WORK = "system"
"""Folder of the system's own unfinished work, in that of the claim."""

Told = Callable[[int, int, float], None]
"""Frames made, frames of the video, seconds since the frames before."""


def make_system_video(
    job: VideoJob,
    work: Path,
    check: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
    told: Told = lambda *_: None,
) -> dict[str, Any]:
    """Make the video of a system's job and return its sidecar; arguments as those of `irope.generate.generate`.

    Raises:
        SystemFailedError: too few frames, or frames of another size.
        Interrupted: ``stop`` said so. VideoError: the file system refuses. ClaimLost: from ``check``.
        UserError: what the system raises.
    """
    system = job.system
    assert system is not None
    if job.found is not None:
        return _import(job, job.found, work, check)
    own = work / WORK
    own.mkdir(exist_ok=True)
    for part in [*work.glob("*.part"), *own.glob("*.part")]:
        part.unlink()
    clock = job.timeline.clock
    request = Request(
        shots=tuple(Shot(s.prompt, s.start_block, s.stop_block, s.cut) for s in job.timeline.segments),
        seconds=job.record["seconds"],
        frames=job.timeline.blocks,
        seed=job.seed,
        work=own,
        place=place_from(job.config["sys"], system.name),
    )
    start = time.perf_counter()
    path = job.stem.with_name(job.stem.name + ".mp4")
    with VideoWriter(path, clock.fps, subtitles=job.file.subtitles, parts=_empty(work / "parts")) as writer:
        sink = _Sink(job, system, writer, check, told)
        info = system.generate(request, sink, check, stop)
        if sink.made < request.frames:
            raise SystemFailedError(f"{system.name} made {sink.made} frames, {request.frames} are needed")
        done = writer.finish(keep_chunks=True, check=check)
    cut = sink.made - request.frames
    sidecar = facts(job, {"mp4": path.name, "frames": None}, done.frames, done.hash) | {
        "cost": {
            "seconds_per_block_median": None,
            "seconds_total": round(time.perf_counter() - start, 3),
            "kv_page_bytes": None,
            "kv_peak_bytes": None,
            "peak_bytes": info.peak_bytes,
        },
        "run": {
            "calls": info.calls,
            "frames_made": sink.made,
            "versions": dict(info.versions),
            "notes": [*info.notes, *([f"{cut} frames beyond the length asked for were cut off"] if cut else [])],
        },
        "size": list(system.picture()),
        "environment": environment(_device(request.place.device)),
    }
    publish(work, job.sidecar, sidecar, check)
    clear_failure(job.stem)
    return sidecar


class _Sink:
    """Takes a system's frames, checks and counts them, and drops those beyond the video's length."""

    def __init__(
        self, job: VideoJob, system: System, writer: VideoWriter, check: Callable[[], None], told: Told
    ) -> None:
        self.made = 0
        self._segments, self._frames = job.timeline.segments, job.timeline.blocks
        self._system, self._writer, self._check, self._told = system, writer, check, told
        self._last = time.perf_counter()

    def __call__(self, frames: NDArray[np.uint8]) -> None:
        if frames.ndim != 4 or frames.shape[1:3] != self._system.picture():
            wanted, there = "x".join(map(str, self._system.picture())), "x".join(map(str, frames.shape[1:3]))
            raise SystemFailedError(f"{self._system.name} made frames of {there}, its settings say {wanted}")
        start, self.made = self.made, self.made + len(frames)
        for segment in self._segments:  # they end where the video does
            first, last = (max(at - start, 0) for at in (segment.start_block, segment.stop_block))
            self._writer.write(frames[first:last], segment.subtitle)
        self._check()
        now = time.perf_counter()
        self._told(min(self.made, self._frames), self._frames, now - self._last)
        self._last = now


def _empty(folder: Path) -> Path:
    """What a killed run left is of no use: a system's frames come again from the first."""
    folder.mkdir(exist_ok=True)
    return folder


def _device(name: str) -> str:
    import torch

    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def _import(job: VideoJob, found: Found, work: Path, check: Callable[[], None]) -> dict[str, Any]:
    """A link to the file under the project's name, and a sidecar that says what it is; nothing is copied or decoded."""
    suffix = found.path.suffix.lower()
    name = job.stem.name + suffix
    link = work / f"{name}.part"
    with suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(found.path.resolve())
    check()
    link.replace(job.stem.with_name(name))
    files = {"mp4": name, "frames": None} if suffix == ".mp4" else {"mp4": None, "frames": name}
    sidecar = facts(job, files, found.frames, None, found.fps) | {
        "cost": {"seconds_per_block_median": None, "seconds_total": None, "kv_page_bytes": None, "kv_peak_bytes": None},
        "imported": dict(found.record),
        "size": list(found.size),
        "environment": environment(),
    }
    publish(work, job.sidecar, sidecar, check)
    clear_failure(job.stem)
    return sidecar
