"""What the policy study reads off a video: the tracker's labels, and what a frozen or smeared video would hide.

A video locked to its first frame, or smeared into a bar, wins every score of consistency. So beside colour, background,
shape and action stand the overlap with the true shape, the pace of the subject, seams at block borders, and the
likeness to the first frame, each against the true world. Shapes: F pixel frames of 64 x 64 pixels, 16 a second.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irope.script import Clock
from irope.study_cells import Take
from irope.world import SIZE, Scene, Staging, Track, agreement, render, track
from irope.world.render import BOUNCE_PERIOD, CIRCLE_PERIOD, FPS
from irope.world.scene import COLORS, DIRECTIONS, HUES, SHAPES
from irope.world.tracker import SUBJECT_LEVEL

Frames = NDArray[np.uint8]
Floats = NDArray[np.float64]

VERSION = 1
"""Of what the readings mean; part of a cell's key."""

STRETCH = 5.0
"""Seconds read at once."""

STREAK = 0.45
"""Overlap with the true shape below which a subject counts as smeared."""

JUMP = 6.0
"""Pixels between two frames that no subject of the world moves (the fastest, a bouncing one, moves 2.8)."""

_PACE = 4  # frames over which a pace is taken: far above the tracker's jitter, far below a period

_LEAST = 0.25
"""Grey levels added above and below a ratio of changes, so that two still pictures have the ratio 1."""


def first_frame(clock: Clock, block: int) -> int:
    """Number of the first pixel frame of a block."""
    return clock.pixels(block * clock.block)


def steps(frames: Frames) -> Floats:
    """Mean absolute difference (grey levels, 0..255) of every frame to the one before, [F]; 0 for the first."""
    found = [0.0]
    for first in range(1, len(frames), 256):  # in parts: a minute of video is a lot of int16
        part = frames[first - 1 : first + 256].astype(np.int16)
        found.extend(np.abs(np.diff(part, axis=0)).mean(axis=(1, 2, 3)))
    return np.asarray(found)


def overlap(first: NDArray[np.uint8], frames: Frames) -> Floats:
    """Intersection over union, 0..1, of the subject's pixels in every frame [F] and in ``first``."""
    own, others = first.max(axis=2) > SUBJECT_LEVEL, frames.max(axis=3) > SUBJECT_LEVEL
    return (own & others).sum(axis=(1, 2)) / np.maximum((own | others).sum(axis=(1, 2)), 1)


def pace(place_F2: Floats) -> float:
    """Mean pixels that the subject moves in a quarter of a second, the shorter way round; 0 for less than that."""
    moved = (place_F2[_PACE:] - place_F2[:-_PACE] + SIZE / 2) % SIZE - SIZE / 2
    return float(np.linalg.norm(moved, axis=1).mean()) if len(moved) else 0.0


@cache
def truth(scene: Scene) -> tuple[float, float]:
    """(`overlap` with the first frame, `pace`) of the true clip, means over one period of its motion."""
    staging = Staging()
    periods = {"circling": CIRCLE_PERIOD, "bouncing": BOUNCE_PERIOD}
    period = round(periods.get(scene.action, SIZE / staging.speed) * FPS)
    video, _ = render(scene, staging, period + _PACE)
    return float(overlap(video[0], video[:period]).mean()), pace(track(video).centroid_F2)


# --- part A: a prompt held for long -----------------------------------------------------------------------------------


