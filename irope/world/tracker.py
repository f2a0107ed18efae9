"""Pixels back to scenes: what a viewer would say a clip shows, measured frame by frame without knowing the prompt.

Shapes: F pixel frames, S = 64 pixels a side. A frame without a subject is *not visible*,
never standing still.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from irope.world.render import (
    BOUNCE_HEIGHT,
    CIRCLE_PERIOD,
    CIRCLE_RADIUS,
    DISTANCE,
    FPS,
    PULSE_DEPTH,
    SIZE,
    STRIPE_PERIOD,
    ground_color,
    ground_shade,
)
from irope.world.scene import COLORS, DIRECTIONS, HUES, PATTERNS, SHAPES, Scene

SUBJECT_LEVEL = 0.70 * 255
"""A pixel belongs to the subject when its brightest channel passes this; backgrounds stay below 0.55."""

MIN_AREA, MAX_AREA = 90, 1100
"""Pixels a visible subject may cover; true subjects cover 280 to 560, pulsing ones 130 to 960."""

MIN_COMPACT = 0.85
"""Share of a visible subject's pixels that lie within reach of its centroid; a streak or scattered specks fail."""

_REACH = 20.0
_CHUNK = 128

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Track:
    """One row a frame: visibility, centroid, labels (indices into the world's names), overlap with each shape."""

    visible_F: NDArray[np.bool_]
    area_F: NDArray[np.int64]
    centroid_F2: NDArray[np.float64]
    color_F: NDArray[np.int64]
    shape_F: NDArray[np.int64]
    iou_FK: NDArray[np.float64]
    background_F: NDArray[np.int64]
    pattern_F: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.visible_F)


@dataclass(frozen=True)
class Agreement:
    """How far a stretch of video does what its scene says, each 0..1.

    ``background`` and ``pattern`` are None when the prompt leaves them open. ``color``, ``shape`` and ``iou`` are means
    over all frames, a frame without subject counting 0; ``action`` is 1 or 0 for the stretch.
    """

    visible: float
    color: float
    shape: float
    iou: float
    action: float
    background: float | None
    pattern: float | None


def track(frames: Frames) -> Track:
    """Measure every frame of a uint8 video [F, S, S, 3]; raises ValueError for another size or type."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (SIZE, SIZE, 3):
        raise ValueError(f"the tracker reads uint8 frames [F, {SIZE}, {SIZE}, 3], got {frames.dtype} {frames.shape}")
    if len(frames) == 0:
        raise ValueError("the tracker needs at least one frame")
    parts = [_measure(frames[i : i + _CHUNK]) for i in range(0, len(frames), _CHUNK)]
    return Track(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Track)})


def _measure(frames: Frames) -> Track:
    mask = frames.max(axis=3) > SUBJECT_LEVEL
    area = mask.sum(axis=(1, 2))
    x, y = _circular_mean(mask.sum(axis=1)), _circular_mean(mask.sum(axis=2))
    pixel = np.arange(SIZE) + 0.5
    dx = _wrap(pixel[None, :] - x[:, None]).astype(np.float32)
    dy = _wrap(pixel[None, :] - y[:, None]).astype(np.float32)
    # The circular mean of a lopsided shape is slightly off its centroid; one step about it is exact.
    some = np.maximum(area, 1)
    x, y = x + (mask.sum(axis=1) * dx).sum(axis=1) / some, y + (mask.sum(axis=2) * dy).sum(axis=1) / some
    dx = _wrap(pixel[None, :] - x[:, None]).astype(np.float32)
    dy = _wrap(pixel[None, :] - y[:, None]).astype(np.float32)
    near = np.hypot(dx[:, None, :], dy[:, :, None]) < _REACH
    compact = (mask & near).sum(axis=(1, 2)) / some
    visible = (area >= MIN_AREA) & (area <= MAX_AREA) & (compact > MIN_COMPACT)

    iou_FK = np.stack([_template_iou(name, mask, area, dx, dy) for name in SHAPES], axis=1)
    background, pattern = _ground(frames, mask)
    return Track(
        visible_F=visible,
        area_F=area,
        centroid_F2=np.stack([x % SIZE, y % SIZE], axis=1),
        color_F=_subject_color(frames, mask, area),
        shape_F=iou_FK.argmax(axis=1),
        iou_FK=iou_FK,
        background_F=background,
        pattern_F=pattern,
    )


def _wrap(delta: NDArray[np.float64]) -> NDArray[np.float64]:
    return (delta + SIZE / 2) % SIZE - SIZE / 2


def _circular_mean(weight_FS: NDArray[np.int64]) -> NDArray[np.float64]:
    angle = 2 * np.pi * (np.arange(SIZE) + 0.5) / SIZE
    return np.arctan2(weight_FS @ np.sin(angle), weight_FS @ np.cos(angle)) * SIZE / (2 * np.pi) % SIZE


_UNIT_AREA: dict[str, float] = {}


def _unit_area(shape: str) -> float:
    """Area of a shape at radius 1, by counting pixels of a large one."""
    if shape not in _UNIT_AREA:
        axis = np.linspace(-2, 2, 801, dtype=np.float32)
        inside = DISTANCE[shape](axis[None, :], axis[:, None], np.float32(1)) < 0
        _UNIT_AREA[shape] = float(inside.mean()) * 16
    return _UNIT_AREA[shape]


def _template_iou(
    shape: str, mask: NDArray[np.bool_], area: NDArray[np.int64], dx: NDArray[np.float32], dy: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Overlap of each mask with the shape drawn at its centroid with its area."""
    radius = np.sqrt(area / _unit_area(shape)).astype(np.float32)
    template = DISTANCE[shape](dx[:, None, :], dy[:, :, None], radius[:, None, None]) < 0
    union = (template | mask).sum(axis=(1, 2))
    return (template & mask).sum(axis=(1, 2)) / np.maximum(union, 1)


