"""Made distortions do what they say, and the declared effects are found in a small sample of clips."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from eval.distortions import (
    CLIP_SETS,
    Clip,
    ClipSet,
    Distortion,
    distorted,
    loop,
    photo_clip,
    reversal,
    script_clip,
    stutter,
    world_clip,
)
from eval.registry import make_scorer, scorers
from eval.stats import mean_interval
from eval.validate import EXPECTED, Effect, expected, own_scorers, validate
from eval.validate_report import to_markdown, write

PUBLISHED = sorted((Path(__file__).resolve().parents[2] / "results/published").glob("distortions-*.json"))
QUICK = ("flicker", "flow_motion", "noise", "sharpness", "clipping", "colourfulness", "imaging", "world_prompt")


@pytest.mark.parametrize("name", CLIP_SETS)
def test_every_distortion_keeps_the_shape_and_strength_0_the_clip(name):
    clip = CLIP_SETS[name].make(0)
    for kind in CLIP_SETS[name].distortions:
        changed = distorted(clip, kind, 1.0)
        assert (changed.shape, changed.dtype) == (clip.frames.shape, np.uint8)
        assert np.array_equal(changed, distorted(clip, kind, 1.0))
        assert (changed != clip.frames).any()
        assert np.array_equal(distorted(clip, kind, 0), clip.frames)


def test_clips_of_a_number_are_the_same_and_of_two_numbers_are_not():
    assert np.array_equal(world_clip(3).frames, world_clip(3).frames)
    assert not np.array_equal(world_clip(3).frames, world_clip(4).frames)
    assert not np.array_equal(photo_clip(3).frames, photo_clip(4).frames)


def numbered(frames: int) -> Clip:
    video = np.broadcast_to(np.arange(frames, dtype=np.uint8)[:, None, None, None], (frames, 4, 4, 3))
    return Clip("world", 0, video, {})


def test_distortions_of_time_show_the_frames_they_say():
    def order(kind: Distortion, strength: float) -> list[int]:
        return distorted(numbered(9), kind, strength)[:, 0, 0, 0].tolist()

    assert order(reversal, 1.0) == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert order(reversal, 0.5) == [4, 3, 2, 1, 0, 1, 2, 3, 4]
    assert order(loop, 1.0) == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    held = order(stutter, 1.0)
    assert sorted(held) == held
    assert 1 < len(set(held)) < 9


def test_a_script_clip_is_what_its_prompts_say():
    clip = script_clip(1)
    assert [span.cut for span in clip.spans] == [False, False, True]
    assert clip.spans[-1].stop == len(clip.frames)
    assert {len(other) for other in clip.others.values()} == {len(clip.frames)}


def test_declared_effects_are_found_in_eight_clips_of_the_world():
    chosen = {name: make_scorer(name) for name in QUICK}
    effects = validate(8, chosen, {"world": ClipSet(partial(world_clip, frames=48))}, (1.0,))
    declared = {(effect.scorer, effect.distortion): effect.holds for effect in effects if effect.expected}
    assert len(declared) >= 25
    assert [key for key, holds in declared.items() if not holds] == []


def test_switches_and_cuts_are_judged_by_the_scorer_for_each():
    chosen = {name: make_scorer(name) for name in ("switch_latency", "identity_kept", "background_change")}
    effects = validate(8, chosen, {"script": CLIP_SETS["script"]}, (1.0,))
    assert [(effect.scorer, effect.distortion) for effect in effects if not effect.holds] == []


def test_only_known_scorers_and_distortions_are_declared():
    distortions = {kind.__name__ for kinds in CLIP_SETS.values() for kind in kinds.distortions}
    assert set(EXPECTED) <= set(scorers())
    assert {name for row in EXPECTED.values() for name in row} <= distortions
    assert expected("world", "border_consistency", "identity_drift") == "blind"
    assert expected("photo", "border_consistency", "identity_drift") == "down"
    own = own_scorers()
    assert all(kind.family == "vbench" for name, kind in scorers().items() if name not in own)


@pytest.mark.parametrize(
    ("move", "changes", "scale", "holds"),
    [
        ("up", [1.0, 2.0, 1.5], 2.0, True),
        ("up", [-0.1, 2.0, 1.5], 2.0, False),
        ("down", [-1.0, -2.0, -1.5], 2.0, True),
        ("down", [1.0, 2.0, 1.5], 2.0, False),
        ("blind", [0.1, -0.1, 0.2], 2.0, True),
        ("blind", [0.4, 0.5, 0.3], 2.0, False),
        (None, [0.4, 0.5, 0.3], 2.0, None),
    ],
)
def test_an_effect_holds_when_its_whole_interval_lies_on_the_declared_side(move, changes, scale, holds):
    interval = mean_interval(changes)
    assert Effect("world", "x", "noise", 0.5, (1.0,), (0.0,), interval, scale, move).holds is holds


def test_the_report_says_how_many_hold_and_is_drawn(tmp_path):
    chosen = {name: make_scorer(name) for name in ("noise", "flicker")}
    short = {"world": ClipSet(partial(world_clip, frames=8)), "photo": ClipSet(partial(photo_clip, frames=8))}
    effects = validate(2, chosen, short, (0.5, 1.0))
    paths = write(effects, 2, "a command", tmp_path / "distortions", tmp_path / "plot.svg")
    assert [path.name for path in paths] == ["distortions.json", "distortions.md", "plot.svg"]
    data = json.loads(paths[0].read_text())
    assert (data["clips"], data["command"], len(data["effects"])) == (2, "a command", len(effects))
    assert data["hold"] == sum(effect.holds is True for effect in effects)
    text = to_markdown(effects, 2, "a command")
    assert text.count("↑✓") + text.count("↑✗") == sum(effect.expected == "up" for effect in effects)
    assert "<svg" in paths[2].read_text()


@pytest.mark.skipif(not PUBLISHED, reason="nothing is published yet")
def test_what_is_published_judges_by_what_is_declared_today():
    for effect in json.loads(PUBLISHED[-1].read_text())["effects"]:
        assert effect["expected"] == expected(effect["clip_set"], effect["scorer"], effect["distortion"])
