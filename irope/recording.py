"""One video on its way to disk: chunks of frames, log, checkpoints, and at the end the files and the sidecar."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from statistics import median
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from irope.finished import clear_failure
from irope.jobs import VideoJob
from irope.provenance import environment
from irope.rollout import Block, Rollout
from irope.sidecars import facts, publish
from irope.trace import PlanTrace
from irope.video import MENDABLE, Progress, VideoError, VideoWriter, missing_chunks

FORMAT = 2
"""Of checkpoints; one of another format is not continued, the video begins again."""


@dataclass
class _Log:
    """What a video accumulates besides frames; kept in every checkpoint."""

    writer: Progress = field(default_factory=Progress)
    trace: PlanTrace = field(default_factory=PlanTrace)
    seconds: list[float] = field(default_factory=list)
    stage_bytes: int = 0


class Recording:
    """The files of a job that is being made; it begins where its last checkpoint is.

        with Recording(job, work, check) as recording:
            rollout.load_state(recording.tensors(), recording.state)    # if there is a state
            for block in rollout:
                recording.add(block, rollout, video)
            recording.finish(rollout, size)

    Args:
        work: folder of this process alone, on the file system of the video, for everything unfinished.
        check: raises if ``work`` was taken over; called before anything is published.

    Attributes:
        done: blocks that are recorded; ``resumed`` of them in earlier processes.
        state: JSON record of the roll-out at the checkpoint it begins at, None at the first block.
    """

    def __init__(self, job: VideoJob, work: Path, check: Callable[[], None]) -> None:
        self.job, self.check = job, check
        self._work, self._path, self._parts = work, work / "state.safetensors", work / "parts"
        self.state: dict[str, Any] | None = None
        for part in work.glob("*.part"):  # a former owner may still have it open
            part.unlink()
        self._log = self._found() or _Log()
        self.resumed = self.done
        self._writer = VideoWriter(
            job.video,
            fps=job.timeline.clock.fps,
            scale=job.file.scale,
            subtitles=job.file.subtitles,
            lossless=job.file.lossless,
            resume=self._log.writer,
            parts=self._parts,
        )

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    @property
    def done(self) -> int:
        return len(self._log.seconds)

    def tensors(self) -> dict[str, Tensor]:
        """Those of the checkpoint that it begins at."""
        with safe_open(str(self._path), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def add(self, block: Block, rollout: Rollout, video: int) -> None:
        """Write what is row ``video`` of a block; its time and memory are shared by the videos of the roll-out."""
        assert block.frames is not None
        assert block.plan is not None
        self._writer.write(block.frames[video].numpy(), self.job.timeline.segments[block.segment].subtitle)
        self._log.trace.add(block.index, block.event, block.segment, block.plan)
        self._log.seconds.append(round(block.seconds / rollout.batch, 6))
        self._log.stage_bytes = max(self._log.stage_bytes, rollout.arena.stage_bytes // rollout.batch)

    def checkpoint(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Make what there is so far safe, with the state of the roll-out behind it."""
        self._log.writer = self._writer.checkpoint()
        record = {
            "format": FORMAT,
            "key": self.job.key,
            "rollout": state,
            "writer": self._log.writer.to_json(),
            "trace": self._log.trace.entries,
            "seconds": self._log.seconds,
            "stage_bytes": self._log.stage_bytes,
        }
        part = self._path.with_name(f"{self._path.name}.{token_hex(4)}.part")
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        try:
            save_file(whole, part, {"state": json.dumps(record)})
        except SafetensorError as error:  # its own words for what the system refuses
            part.unlink(missing_ok=True)
            advice = f"cannot write a checkpoint ({error}): free some space and run the same command again"
            raise VideoError(errno.EIO, advice, str(self._path)) from error
        part.replace(self._path)

    def finish(self, rollout: Rollout, size: tuple[int, int]) -> dict[str, Any]:
        """Give the files their names and write the sidecar, which is returned; ``size``: height and width in pixels."""
        try:
            # The chunks stay, for a kill before the sidecar is there; they go with the folder.
            self._log.writer = self._writer.finish(keep_chunks=True, check=self.check)
        except VideoError as error:
            if error.errno not in MENDABLE:
                self._path.unlink(missing_ok=True)  # a damaged chunk: the next attempt starts from nothing
            raise
        sidecar = self._sidecar(rollout) | {"size": list(size)}
        publish(self._work, self.job.sidecar, sidecar, self.check)
        clear_failure(self.job.stem)
        return sidecar

    def _found(self) -> _Log | None:
        """The checkpoint of an earlier run of the same job; none if it is unreadable or foreign."""
        try:
            with safe_open(str(self._path), "pt") as file:
                found = json.loads(file.metadata()["state"])
            saved = Progress(**found["writer"])
            usable = (found["format"], found["key"]) == (FORMAT, self.job.key)
            if not usable or missing_chunks(self._parts, saved.chunks, self.job.file.lossless):
                return None
            log = _Log(saved, PlanTrace(found["trace"]), found["seconds"], found["stage_bytes"])
            self.state = found["rollout"]
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return None
        return log

    def _sidecar(self, rollout: Rollout) -> dict[str, Any]:
        """Everything about a finished video, as JSON types."""
        job, log = self.job, self._log
        files = {"mp4": job.stem.name + ".mp4", "frames": job.stem.name + ".mkv" if job.file.lossless else None}
        page_bytes = rollout.arena.page_bytes // rollout.batch
        return facts(job, files, log.writer.frames, log.writer.hash) | {
            "cost": {
                "seconds_per_block_median": median(log.seconds),
                "seconds_total": round(sum(log.seconds), 3),
                "kv_page_bytes": page_bytes,
                "kv_peak_bytes": page_bytes + log.stage_bytes,
            },
            "seconds_per_block": log.seconds,
            "plans": log.trace.entries,
            "environment": environment(rollout.model.device)
            | {"execution": rollout.execution, "compiled": rollout.model.compiled}
            | ({"batch": rollout.batch} if rollout.batch > 1 else {}),
        }
