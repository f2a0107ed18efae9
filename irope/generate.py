"""Make one video: roll out, write frames as they come, checkpoint, and the sidecar JSON last."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from irope.generator import Generator
from irope.jobs import VideoJob
from irope.noise import KeyedNoise
from irope.policy import CacheEvent
from irope.provenance import environment, write_json_atomic
from irope.rollout import Block, Rollout
from irope.trace import PlanTrace
from irope.video import Progress, VideoError, VideoWriter


@dataclass(frozen=True)
class Report:
    """Progress of one video after a block; ``resumed`` counts the blocks that were on disk already."""

    job: VideoJob
    block: int
    blocks: int
    seconds: float
    event: CacheEvent
    resumed: int


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
        policy=job.policy,
        events=job.timeline,
        sampler=job.sampler,
        texts=lambda segment: generator.encode_text(prompts[segment]),
        noise=KeyedNoise(job.seed, [job.script.noise_key], (generator.clock.block, *generator.frame_shape)),
        frame_shape=generator.frame_shape,
        codec=generator.codec,
        block=generator.clock.block,
        horizon=generator.horizon,
    )


def generate(
    job: VideoJob,
    generator: Generator,
    checkpoint_blocks: int = 20,
    report: Callable[[Report], None] = lambda _: None,
) -> dict[str, Any]:
    """Make the video of ``job`` unless it is there; a killed run continues at its last checkpoint, frame for frame.

    Files appear under their final names when they are complete: the lossless companion, the mp4, and at the very end
    the sidecar JSON, which is returned.

    Raises:
        VideoError: the file system refuses (no permission, disk full).
    """
    if job.done:
        found: dict[str, Any] = json.loads(job.sidecar.read_text())
        return found
    job.stem.parent.mkdir(parents=True, exist_ok=True)
    rollout = make_rollout(job, generator)
    state = job.stem.with_name(job.stem.name + ".state")
    log = _resume(state, job, rollout)
    resumed = len(log.seconds)
    options = job.file
    with VideoWriter(
        job.stem.with_name(job.stem.name + ".mp4"),
        fps=generator.clock.fps,
        scale=options.scale,
        subtitles=options.subtitles,
        lossless=options.lossless,
        resume=log.writer,
    ) as writer:
        for block in rollout:
            assert block.frames is not None
            writer.write(block.frames[0].numpy(), job.timeline.segments[block.segment].subtitle)
            _note(log, block, rollout)
            report(Report(job, block.index + 1, job.timeline.blocks, block.seconds, block.event, resumed))
            if len(log.seconds) % checkpoint_blocks == 0:
                log.writer = writer.checkpoint()
                _save(state, job, rollout, log)
        log.writer = writer.finish(keep_chunks=True)
        sidecar = _sidecar(job, generator, rollout, log)
        write_json_atomic(job.sidecar, sidecar)
        writer.clean()  # not before the sidecar: a kill in between must find its checkpoint whole
    state.unlink(missing_ok=True)
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
    part = path.with_name(path.name + ".part")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, {"state": json.dumps(facts)})
    except SafetensorError as error:  # its own words for what the system refuses
        part.unlink(missing_ok=True)
        advice = f"cannot write a checkpoint ({error}): free some space and run the same command again"
        raise VideoError(errno.EIO, advice, str(path)) from error
    part.replace(path)


def _resume(path: Path, job: VideoJob, rollout: Rollout) -> _Log:
    """Take up the checkpoint of an earlier run of the same job; an unreadable or foreign one starts from nothing."""
    try:
        with safe_open(str(path), "pt") as file:
            facts = json.loads(file.metadata()["state"])
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError):
        return _Log()
    if facts["key"] != job.key:
        return _Log()
    rollout.load_state(tensors, facts["rollout"])
    return _Log(Progress(**facts["writer"]), PlanTrace(facts["trace"]), facts["seconds"], facts["stage_bytes"])


def _sidecar(job: VideoJob, generator: Generator, rollout: Rollout, log: _Log) -> dict[str, Any]:
    """Everything about a finished video, as JSON types."""
    clock = generator.clock
    return {
        "key": job.key,
        "record": job.record,
        "config": job.config,
        "id": job.script.id,
        "script": job.script.canonical(),
        "method": str(job.config["video"]["method"]["name"]),
        "policy": job.policy.name,
        "model": generator.name,
        "seed": job.seed,
        "files": {"mp4": job.stem.name + ".mp4", "frames": job.stem.name + ".mkv" if job.file.lossless else None},
        "fps": clock.fps,
        "latents": job.timeline.latents,
        "pixel_frames": log.writer.frames,
        "rounding": list(job.timeline.rounding),
        "segments": [
            {
                "prompt": segment.prompt,
                "start_block": segment.start_block,
                "stop_block": segment.stop_block,
                "start_frame": clock.pixels(segment.start_block * clock.block) if segment.start_block else 0,
                "stop_frame": clock.pixels(segment.stop_block * clock.block),
                "cut": segment.cut,
                "subtitle": segment.subtitle,
            }
            for segment in job.timeline.segments
        ],
        "frames_sha256_chain": log.writer.hash,
        "cost": {
            "seconds_per_block_median": median(log.seconds),
            "seconds_total": round(sum(log.seconds), 3),
            "kv_page_bytes": rollout.arena.page_bytes,
            "kv_peak_bytes": rollout.arena.page_bytes + log.stage_bytes,
        },
        "seconds_per_block": log.seconds,
        "plans": log.trace.entries,
        "environment": environment(generator.transformer.device),
    }
