"""The policy study of the embedded model: windows, switches, cuts and attention, one file of readings a cell.

Every cell is one batched roll-out (`irope.study_cells`, `irope.study_rollouts`) whose videos are read at once
(`irope.study_readings`) and dropped. Only raw readings are written here; tables, intervals and verdicts are made of
them by `eval.study_report`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from irope import study_readings
from irope.bench import one_thread
from irope.claims import Claims
from irope.config import Settings
from irope.generator import device_from
from irope.identity import config_key, file_digest
from irope.measurements import Report, tier_of
from irope.models.tiny.info import read_metadata, weights_path
from irope.models.tiny.model import TinyModel, load_tiny
from irope.provenance import environment, write_json_atomic
from irope.script import Clock
from irope.study_cells import Cell, Take, cells, takes
from irope.study_readings import cut_readings, first_frame, stretch_readings, switch_readings
from irope.study_rollouts import BATCH, Beginnings, SinkMass, latents, rollout

STEPS = (0, -1)
"""Denoising steps whose attention is read: the noisiest and the last."""

_WAIT = 2.0  # seconds between two looks at cells that another process is making


@dataclass(frozen=True)
class Job:
    """A cell of one checkpoint, where its readings go, and the hash of everything they depend on."""

    cell: Cell
    checkpoint: str
    weights: Path
    takes: tuple[Take, ...]
    seed: int
    path: Path
    key: str


def policy_study(config: Settings, folder: Path, report: Report) -> list[Path]:
    """The files of readings of a tier in the order of its cells, made where they are missing.

    Any number of processes may run the same command: they share the cells. ``video.model.weights`` studies one weights
    file instead of the tier's packaged checkpoints, under the name of the file.

    Raises:
        UserError: the experiment has no such tier, or a weights file is missing or not one of the embedded model.
    """
    _, settings = tier_of(config)
    own = config["video"]["model"].get("weights")
    files = {Path(own).stem: Path(own)} if own else {name: weights_path(name) for name in settings["checkpoints"]}
    jobs: list[Job] = []
    for checkpoint, weights in files.items():
        found, refused = plan(settings, checkpoint, weights, folder)
        jobs += found
        for line in refused:
            report(f"{checkpoint}: not defined: {line}")
    device = device_from(config)
    models: dict[str, tuple[TinyModel, Beginnings]] = {}

    def make(job: Job, number: int) -> None:
        if job.checkpoint not in models:
            models.clear()
            models[job.checkpoint] = (load_tiny(job.weights, device), Beginnings())
        start, cpu = time.perf_counter(), time.process_time()
        with one_thread():
            found = readings(*models[job.checkpoint], job)
        seconds = {"wall": round(time.perf_counter() - start, 2), "cpu": round(time.process_time() - cpu, 2)}
        write_json_atomic(job.path, found | {"seconds": seconds, "environment": environment(device)})
        report(f"[{number}/{len(jobs)}] {job.checkpoint}, {job.cell.part}, {job.cell.label}: {seconds['wall']:.0f} s")

    share(jobs, folder, make, report)
    return [job.path for job in jobs]


def plan(settings: Mapping[str, Any], checkpoint: str, weights: Path, folder: Path) -> tuple[list[Job], list[str]]:
    """The jobs of one checkpoint, and what a policy's check refuses."""
    _, info = read_metadata(weights)
    digest, seed = file_digest(weights), int(settings["seed"])
    clock = Clock(info.fps, info.block)
    found, refused = cells(settings, checkpoint, clock, info.horizon)
    lists: dict[tuple[str, int], tuple[Take, ...]] = {}
    jobs = []
    for cell in found:
        count = int(settings["attention"]["prompts"] if cell.part == "attention" else settings["prompts"])
        if (cell.takes, count) not in lists:
            lists[cell.takes, count] = tuple(takes(cell.takes, count, seed))
        chosen = lists[cell.takes, count]
        prompts = [[take.before.prompt, take.after.prompt] for take in chosen]
        record = {"version": study_readings.VERSION, "weights": digest, "seed": seed, "prompts": prompts}
        key = config_key(record | cell.record())
        name = re.sub(r"[^a-z0-9.-]+", "_", cell.label.lower().replace("Δ=", "d"))
        path = folder / "cells" / checkpoint / f"{cell.part}-{name}-{key[:8]}.json"
        jobs.append(Job(cell, checkpoint, weights, chosen, seed, path, key))
    return jobs, refused