def stretch_readings(frames: Frames, first: Frames, scene: Scene, start: int, clock: Clock) -> dict[str, Any]:
    """Readings of one stretch.

    Args:
        frames: the stretch with one frame before it (none if it starts the video).
        first: frame 0 of the video, [1, 64, 64, 3].
        start: number of the stretch's first frame in the video.

    Returns:
        ``visible, color, background, pattern, shape, iou, action`` as in `irope.world.agreement`; ``streak`` 0 or 1;
        ``seam``: step at block borders over the step where only a new latent begins, 1 in the true world; ``home``:
        `overlap` with frame 0 beyond that of the true clip, about 0 in the true world and .6 to .8 for a video locked
        to its first frame; ``pace``: over that of the true clip, 0 for a frozen video; ``returns``: share of block
        borders where the subject jumps and lands nearer to where it stood in frame 0. ``home`` and ``pace`` are None
        for a subject that stays in its place.
    """
    lead = min(1, start)
    tracked, change = track(frames), steps(frames)
    borders, others = _begins(len(frames), start - lead, clock)
    origin, found = track(first), agreement(_part(tracked, lead), scene)
    moves = scene.action not in ("standing still", "pulsing")
    true_overlap, true_pace = truth(scene)
    return {
        **{name: getattr(found, name) for name in ("visible", "color", "background", "pattern", "shape", "iou")},
        "action": found.action,
        "streak": float(found.iou < STREAK),
        "seam": ratio(change[borders], change[others]),
        "home": float(overlap(first[0], frames[lead:]).mean()) - true_overlap if moves else None,
        "pace": pace(tracked.centroid_F2[tracked.visible_F]) / true_pace if moves else None,
        "returns": float(np.mean([_returns(tracked, origin, frame) for frame in borders])),
    }


def _begins(count: int, start: int, clock: Clock) -> tuple[list[int], list[int]]:
    """Of frames start .. start + count - 1, by place: first frames of blocks, and of their other latents."""
    places = [i for i in range(1, count) if start + i > 0 and (start + i) % clock.stride == 1]
    period = clock.stride * clock.block
    blocks = [i for i in places if (start + i) % period == clock.pixels(clock.block) % period]
    return blocks, [i for i in places if i not in blocks]


def _part(tracked: Track, first: int) -> Track:
    return Track(**{name: value[first:] for name, value in vars(tracked).items()})


def ratio(above: Floats, below: Floats) -> float:
    """Ratio of two mean steps; 1 if both pictures stand still."""
    return float((above.mean() + _LEAST) / (below.mean() + _LEAST))


def apart(a_2: Floats, b_2: Floats) -> float:
    """Pixels between two places on the torus."""
    return float(np.linalg.norm((a_2 - b_2 + SIZE / 2) % SIZE - SIZE / 2))


def _returns(tracked: Track, first: Track, frame: int) -> bool:
    if not (tracked.visible_F[frame] and tracked.visible_F[frame - 1] and first.visible_F[0]):
        return False
    home, before, after = first.centroid_F2[0], tracked.centroid_F2[frame - 1], tracked.centroid_F2[frame]
    return apart(before, after) > JUMP and apart(after, home) < apart(before, home)


# --- part B: a prompt switch ------------------------------------------------------------------------------------------


