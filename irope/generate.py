"""Make one video: roll out, write frames as they come, checkpoint, and the sidecar JSON last."""

from __future__ import annotations

import errno
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from statistics import median
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from irope.claims import Claim, Claims
from irope.finished import clear_failure
from irope.generator import Generator
from irope.jobs import VideoJob
from irope.noise import KeyedNoise
from irope.policy import CacheEvent
from irope.provenance import environment
from irope.rollout import Block, Rollout
from irope.sidecars import facts, publish
from irope.systems import Interrupted
from irope.trace import PlanTrace
from irope.video import MENDABLE, Progress, VideoError, VideoWriter, missing_chunks


@dataclass(frozen=True)
class Report:
    """Progress of one video after a block; ``resumed`` counts the blocks that were on disk already.

    The blocks of a system are its frames.
    """

    job: VideoJob
    block: int
    blocks: int
    seconds: float
    event: CacheEvent = CacheEvent.BLOCK
    resumed: int = 0


@dataclass
class _Log:
    """What a video accumulates besides frames; kept in every checkpoint."""

    writer: Progress = field(default_factory=Progress)
    trace: PlanTrace = field(default_factory=PlanTrace)
    seconds: list[float] = field(default_factory=list)
    stage_bytes: int = 0


def make_rollout(job: VideoJob, generator: Generator) -> Rollout:
    """The roll-out of a job, at its first block."""
    prompts = [segment.prompt for segment in job.timeline.segments]
    return Rollout(
        model=generator.transformer,
        policy=job.own.policy,
        events=job.timeline,
        sampler=job.own.sampler,
        texts=lambda segment: generator.encode_text(prompts[segment]),
        noise=KeyedNoise(job.seed, [job.script.noise_key], (generator.clock.block, *generator.frame_shape)),
        frame_shape=generator.frame_shape,
        codec=generator.codec,
        block=generator.clock.block,
        horizon=generator.horizon,
    )


def name_of(job: VideoJob) -> str:
    """How a video is called in messages and claims: method and file name."""
    return f"{job.stem.parent.name}/{job.stem.name}"


def as_they_come_free(
    todo: deque[VideoJob], claims: Claims, waiting: Callable[[VideoJob], None], poll: float = 1.0
) -> Iterator[tuple[VideoJob, Claim | None]]:
    """Work off ``todo``: jobs with a claim to make them, or with None where they are done.

    A job that another worker has claimed comes again later; ``waiting`` is told every time. The consumer may put jobs
    back into ``todo``. Between rounds in which every job was somebody else's this waits ``poll`` seconds.
    """
    refused, left = 0, set(claims.leftovers())
    while todo:
        job = todo.popleft()
        # A worker killed right after its video was done has left the folder of the claim; taking it removes it.
        claim = None if job.done and job.key not in left else claims.take(job.key, name_of(job))
        done = job.done  # asked again: the owner before may have finished it meanwhile
        if claim is None and not done:
            waiting(job)
            todo.append(job)
            refused += 1
            if refused >= len(todo):
                time.sleep(poll)
                refused = 0
            continue
        refused = 0
        if claim is not None and done:
            claim.release(done=True)
            claim = None
        yield job, claim


def generate_claimed(job: VideoJob, claim: Claim, generator: Generator | None, **options: Any) -> dict[str, Any]:
    """`generate` in the folder of a claim, which is released: done, or kept for the next owner. Raises ClaimLost."""
    done = False
    try:
        sidecar = generate(job, generator, work=claim.work, check=claim.check, **options)
        done = True
    finally:
        claim.release(done)
    return sidecar


