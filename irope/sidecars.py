"""The sidecar JSON of a finished video: what all of them say, whoever made the frames, and how it is published last."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

from irope.jobs import VideoJob
from irope.prompt_files import BenchScript


def facts(
    job: VideoJob, files: Mapping[str, str | None], frames: int, chain: str | None, fps: float | None = None
) -> dict[str, Any]:
    """What every sidecar says, as JSON types; whoever made the video adds ``cost``, ``environment`` and its own.

    Args:
        files: kind -> name beside the sidecar: ``mp4`` to look at, ``frames`` to score, null where there is none.
        frames: pixel frames of the video; ``chain`` the hash chain over them, None where nobody decoded them.
        fps: where it is not the timeline's.
    """
    clock = job.timeline.clock
    return {
        "key": job.key,
        "files": dict(files),
        "bytes": {kind: job.stem.with_name(name).stat().st_size for kind, name in files.items() if name is not None},
        "record": job.record,  # first after what `irope.finished` reads
        "config": job.own_config,
        "id": job.script.id,
        "script": job.script.canonical(),
        "short_prompt": job.script.short if isinstance(job.script, BenchScript) else None,
        "method": str(job.config["video"]["method"]["name"]),
        "policy": None if job.system else job.own.policy.name,
        "system": job.system.name if job.system else None,
        "model": job.model,
        "seed": job.seed,
        "fps": clock.fps if fps is None else fps,
        "latents": job.timeline.latents,
        "pixel_frames": frames,
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
        "frames_sha256_chain": chain,
    }


def publish(work: Path, path: Path, sidecar: Mapping[str, Any], check: Callable[[], None]) -> None:
    """Write the sidecar in ``work``, which is gone if another worker took over, and move it to its place."""
    part = work / f"sidecar.{token_hex(4)}.part"
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(sidecar, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        check()
        part.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
