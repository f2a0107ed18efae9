"""An experiment's results made up and written to disk: score files and sidecars as the real ones, without any video."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.results import CellFiles, Results, VideoFiles
from eval.scores import score_path, write_scores
from irope.provenance import write_json_atomic
from irope.script import Clock

METRICS = ("feature_consistency", "flow_motion", "imaging", "world_prompt")

Value = Callable[[str, Mapping[str, Any], str, int, float, str], float | None]
"""(method, axes, prompt, seed, seconds, metric) -> score, or None for a skip."""


def quality(method: str, axes: Mapping[str, Any], prompt: str, seed: int, seconds: float, metric: str) -> float:
    """Some number between 0 and 1 that depends on everything, prompts varying more than seeds."""
    rng = np.random.default_rng([len(method), sum(map(ord, prompt)), seed, int(seconds), sum(map(ord, metric))])
    effect = sum(float(v) for v in axes.values() if isinstance(v, (int, float))) / 1000
    base = 0.6 + 0.3 * math.sin(sum(map(ord, prompt))) ** 2
    return float(np.clip(base - effect - seconds / 2000 + 0.02 * rng.standard_normal(), 0, 1))


def make_results(
    folder: Path,
    cells: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    name: str = "delta_ablation",
    prompts: Sequence[str] = tuple(f"p{i}" for i in range(10)),
    seeds: Sequence[int] = (0,),
    seconds: Sequence[float] = (40.0,),
    metrics: Sequence[str] = METRICS,
    value: Value = quality,
    protocol: str = "embedded",
    model: str = "tiny/stable",
    published: Mapping[str, Mapping[str, str]] | None = None,
    leave_out: Callable[[str, str, int], bool] = lambda label, prompt, seed: False,
) -> Results:
    """Results of the cells ``label -> axes``; every score has a curve of one value a second.

    ``leave_out(label, prompt, seed)`` says which videos are not there.
    """
    if cells is None:
        cells = {f"infinity_rope@cut_delta={d}": {"cut_delta": d} for d in (6, 21, 45, 90)}
    made = []
    for label, axes in cells.items():
        videos = []
        for prompt in prompts:
            for seed in seeds:
                stem = f"{prompt}-seed{seed}-0123abcd"
                video = folder / label / f"{stem}.mp4"
                scores = score_path(folder / "scores", protocol, f"{label}/{stem}")
                videos.append(VideoFiles(prompt, seed, video, scores, f"irope generate id={stem}"))
                if not leave_out(label, prompt, seed):
                    _write(video, scores, label, axes, prompt, seed, seconds, metrics, value, protocol, model)
        method = label.partition("@")[0]
        made.append(CellFiles(label, method, dict(axes), tuple(seconds), {"method": method}, tuple(videos)))
    return Results(
        name=name,
        description="made up",
        tier="quick",
        axes=tuple(next(iter(cells.values()))),
        protocol=protocol,
        model=model,
        published=published or {},
        command=f"irope run {name} tier=quick",
        cells=tuple(made),
    )


def _write(
    video: Path,
    scores: Path,
    label: str,
    axes: Mapping[str, Any],
    prompt: str,
    seed: int,
    seconds: Sequence[float],
    metrics: Sequence[str],
    value: Value,
    protocol: str,
    model: str,
) -> None:
    clock = Clock()
    windows = {}
    for length in seconds:
        frames = clock.pixels(clock.latents(length))
        found: dict[str, Any] = {}
        for metric in metrics:
            number = value(label.partition("@")[0], axes, prompt, seed, length, metric)
            if number is None:
                found[metric] = {"key": "k", "skipped": "made up without it"}
                continue
            curve = [round(number - 0.1 * i / max(1, length), 6) for i in range(math.ceil(length))]
            found[metric] = {"key": "k", "value": number, "terms": frames, "made": {"settings": {}}}
            found[metric]["curve"] = {"seconds": 1.0, "values": curve}
        windows[f"0-{frames}"] = {"scores": found}
    facts = {"name": f"{label}/{video.stem}", "file": video.name, "scored_file": video.name, "method": label}
    facts |= {"model": model, "prompt": prompt, "seed": seed, "frames": frames, "fps": 16.0, "height": 64, "width": 64}
    facts |= {"source": {"sha256": "0" * 64, "segments": []}, "record": {"policy": dict(axes)}}
    write_scores(scores, {"protocol": {"name": protocol, "settings": {}}, "video": facts, "windows": windows})
    latents = clock.latents(max(seconds))
    cost = {"seconds_per_block_median": 0.036, "seconds_total": 0.012 * latents}
    cost |= {"kv_page_bytes": 1000 * (6 + len(label)), "kv_peak_bytes": 2000 * (6 + len(label))}
    record = {"key": "0123abcd", "method": label, "id": prompt, "seed": seed, "latents": latents, "cost": cost}
    record |= {"pixel_frames": frames, "fps": 16, "files": {"mp4": video.name, "frames": None}, "segments": []}
    write_json_atomic(video.with_suffix(".json"), record | {"environment": {"device": {"name": "a made-up CPU"}}})