def _subject_color(frames: Frames, mask: NDArray[np.bool_], area: NDArray[np.int64]) -> NDArray[np.int64]:
    mean = np.einsum("fyxc,fyx->fc", frames, mask, dtype=np.float32, casting="unsafe") / np.maximum(area, 1)[:, None]
    return _nearest(mean, np.asarray(list(COLORS.values())))


def _nearest(mean_F3: NDArray[np.float32], palette_K3: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the palette colour nearest in direction, so that lighting does not matter; brightness breaks no tie."""
    unit = mean_F3 / np.maximum(np.linalg.norm(mean_F3, axis=1, keepdims=True), 1e-6)
    palette = palette_K3 / np.linalg.norm(palette_K3, axis=1, keepdims=True)
    return (unit @ palette.T).argmax(axis=1)


def _ground(frames: Frames, mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Background hue and pattern from the pixels that are clearly not subject."""
    blocked = mask.copy()
    for axis in (1, 2):
        blocked |= np.roll(blocked, 1, axis) | np.roll(blocked, -1, axis)
    free = ~blocked
    count = np.maximum(free.sum(axis=(1, 2)), 1)
    mean = np.einsum("fyxc,fyx->fc", frames, free, dtype=np.float32, casting="unsafe") / count[:, None]
    hue = _nearest(mean, np.asarray([ground_color(name) for name in HUES]))
    brightness = frames.max(axis=3).astype(np.float32) * free
    overall = np.maximum(brightness.sum(axis=(1, 2)) / count, 1e-6)
    columns = brightness.sum(axis=1) / np.maximum(free.sum(axis=1), 1) / overall[:, None]
    rows = brightness.sum(axis=2) / np.maximum(free.sum(axis=2), 1) / overall[:, None]
    cycles = {"striped": SIZE // STRIPE_PERIOD, "gradient": 1}
    strength = np.zeros((len(frames), len(PATTERNS)))
    for name, profile in (("striped", columns), ("gradient", rows)):
        ideal = ground_shade(name).mean(axis=0 if name == "striped" else 1)
        full = np.abs(np.fft.rfft(ideal / ideal.mean())[cycles[name]])
        strength[:, PATTERNS.index(name)] = np.abs(np.fft.rfft(profile, axis=1)[:, cycles[name]]) / full
    strength[:, PATTERNS.index("plain")] = 0.4
    return hue, strength.argmax(axis=1)


def action_of(tracked: Track, start: int = 0, stop: int | None = None) -> str | None:
    """The action seen in frames [start, stop), or None when it is none of the world's or the subject is mostly missing.

    Circling and bouncing need about one period (2.75 s, 1.5 s) to be told apart from other motion.
    """
    visible = tracked.visible_F[start:stop]
    if len(visible) < FPS // 2 or visible.mean() < 0.75:
        return None
    seconds = len(visible) / FPS
    path = _unwrapped(tracked.centroid_F2[start:stop][visible])
    extent_x, extent_y = np.ptp(path, axis=0)
    steps = np.diff(path, axis=0)
    length = np.linalg.norm(steps, axis=1).sum()
    net = path[-1] - path[0]
    if max(extent_x, extent_y) < 5.0:
        size = np.convolve(np.sqrt(tracked.area_F[start:stop][visible]), np.ones(4) / 4, mode="valid")
        return "pulsing" if np.ptp(size) > PULSE_DEPTH * size.mean() else "standing still"
    along = int(np.abs(net).argmax())
    if np.linalg.norm(net) > 0.75 * length and abs(net[along]) > max(4.0 * seconds, 2.5 * abs(net[1 - along])):
        sign = int(np.sign(net[along]))
        return next(name for name, unit in DIRECTIONS.items() if unit[along] == sign)
    if extent_x < 0.4 * extent_y and 0.4 * BOUNCE_HEIGHT < extent_y < 1.8 * BOUNCE_HEIGHT:
        return "bouncing"
    turned = _turned(path) / (2 * np.pi)
    round_enough = 0.4 < extent_x / max(extent_y, 1e-6) < 2.5 and max(extent_x, extent_y) < 4 * CIRCLE_RADIUS
    if round_enough and abs(turned) > 0.5 * seconds / CIRCLE_PERIOD:
        return "circling"
    return None


def _unwrapped(centroid_F2: NDArray[np.float64]) -> NDArray[np.float64]:
    """The path as if the torus were a plane, smoothed over four frames to keep codec jitter out of its length."""
    path = np.concatenate([centroid_F2[:1], centroid_F2[:1] + np.cumsum(_wrap(np.diff(centroid_F2, axis=0)), axis=0)])
    kernel = np.ones(4) / 4
    if len(path) < 8:
        return path
    return np.stack([np.convolve(path[:, i], kernel, mode="valid") for i in (0, 1)], axis=1)


def _turned(path: NDArray[np.float64]) -> float:
    """Radians by which the direction of travel turned in all, slow steps left out."""
    steps = path[2:] - path[:-2]
    steps = steps[np.linalg.norm(steps, axis=1) > 0.5]
    if len(steps) < 2:
        return 0.0
    angle = np.arctan2(steps[:, 1], steps[:, 0])
    return float(np.sum((np.diff(angle) + np.pi) % (2 * np.pi) - np.pi))


def agreement(tracked: Track, scene: Scene, start: int = 0, stop: int | None = None) -> Agreement:
    """Score frames [start, stop) of a tracked video against a scene; raises ValueError for an empty stretch."""
    visible = tracked.visible_F[start:stop]
    if len(visible) == 0:
        raise ValueError(f"frames {start}..{stop} of a video of {len(tracked)} frames are an empty stretch")
    shape = SHAPES.index(scene.shape)
    background = pattern = None
    if scene.background is not None and scene.pattern is not None:
        background = float((tracked.background_F[start:stop] == list(HUES).index(scene.background)).mean())
        pattern = float((tracked.pattern_F[start:stop] == PATTERNS.index(scene.pattern)).mean())
    return Agreement(
        visible=float(visible.mean()),
        color=float((visible & (tracked.color_F[start:stop] == list(COLORS).index(scene.color))).mean()),
        shape=float((visible & (tracked.shape_F[start:stop] == shape)).mean()),
        iou=float((visible * tracked.iou_FK[start:stop, shape]).mean()),
        action=float(action_of(tracked, start, stop) == scene.action),
        background=background,
        pattern=pattern,
    )