def motion_of(tracked: Track, first: int, stop: int) -> str | None:
    """Direction in which the subject moves in frames [first, stop) (three quarters of a second), ``circling``, or None.

    A straight block of the world covers 12 px in one direction; a circling one turns by a quarter of a circle or so.
    """
    if tracked.visible_F[first:stop].mean() < 0.75:
        return None
    place = tracked.centroid_F2[first:stop][tracked.visible_F[first:stop]]
    moves = (np.diff(place, axis=0) + SIZE / 2) % SIZE - SIZE / 2
    early, late = moves[: len(moves) // 2].sum(axis=0), moves[len(moves) // 2 :].sum(axis=0)
    net = early + late
    if min(np.linalg.norm(early), np.linalg.norm(late)) < 2 or np.linalg.norm(net) < 4:
        return None
    turn = np.arctan2(early[0] * late[1] - early[1] * late[0], early @ late)
    if abs(turn) > np.pi / 7:  # the halves of a block lie 45 degrees apart on the circle, 0 on a line
        return "circling" if turn > 0 else None  # the world turns one way
    along = int(np.abs(net).argmax())
    if abs(net[1 - along]) > 0.5 * abs(net[along]):
        return None
    return next(name for name, unit in DIRECTIONS.items() if unit[along] == np.sign(net[along]))


def _most(labels: NDArray[np.int64], names: tuple[str, ...]) -> str:
    return names[int(np.bincount(labels, minlength=len(names)).argmax())]


def switch_readings(frames: Frames, take: Take, at: int, clock: Clock, skipped: int = 0) -> dict[str, Any]:
    """Readings around a prompt switch at block ``at``, of frames from block ``skipped`` on.

    Returns:
        ``shown``: for every block from ``at`` on whether it shows the new prompt (motion, or background colour, where
        that is what changes); ``before``: share of the three blocks before that show the old one; ``edge``: step at the
        switch over the steps at the three borders before; ``color``, ``shape``: share of the frames from the switch on
        that keep the subject's; ``visible`` likewise.
    """
    tracked, change = track(frames), steps(frames)
    origin = first_frame(clock, skipped)
    blocks = (origin + len(frames) + clock.stride - 1) // (clock.stride * clock.block)
    border = [first_frame(clock, block) - origin for block in range(blocks + 1)]

    def seen(block: int, scene: Scene) -> bool:
        first, stop = border[block], border[block + 1]
        if take.before.action != take.after.action:
            return motion_of(tracked, first, stop) == scene.action
        return _most(tracked.background_F[first:stop], tuple(HUES)) == scene.background

    past = range(max(skipped + 1, at - 3), at)
    after = agreement(tracked, take.after, border[at])
    return {
        "shown": [int(seen(block, take.after)) for block in range(at, blocks)],
        "before": float(np.mean([seen(block, take.before) for block in past])),
        "edge": ratio(change[[border[at]]], change[[border[block] for block in past]]),
        **{name: getattr(after, name) for name in ("color", "shape", "visible")},
    }


# --- part C: a scene cut ----------------------------------------------------------------------------------------------


def cut_readings(frames: Frames, take: Take, at: int, clock: Clock, skipped: int = 0) -> dict[str, Any]:
    """Readings around a cut at block ``at``, of frames from block ``skipped`` on.

    Returns:
        ``once``, ``late``: mean |rgb| change (0..1) of the background pixels from the block before to the first block
        after, and from the two blocks before to the last two; ``jump``: pixels the subject steps at the cut, None if
        it is missing on a side; ``edge`` as in `switch_readings`; ``same``: 1 if the subject's colour and shape in
        the last two blocks are those of the two before the cut.
    """
    tracked, change = track(frames), steps(frames)
    origin, pair = first_frame(clock, skipped), 2 * clock.stride * clock.block
    seam, single = first_frame(clock, at) - origin, pair // 2
    past = [first_frame(clock, block) - origin for block in range(max(skipped + 1, at - 3), at)]
    before, after = _subject(tracked, seam - pair, seam), _subject(tracked, len(frames) - pair, len(frames))
    visible = bool(tracked.visible_F[seam - 1] and tracked.visible_F[seam])
    return {
        "once": ground_change(frames[seam - single : seam], frames[seam : seam + single]),
        "late": ground_change(frames[seam - pair : seam], frames[-pair:]),
        "jump": apart(tracked.centroid_F2[seam - 1], tracked.centroid_F2[seam]) if visible else None,
        "edge": ratio(change[[seam]], change[past]),
        "same": float(before is not None and before == after),
    }


def _subject(tracked: Track, first: int, stop: int) -> tuple[str, str] | None:
    """Colour and shape most often seen, None if the subject is mostly missing."""
    visible = tracked.visible_F[first:stop]
    if visible.mean() < 0.5:
        return None
    color = _most(tracked.color_F[first:stop][visible], tuple(COLORS))
    return color, _most(tracked.shape_F[first:stop][visible], SHAPES)


def ground_change(before: Frames, after: Frames) -> float:
    """Mean |rgb| difference, 0..1, of two stretches' mean pictures over pixels that both show without subject."""
    (a, seen_a), (b, seen_b) = _ground(before), _ground(after)
    both = seen_a & seen_b
    return float(np.abs(a - b)[both].mean()) / 255 if both.any() else float("nan")


def _ground(frames: Frames) -> tuple[Floats, NDArray[np.bool_]]:
    """Mean of every pixel over the frames in which it is background [64, 64, 3], and where there are any."""
    blocked = frames.max(axis=3) > SUBJECT_LEVEL
    for axis in (1, 2):  # the subject's soft edge, two pixels wide
        for reach in (1, 2):
            blocked = blocked | np.roll(blocked, reach, axis) | np.roll(blocked, -reach, axis)
    free = ~blocked
    count = free.sum(axis=0)
    mean = (frames * free[..., None]).sum(axis=0) / np.maximum(count, 1)[..., None]
    return mean, count > 0
