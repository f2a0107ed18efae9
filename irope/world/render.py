"""Scenes to pixels: signed distances on a 64x64 torus at 16 frames/s.

Shapes: F pixel frames, S = SIZE pixels a side, P = pixels a side of the subject's patch.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from irope.world.scene import COLORS, DIRECTIONS, HUES, Scene

SIZE = 64
FPS = 16
STRIPE_PERIOD = 16
CIRCLE_RADIUS = 11.0
CIRCLE_PERIOD = 2.75
BOUNCE_HEIGHT = 17.0
BOUNCE_PERIOD = 1.5
PULSE_DEPTH = 0.3
PULSE_PERIOD = 2.0
_GROUND_VALUE = 0.40
_GROUND_SATURATION = 0.85
_PATCH_HALF = 22

Float = NDArray[np.float32]
Radius = np.float32 | NDArray[np.float32]


@dataclass(frozen=True)
class Staging:
    """How one take of a scene is filmed: all that the prompt does not say.

    Pixels, pixels per second, seconds and degrees per second; ``pause`` is (start, length) of a halt in the motion.
    """

    start: tuple[float, float] = (SIZE / 2, SIZE / 2)
    radius: float = 11.5
    speed: float = 18.0
    light_depth: float = 0.0
    light_period: float = 8.0
    light_phase: float = 0.0
    hue_rate: float = 0.0
    pause: tuple[float, float] | None = None


def sample_staging(
    rng: np.random.Generator, *, hue_drift: float = 0.0, pause_share: float = 0.0, spread: float = 1.0
) -> Staging:
    """A random take, started near the centre.

    Args:
        hue_drift: bound of the background's hue change, degrees/s.
        pause_share: share of takes with a halt in the motion.
        spread: how far start, size and speed stray from their middle; 1 is 2.5 px (deviation), +-1 px and +-2 px/s.
    """
    x, y = rng.normal(SIZE / 2, 2.5 * spread, size=2)
    pause = (float(rng.uniform(0.8, 4.0)), float(rng.uniform(0.4, 1.2)))
    halted = rng.random() < pause_share
    return Staging(
        start=(float(x), float(y)),
        radius=float(rng.uniform(11.5 - spread, 11.5 + spread)),
        speed=float(rng.uniform(18.0 - 2 * spread, 18.0 + 2 * spread)),
        light_depth=float(rng.uniform(0.0, 0.08)),
        light_period=float(rng.uniform(6.0, 12.0)),
        light_phase=float(rng.uniform(0.0, 2 * np.pi)),
        hue_rate=float(rng.uniform(-hue_drift, hue_drift)),
        pause=pause if halted else None,
    )


def _circle(x: Float, y: Float, r: Radius) -> Float:
    return np.hypot(x, y) - r


def _square(x: Float, y: Float, r: Radius) -> Float:
    return np.maximum(np.abs(x), np.abs(y)) - 0.9 * r


def _triangle(x: Float, y: Float, r: Radius) -> Float:
    side = np.float32(np.sqrt(0.75)) * np.abs(x) - 0.5 * y
    return np.maximum(y, side) - 0.74 * r


def _cross(x: Float, y: Float, r: Radius) -> Float:
    x, y = np.abs(x), np.abs(y)
    arm, half_width = 1.25 * r, 0.42 * r
    return np.minimum(np.maximum(x - arm, y - half_width), np.maximum(x - half_width, y - arm))


DISTANCE: dict[str, Callable[[Float, Float, Radius], Float]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
}
"""Signed distance (pixels, negative inside) of each shape about its centroid; areas are alike at equal radius."""


def action_seconds(staging: Staging, frames: int) -> NDArray[np.float64]:
    """Seconds that the subject has been acting at each frame, halts left out: [F]."""
    seconds = np.arange(frames) / FPS
    if staging.pause is not None:
        begin, length = staging.pause
        seconds = seconds - np.clip(seconds - begin, 0.0, length)
    return seconds


def radii(scene: Scene, staging: Staging, frames: int) -> NDArray[np.float32]:
    """Radius of the subject in pixels: [F]; it changes when the subject pulses."""
    depth = PULSE_DEPTH if scene.action == "pulsing" else 0.0
    phase = 2 * np.pi * action_seconds(staging, frames) / PULSE_PERIOD
    return (staging.radius * (1 + depth * np.sin(phase))).astype(np.float32)


def positions(scene: Scene, staging: Staging, frames: int) -> NDArray[np.float64]:
    """Centroid of the subject in pixels, not wrapped: [F, 2] as (x, y)."""
    seconds = action_seconds(staging, frames)
    x, y = np.zeros(frames), np.zeros(frames)
    if scene.action in DIRECTIONS:
        dx, dy = DIRECTIONS[scene.action]
        x, y = dx * staging.speed * seconds, dy * staging.speed * seconds
    elif scene.action == "circling":
        angle = 2 * np.pi * seconds / CIRCLE_PERIOD
        x, y = CIRCLE_RADIUS * np.sin(angle), CIRCLE_RADIUS * (1 - np.cos(angle))
    elif scene.action == "bouncing":
        phase = (seconds / BOUNCE_PERIOD) % 1.0
        y = -4 * BOUNCE_HEIGHT * phase * (1 - phase)
    return np.stack([x, y], axis=1) + np.asarray(staging.start)


def ground_shade(pattern: str) -> Float:
    """Brightness factor of a background pattern, [S, S], periodic on the torus."""
    row, column = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    if pattern == "striped":
        return np.where((column % STRIPE_PERIOD) < STRIPE_PERIOD / 2, 1.2, 0.6).astype(np.float32)
    if pattern == "gradient":
        return (0.85 + 0.4 * np.cos(2 * np.pi * (row + 0.5) / SIZE)).astype(np.float32)
    return np.ones((SIZE, SIZE), np.float32)


def ground_color(background: str, drift: float = 0.0) -> tuple[float, float, float]:
    """RGB of a background at brightness factor 1, its hue turned by ``drift`` degrees."""
    hue = HUES[background]
    if hue is None:
        return (_GROUND_VALUE, _GROUND_VALUE, _GROUND_VALUE)
    return colorsys.hsv_to_rgb(((hue + drift) / 360.0) % 1.0, _GROUND_SATURATION, _GROUND_VALUE)


def render(scene: Scene, staging: Staging, frames: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Film a scene: frames [F, S, S, 3] and subject coverage [F, S, S], both uint8 0..255.

    Raises ValueError for a scene without background: a picture needs one, only a prompt can leave it open.
    """
    if scene.background is None or scene.pattern is None:
        raise ValueError(f'"{scene.prompt}" names no background; a scene needs one to be rendered')
    if frames < 1:
        raise ValueError(f"a clip needs at least one frame, got {frames}")
    seconds = np.arange(frames) / FPS
    light = 1 + staging.light_depth * np.sin(2 * np.pi * seconds / staging.light_period + staging.light_phase)
    if staging.hue_rate:
        ground_F3 = np.array([ground_color(scene.background, staging.hue_rate * t) for t in seconds])
    else:
        ground_F3 = np.tile(ground_color(scene.background), (frames, 1))
    ground_F3 = (255 * light[:, None] * ground_F3).astype(np.float32)
    subject_F3 = np.minimum(255 * light[:, None] * np.asarray(COLORS[scene.color]), 255).astype(np.float32)

    # Rounding happens on truncation to uint8, hence the half.
    shade = ground_shade(scene.pattern)[None, :, :, None]
    video = np.multiply(shade, ground_F3[:, None, None, :], dtype=np.float32)
    video += 0.5
    video = video.astype(np.uint8)
    coverage = np.zeros((frames, SIZE, SIZE), np.uint8)
    centre_F2 = positions(scene, staging, frames)
    origin_F2 = np.floor(centre_F2).astype(np.int64) - _PATCH_HALF
    offset = np.arange(2 * _PATCH_HALF + 1)
    column_FP, row_FP = origin_F2[:, 0, None] + offset, origin_F2[:, 1, None] + offset
    x_FP = (column_FP + 0.5 - centre_F2[:, 0, None]).astype(np.float32)
    y_FP = (row_FP + 0.5 - centre_F2[:, 1, None]).astype(np.float32)
    radius_F = radii(scene, staging, frames)
    distance = DISTANCE[scene.shape](x_FP[:, None, :], y_FP[:, :, None], radius_F[:, None, None])
    frame, row, column = np.nonzero(distance < 0.5)
    amount = np.minimum(0.5 - distance[frame, row, column], np.float32(1.0))
    row, column = row_FP[frame, row] % SIZE, column_FP[frame, column] % SIZE
    coverage[frame, row, column] = 255 * amount + 0.5
    ground = video[frame, row, column]
    video[frame, row, column] = ground + amount[:, None] * (subject_F3[frame] - ground) + 0.5
    return video, coverage
