"""The tracker against the renderer, which it has never seen the inside of, and against pictures made by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from irope.world import Scene, Staging, agreement, render, sample_scene, sample_staging, track
from irope.world.render import positions
from irope.world.scene import ACTIONS
from irope.world.tracker import action_of

LEFT = Scene("red", "square", "moving left", "navy", "striped")


def test_it_reads_the_truth_off_rendered_clips() -> None:
    rng = np.random.default_rng(1)
    found = []
    for i in range(4 * len(ACTIONS)):
        scene = sample_scene(rng, action=ACTIONS[i % len(ACTIONS)])
        found.append(agreement(track(render(scene, sample_staging(rng), 81)[0]), scene))
    for name in ("visible", "color", "shape", "action", "background", "pattern"):
        assert np.mean([getattr(a, name) for a in found]) >= 0.98, name
    assert np.mean([a.iou for a in found]) > 0.97


def test_the_centroid_follows_the_subject_across_the_edge() -> None:
    staging = Staging(start=(20.0, 40.0))
    tracked = track(render(LEFT, staging, 81)[0])
    off = (tracked.centroid_F2 - positions(LEFT, staging, 81) + 32) % 64 - 32
    assert np.abs(off).max() < 0.6


@pytest.mark.parametrize("change", [{"color": "blue"}, {"shape": "circle"}, {"action": "moving right"}])
def test_a_wrong_word_costs_its_own_score_only(change: dict[str, str]) -> None:
    told = Scene(**{**LEFT.__dict__, **change})
    found = agreement(track(render(LEFT, Staging(), 81)[0]), told)
    (wrong,) = change
    for name in ("color", "shape", "action"):
        assert getattr(found, name) == pytest.approx(0.0 if name == wrong else 1.0), name


def _empty(frames: int = 40) -> NDArray[np.uint8]:
    return np.full((frames, 64, 64, 3), 90, np.uint8)


def test_no_subject_is_not_standing_still() -> None:
    tracked = track(_empty())
    assert not tracked.visible_F.any()
    assert action_of(tracked) is None
    still = Scene("white", "circle", "standing still", "gray", "plain")
    found = agreement(tracked, still)
    assert (found.visible, found.color, found.shape, found.iou, found.action) == (0, 0, 0, 0, 0)


def test_a_streak_and_scattered_specks_are_not_a_subject() -> None:
    streak, specks = _empty(20), _empty(20)
    streak[:, 28:40] = (250, 20, 20)
    specks[:, ::4, ::4] = (250, 20, 20)
    assert not track(streak).visible_F.any()
    assert not track(specks).visible_F.any()


def test_a_frozen_video_of_a_mover_fails_its_action() -> None:
    frozen = np.repeat(render(LEFT, Staging(), 1)[0], 81, axis=0)
    tracked = track(frozen)
    assert action_of(tracked) == "standing still"
    assert agreement(tracked, LEFT).action == 0


def test_pulsing_and_standing_still_are_told_apart_in_any_five_seconds() -> None:
    rng = np.random.default_rng(4)
    for action in ("pulsing", "standing still"):
        for _ in range(4):
            video = render(sample_scene(rng, action=action), sample_staging(rng, pause_share=1.0), 161)[0]
            tracked = track(video)
            assert {action_of(tracked, start, start + 80) for start in range(0, 81, 10)} == {action}
    flicker = np.repeat(video, 2, axis=0)[:80]
    flicker[1::2, 20:30, 20:30] = 250  # a subject that only jitters in size does not pulse
    assert action_of(track(flicker)) == "standing still"


def test_segments_of_a_long_video_are_judged_apart() -> None:
    up = Scene("red", "square", "moving up", "navy", "striped")
    tracked = track(np.concatenate([render(LEFT, Staging(), 48)[0], render(up, Staging(), 48)[0]]))
    assert agreement(tracked, LEFT, 0, 48).action == 1
    assert agreement(tracked, up, 48, 96).action == 1
    assert agreement(tracked, LEFT, 48).action == 0
    with pytest.raises(ValueError, match="empty stretch"):
        agreement(tracked, LEFT, 96)


def test_an_open_background_has_no_score() -> None:
    found = agreement(track(render(LEFT, Staging(), 20)[0]), LEFT.without_background())
    assert found.background is None
    assert found.pattern is None


def test_other_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8 frames"):
        track(np.zeros((4, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="at least one"):
        track(_empty(0))
