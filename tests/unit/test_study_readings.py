"""Readings of the policy study on clips of the true world, and on clips made wrong on purpose."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from irope.script import CLOCK
from irope.study_cells import Take
from irope.study_readings import (
    cut_readings,
    first_frame,
    ground_change,
    motion_of,
    stretch_readings,
    switch_readings,
)
from irope.world import Scene, Staging, parse_prompt, render, track
from irope.world.render import positions

MOVING = ("moving left", "moving down", "circling", "bouncing")
Frames = NDArray[np.uint8]


def scene(action: str = "moving left", background: str = "navy") -> Scene:
    return parse_prompt(f"a red circle {action} over a {background} plain background")


def clip(of: Scene, seconds: float = 10.0, **staging: float) -> Frames:
    return render(of, Staging(**staging), round(16 * seconds) + 1)[0]  # type: ignore[arg-type]


def read(frames: Frames, of: Scene, start: int = 80) -> dict[str, float]:
    return stretch_readings(frames[start - 1 : start + 80], frames[:1], of, start, CLOCK)


@pytest.mark.parametrize("action", MOVING)
@pytest.mark.parametrize("speed", [16.0, 20.0])
def test_a_true_clip_reads_as_true(action: str, speed: float) -> None:
    found = read(clip(scene(action), speed=speed, radius=11.0), scene(action))
    assert found["action"] == found["color"] == found["background"] == 1
    assert found["streak"] == found["returns"] == 0
    assert found["seam"] == pytest.approx(1, abs=0.3)
    assert found["home"] == pytest.approx(0, abs=0.15)
    assert found["pace"] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("action", MOVING)
def test_a_frozen_clip_is_caught_though_colour_and_shape_are_perfect(action: str) -> None:
    frames = np.repeat(clip(scene(action))[:1], 161, axis=0)
    found = read(frames, scene(action))
    assert found["color"] == found["shape"] == 1
    assert (found["action"], found["pace"]) == (0, 0)
    assert found["home"] > 0.4


def test_a_clip_that_jumps_back_to_its_first_frame_is_caught() -> None:
    true = clip(scene())
    frames, borders = true.copy(), [first_frame(CLOCK, block) for block in range(1, 14)]
    for border in borders:  # every block starts again from frame 0
        frames[border : border + 12] = true[: len(frames[border : border + 12])]
    found = read(frames, scene())
    assert found["returns"] == 1
    assert found["seam"] > 1.5
    assert found["home"] > 0.15
    assert read(true, scene())["home"] < 0.1


def test_a_bar_across_the_picture_is_a_streak() -> None:
    frames = clip(scene())
    frames[80:, 26:38] = frames[80, 32, 32] if frames[80, 32, 32].max() > 200 else np.array([245, 31, 26])
    found = read(frames, scene())
    assert (found["streak"], found["action"]) == (1, 0)


def test_a_subject_that_stays_has_neither_home_nor_pace() -> None:
    for action in ("standing still", "pulsing"):
        found = read(clip(scene(action)), scene(action))
        assert found["home"] is None
        assert found["pace"] is None
        assert found["action"] == 1


def test_block_borders_are_where_the_clock_says() -> None:
    frames = clip(scene("standing still"))
    for border in [first_frame(CLOCK, block) for block in range(1, 13)]:
        frames[border::] = frames[border::] ^ 8  # a step at every block border, nowhere else
    found = read(frames, scene("standing still"))
    assert found["seam"] > 10
    assert CLOCK.pixels(3) == first_frame(CLOCK, 1) == 9


# --- switches ---------------------------------------------------------------------------------------------------------


def switched(before: Scene, after: Scene, at: int, late: int = 0, blocks: int = 20) -> Frames:
    """A clip whose subject goes on from where it was, ``late`` blocks after block ``at``."""
    turn = first_frame(CLOCK, at + late)
    first, _ = render(before, Staging(), turn)
    x, y = positions(before, Staging(), turn + 1)[-1]
    rest, _ = render(after, Staging(start=(float(x % 64), float(y % 64))), CLOCK.pixels(3 * blocks) - turn)
    return np.concatenate([first, rest])


@pytest.mark.parametrize("after", ["moving up", "moving right", "circling"])
@pytest.mark.parametrize("late", [0, 1, 4])
def test_a_change_of_motion_is_seen_in_the_block_where_it_happens(after: str, late: int) -> None:
    take = Take(scene("moving left"), scene(after))
    found = switch_readings(switched(take.before, take.after, 10, late), take, 10, CLOCK)
    assert found["shown"] == [0] * late + [1] * (10 - late)
    assert found["before"] == 1
    assert found["color"] == found["shape"] == 1
    assert found["edge"] == pytest.approx(1, abs=0.5)


def test_a_video_that_never_switches_never_shows_it() -> None:
    take = Take(scene("moving left"), scene("moving up"))
    assert sum(switch_readings(clip(take.before, 15)[:237], take, 10, CLOCK)["shown"]) == 0


def test_frames_may_be_given_from_a_later_block_on() -> None:
    take = Take(scene("moving left"), scene("moving down"))
    frames = switched(take.before, take.after, 10, 2)
    part = switch_readings(frames[first_frame(CLOCK, 6) :], take, 10, CLOCK, skipped=6)
    assert part == switch_readings(frames, take, 10, CLOCK)
    assert cut_readings(frames[first_frame(CLOCK, 6) :], take, 10, CLOCK, skipped=6) == cut_readings(
        frames, take, 10, CLOCK
    )


def test_a_change_of_background_is_seen_in_its_block() -> None:
    take = Take(scene(), scene(background="olive"))
    found = switch_readings(switched(take.before, take.after, 10, 3), take, 10, CLOCK)
    assert found["shown"] == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("action", [*MOVING[:3], "moving right", "moving up"])
def test_the_motion_of_every_block_of_a_true_clip_is_read(action: str) -> None:
    tracked = track(clip(scene(action), 20))
    for block in range(1, 25):
        assert motion_of(tracked, first_frame(CLOCK, block), first_frame(CLOCK, block + 1)) == action


# --- cuts -------------------------------------------------------------------------------------------------------------


def test_a_hard_cut_reads_as_a_jump_and_a_new_background() -> None:
    seam = first_frame(CLOCK, 10)
    frames = clip(scene(), 15)[:237]
    other = clip(scene(background="olive"), 15, start=(10.0, 50.0))  # type: ignore[arg-type]
    take = Take(scene(), scene())
    before = cut_readings(frames, take, 10, CLOCK)
    assert before["once"] < 0.01
    assert before["late"] < 0.01
    assert before["jump"] < 3
    assert before["edge"] == pytest.approx(1, abs=0.3)
    assert before["same"] == 1
    after = cut_readings(np.concatenate([frames[:seam], other[seam:237]]), take, 10, CLOCK)
    assert after["once"] > 0.05
    assert after["late"] > 0.05
    assert after["edge"] > 5
    assert after["same"] == 1
    green = clip(replace(scene(), color="green"), 15)
    assert cut_readings(np.concatenate([frames[:seam], green[seam:237]]), take, 10, CLOCK)["same"] == 0


def test_a_jump_is_the_way_between_the_places_on_the_torus() -> None:
    seam = first_frame(CLOCK, 10)
    still = scene("standing still")
    frames = np.concatenate(
        [
            render(still, Staging(start=(60.0, 32.0)), seam)[0],
            render(still, Staging(start=(4.0, 35.0)), 237 - seam)[0],
        ]
    )
    found = cut_readings(frames, Take(still, still), 10, CLOCK)
    assert found["jump"] == pytest.approx(np.hypot(8, 3), abs=0.2)


def test_the_change_of_the_background_leaves_the_subject_out() -> None:
    left, right = (clip(scene("standing still"), 1, start=start) for start in ((16.0, 32.0), (48.0, 32.0)))  # type: ignore[arg-type]
    assert ground_change(left, right) == 0
    lighter = np.clip(right.astype(int) + 10, 0, 255).astype(np.uint8)
    assert ground_change(left, lighter) == pytest.approx(10 / 255, abs=1e-3)
