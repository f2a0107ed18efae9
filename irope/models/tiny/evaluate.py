"""Does the embedded model draw what it is told? Videos of unseen prompts, read back by the tracker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from irope.models.tiny.codec import TinyCodec, pixel_frames
from irope.models.tiny.data import to_video
from irope.models.tiny.model import TinyModel, load_tiny
from irope.models.tiny.sample import roll_out
from irope.models.tiny.train_codec import decibel, pixel_error
from irope.script import Clock
from irope.world import Agreement, Scene, agreement, render, sample_scene, sample_staging, track
from irope.world.scene import ACTIONS, DIRECTIONS

STRETCH = 5.0
"""Seconds scored at once in a long video."""

STREAK = 0.45
"""Overlap with the true shape below which a subject counts as smeared."""

GROUPS: dict[str, tuple[str, ...]] = {
    "straight motion": tuple(DIRECTIONS),
    "standing still": ("standing still",),
    "circling": ("circling",),
    "bouncing": ("bouncing",),
    "pulsing": ("pulsing",),
}


@dataclass(frozen=True)
class Score:
    """The mean of a measure, 0..1, over ``n`` videos and its standard error."""

    mean: float
    error: float
    n: int


def unseen_scenes(count: int, seed: int) -> list[Scene]:
    """Scenes that training never saw, the actions in turn."""
    rng = np.random.default_rng([seed, 7])
    return [sample_scene(rng, held_out=True, action=ACTIONS[i % len(ACTIONS)]) for i in range(count)]


def generate(
    model: TinyModel,
    prompts: Sequence[str],
    latent_frames: int,
    seed: int,
    window: int | None = None,
    sink: int = 0,
    batch: int = 16,
    report: Callable[[int, int], None] | None = None,
) -> list[NDArray[np.uint8]]:
    """Videos as uint8 frames [F, H, W, 3], ``batch`` at a time; ``report(done, all)`` after each batch."""
    videos: list[NDArray[np.uint8]] = []
    for first in range(0, len(prompts), batch):
        latents = roll_out(model, prompts[first : first + batch], latent_frames, seed, window, sink)
        videos.extend(video.cpu().numpy() for video in model.codec.decode(latents))
        if report:
            report(len(videos), len(prompts))
    return videos


def summarize(scenes: Sequence[Scene], found: Sequence[Agreement]) -> dict[str, Score]:
    """Scores by measure; actions are split into groups."""
    table = {
        name: _score([getattr(a, name) for a in found if getattr(a, name) is not None])
        for name in ("color", "background", "pattern", "shape", "visible", "iou", "action")
    }
    for group, actions in GROUPS.items():
        table[group] = _score([a.action for scene, a in zip(scenes, found, strict=True) if scene.action in actions])
    return table


def _score(values: Sequence[float]) -> Score:
    if not values:
        return Score(float("nan"), float("nan"), 0)
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return Score(float(np.mean(values)), error, len(values))


def verify_tiny(
    n_prompts: int = 64,
    seed: int = 0,
    model: TinyModel | None = None,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, Score]:
    """Score 5-second videos (21 latent frames, full causal cache, four sampler steps) on prompts not seen in training.

    A label counts by the share of frames that show it, an action by the whole clip. ``model`` is the packaged one
    unless given; ``report(done, all)`` is called as videos are made.
    """
    if n_prompts < 1:
        raise ValueError(f"verifying needs at least one prompt, got {n_prompts}")
    model = model or load_tiny()
    scenes = unseen_scenes(n_prompts, seed)
    videos = generate(model, [scene.prompt for scene in scenes], model.info.horizon, seed, report=report)
    return summarize(scenes, [agreement(track(video), scene) for video, scene in zip(videos, scenes, strict=True)])


def verify_codec(codec: TinyCodec, n_prompts: int = 64, seed: int = 0) -> tuple[dict[str, Score], float]:
    """What the tracker reads off true clips of the same unseen scenes that went through the codec, and the PSNR in dB.

    The scores are the ceiling of `verify_tiny`. PSNR is over all clips, 21 latent frames each.
    """
    scenes, found, errors = unseen_scenes(n_prompts, seed), [], []
    for number, scene in enumerate(scenes):
        staging = sample_staging(np.random.default_rng([seed, 8, number]))
        true = render(scene, staging, pixel_frames(21))[0]
        decoded = codec.decode(codec.encode(to_video(true)))[0].cpu().numpy()
        errors.append(pixel_error(decoded, true))
        found.append(agreement(track(decoded), scene))
    return summarize(scenes, found), decibel(float(np.mean(errors)))


def verify_long(
    model: TinyModel,
    seconds: float,
    stretches: Sequence[float],
    window: int,
    sink: int,
    n_prompts: int = 64,
    seed: int = 0,
) -> dict[float, dict[str, Score]]:
    """Score `STRETCH` seconds from each of ``stretches`` (seconds) of long videos, ∞-RoPE's indices at ``window``.

    Besides the measures of `verify_tiny`, ``streaks`` is the share of videos whose overlap falls below `STREAK`.
    """
    info = model.info
    latents = Clock(info.fps, info.block).latents(seconds)
    scenes = unseen_scenes(n_prompts, seed)
    tracks = [track(video) for video in generate(model, [s.prompt for s in scenes], latents, seed, window, sink)]
    table = {}
    for start in stretches:
        first, last = round(start * info.fps), round((start + STRETCH) * info.fps)
        found = [agreement(tracked, scene, first, last) for tracked, scene in zip(tracks, scenes, strict=True)]
        streaks = _score([float(one.iou < STREAK) for one in found])
        table[start] = summarize(scenes, found) | {"streaks": streaks}
    return table