def generate(
    job: VideoJob,
    generator: Generator | None,
    checkpoint_blocks: int = 20,
    report: Callable[[Report], None] = lambda _: None,
    work: Path | None = None,
    check: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Make the video of ``job`` unless it is there; a killed run continues at its last checkpoint, frame for frame.

    Files appear under their final names when they are complete: the lossless companion, the mp4, and at the very end
    the sidecar JSON, which is returned.

    Args:
        work: folder of this process alone, on the file system of the video, for everything unfinished; who takes it
            over continues from there. Without one a claim is taken, when whoever has it now has let go.
        check: called after every block and before anything is published; raises if ``work`` was taken over.
        stop: asked after every block; when true the video is left at a checkpoint.
        generator: the loaded model; not needed for a video of a system.

    Raises:
        VideoError: the file system refuses (no permission, disk full).
        Interrupted: ``stop`` said so.
        ClaimLost: from ``check``.
    """
    if job.done:
        found: dict[str, Any] = json.loads(job.sidecar.read_text())
        return found
    if work is None:
        for _, claim in as_they_come_free(deque([job]), Claims(job.stem.parents[1]), lambda _: None):
            if claim is not None:
                options = {"checkpoint_blocks": checkpoint_blocks, "report": report, "stop": stop}
                return generate_claimed(job, claim, generator, **options)
        return generate(job, generator)
    try:
        job.stem.parent.mkdir(parents=True, exist_ok=True)
        if job.system is not None:
            from irope.system_video import make_system_video

            return make_system_video(job, work, check, stop, lambda *done: report(Report(job, *done)))
        if generator is None:
            raise ValueError(f"{name_of(job)}: a policy needs a generator")
        return _generate(job, generator, checkpoint_blocks, report, work, check, stop)
    except OSError:
        check()  # what another worker has taken over is gone, which is no error of the file system
        raise


def _generate(
    job: VideoJob,
    generator: Generator,
    checkpoint_blocks: int,
    report: Callable[[Report], None],
    work: Path,
    check: Callable[[], None],
    stop: Callable[[], bool],
) -> dict[str, Any]:
    for part in work.glob("*.part"):  # a former owner may still have it open
        part.unlink()
    generator.prepare([segment.prompt for segment in job.timeline.segments])
    rollout = make_rollout(job, generator)
    state, parts = work / "state.safetensors", work / "parts"
    log = _resume(state, parts, job, rollout)
    resumed = len(log.seconds)
    options = job.file
    with VideoWriter(
        job.stem.with_name(job.stem.name + ".mp4"),
        fps=generator.clock.fps,
        scale=options.scale,
        subtitles=options.subtitles,
        lossless=options.lossless,
        resume=log.writer,
        parts=parts,
    ) as writer:
        for block in rollout:
            assert block.frames is not None
            writer.write(block.frames[0].numpy(), job.timeline.segments[block.segment].subtitle)
            _note(log, block, rollout)
            check()
            report(Report(job, block.index + 1, job.timeline.blocks, block.seconds, block.event, resumed))
            stopping = stop() and block.index + 1 < job.timeline.blocks
            if stopping or len(log.seconds) % checkpoint_blocks == 0:
                log.writer = writer.checkpoint()
                _save(state, job, rollout, log)
            if stopping:
                raise Interrupted(f"{name_of(job)}: stopped after block {block.index + 1} of {job.timeline.blocks}")
        try:
            # The chunks stay, for a kill before the sidecar is there; they go with the folder.
            log.writer = writer.finish(keep_chunks=True, check=check)
        except VideoError as error:
            if error.errno not in MENDABLE:
                state.unlink(missing_ok=True)  # a damaged chunk: the next attempt starts from nothing
            raise
    sidecar = _sidecar(job, generator, rollout, log)
    publish(work, job.sidecar, sidecar, check)
    clear_failure(job.stem)
    return sidecar


def _note(log: _Log, block: Block, rollout: Rollout) -> None:
    assert block.plan is not None
    log.trace.add(block.index, block.event, block.segment, block.plan)
    log.seconds.append(round(block.seconds, 6))
    log.stage_bytes = max(log.stage_bytes, rollout.arena.stage_bytes)


def _save(path: Path, job: VideoJob, rollout: Rollout, log: _Log) -> None:
    tensors, record = rollout.state()
    facts = {
        "key": job.key,
        "rollout": record,
        "writer": log.writer.to_json(),
        "trace": log.trace.entries,
        "seconds": log.seconds,
        "stage_bytes": log.stage_bytes,
    }
    part = path.with_name(f"{path.name}.{token_hex(4)}.part")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, {"state": json.dumps(facts)})
    except SafetensorError as error:  # its own words for what the system refuses
        part.unlink(missing_ok=True)
        advice = f"cannot write a checkpoint ({error}): free some space and run the same command again"
        raise VideoError(errno.EIO, advice, str(path)) from error
    part.replace(path)


def _resume(path: Path, parts: Path, job: VideoJob, rollout: Rollout) -> _Log:
    """Take up the checkpoint of an earlier run of the same job; an unreadable or foreign one starts from nothing."""
    try:
        with safe_open(str(path), "pt") as file:
            facts = json.loads(file.metadata()["state"])
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        saved = Progress(**facts["writer"])
        if facts["key"] != job.key or missing_chunks(parts, saved.chunks, job.file.lossless):
            return _Log()
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return _Log()
    rollout.load_state(tensors, facts["rollout"])
    return _Log(saved, PlanTrace(facts["trace"]), facts["seconds"], facts["stage_bytes"])


def _sidecar(job: VideoJob, generator: Generator, rollout: Rollout, log: _Log) -> dict[str, Any]:
    """Everything about a finished video, as JSON types."""
    files = {"mp4": job.stem.name + ".mp4", "frames": job.stem.name + ".mkv" if job.file.lossless else None}
    return facts(job, files, log.writer.frames, log.writer.hash) | {
        "cost": {
            "seconds_per_block_median": median(log.seconds),
            "seconds_total": round(sum(log.seconds), 3),
            "kv_page_bytes": rollout.arena.page_bytes,
            "kv_peak_bytes": rollout.arena.page_bytes + log.stage_bytes,
        },
        "size": list(generator.size),
        "seconds_per_block": log.seconds,
        "plans": log.trace.entries,
        "environment": environment(generator.transformer.device),
    }