def share(jobs: Sequence[Job], folder: Path, make: Callable[[Job, int], None], report: Report) -> None:
    """Make what is missing, each job by one process; wait at the end for those that others are making."""
    claims, left, told = Claims(folder), list(enumerate(jobs, start=1)), False
    while left:
        waiting = []
        for number, job in left:
            if job.path.is_file():
                continue
            claim = claims.take(job.key, job.cell.label)
            if claim is None:
                waiting.append((number, job))
                continue
            try:
                if not job.path.is_file():  # the owner before may have finished it
                    make(job, number)
            finally:
                claim.release(done=job.path.is_file())
        left = waiting
        if left and not told:
            report(f"{len(left)} cells are being made by another process; waiting for them")
            told = True
        if left:
            time.sleep(_WAIT)


def readings(model: TinyModel, shared: Beginnings, job: Job) -> dict[str, Any]:
    """The file of a cell, without its seconds."""
    cell = job.cell
    clock = Clock(model.info.fps, model.info.block)
    found: dict[str, Any] = {
        "key": job.key,
        **cell.record(),
        "label": cell.label,
        "facts": dict(cell.facts),
        "checkpoint": job.checkpoint,
        "weights": file_digest(job.weights),
        "seed": job.seed,
        "prompts": [take.before.prompt for take in job.takes],
        "after": [take.after.prompt for take in job.takes],
        "seconds_of_video": clock.seconds(cell.blocks * clock.block),
    }
    batches = [job.takes[first : first + BATCH] for first in range(0, len(job.takes), BATCH)]
    if cell.part == "attention":
        return found | {"attention": _attention(model, cell, batches, job.seed)}
    rows: list[dict[str, Any]] = []
    for batch in batches:
        videos = latents(model, cell, batch, job.seed, shared)
        for take, video_NChw in zip(batch, videos, strict=True):
            number = {"prompt": len({row["prompt"] for row in rows})}
            rows += [number | _short(row) for row in _read(model, cell, take, video_NChw, clock)]
    return found | {"readings": rows}


def _read(model: TinyModel, cell: Cell, take: Take, video_NChw: Tensor, clock: Clock) -> list[dict[str, Any]]:
    """Readings of one video: a row a stretch, or one."""
    if cell.part == "windows":
        first, rows = decoded(model, video_NChw, 0, 1), []
        for stretch in cell.stretches:
            start = round(stretch * clock.fps)
            frames = decoded(model, video_NChw, max(0, start - 1), start + round(study_readings.STRETCH * clock.fps))
            rows.append({"start": stretch, **stretch_readings(frames, first, take.before, start, clock)})
        return rows
    assert cell.at is not None
    # Neither reading looks further back than three blocks and the border before them.
    skipped = max(0, cell.at - 4)
    frames = decoded(model, video_NChw, first_frame(clock, skipped), clock.pixels(cell.blocks * clock.block))
    reading = switch_readings if cell.part == "switch" else cut_readings
    return [reading(frames, take, cell.at, clock, skipped)]


def decoded(model: TinyModel, video_NChw: Tensor, first: int, stop: int) -> NDArray[np.uint8]:
    """Pixel frames [first, stop) of a video; a latent is decoded without the others."""
    stride = 4
    a, b = first // stride, (stop + stride - 2) // stride + 1
    frames = model.codec.decode(video_NChw[None, a:b].to(model.transformer.device))[0].cpu().numpy()
    part: NDArray[np.uint8] = frames[first - stride * a : stop - stride * a]
    return part


def _attention(model: TinyModel, cell: Cell, batches: Sequence[Sequence[Take]], seed: int) -> dict[str, Any]:
    config = model.transformer.config
    rows, columns = config.grid(model.info.height, model.info.width)
    levels = tuple(step % len(model.info.sampler_steps) for step in STEPS)
    parts: list[NDArray[np.float32]] = []
    blocks: list[int] = []
    mass = SinkMass(0, 0, levels)
    for batch in batches:
        mass = SinkMass(cell.policy.sink, rows * columns, levels)
        video = rollout(model, cell, batch, seed)
        video.watch = mass
        for _ in video:
            pass
        blocks, found_BTSAH = mass.by_block()
        parts.append(found_BTSAH)
    mass_BTSAH = np.concatenate(parts)
    return {
        "blocks": blocks,
        "distance": [mass.distance[block] for block in blocks],
        "even": [round(mass.even[block], 6) for block in blocks],
        "steps": [level + 1 for level in levels],
        "by_prompt": _rounded(mass_BTSAH.mean(axis=(3, 4))),
        "by_head": _rounded(mass_BTSAH.mean(axis=0)),
    }


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    """A reading to five digits; NaN, which JSON does not know, is None."""
    return {k: (round(v, 5) if np.isfinite(v) else None) if isinstance(v, float) else v for k, v in row.items()}


def _rounded(values: NDArray[np.float32]) -> list[Any]:
    listed: list[Any] = np.round(values.astype(np.float64), 5).tolist()
    return listed
