"""The scorers of the embedded world on rendered videos whose content, switches and cuts are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from eval.one_pass import one_pass
from eval.registry import make_scorer, scorers
from eval.scorer import Measurement, Runtime, Skip, Span, Take, VideoFacts
from eval.world import score_video
from irope.world import render, sample_staging
from irope.world.scene import Scene, parse_prompt

Frames = NDArray[np.uint8]
WORLD = ("world_prompt", "switch_latency", "identity_kept", "background_change")
LEFT = "a red circle moving left over a navy plain background"
RIGHT = "a red circle moving right over a navy plain background"
PLACE = "a red circle moving right over a brown striped background"
SQUARE = "a blue square moving right over a brown striped background"


def clip(prompt: str | Scene, frames: int) -> Frames:
    scene = parse_prompt(prompt) if isinstance(prompt, str) else prompt
    return render(scene, sample_staging(np.random.default_rng(1)), frames)[0]


def score(frames: Frames, *spans: Span, name: str, chunk: int = 32, start: int = 0, **settings: float) -> Measurement:
    found = outcome(frames, *spans, name=name, chunk=chunk, start=start, **settings)
    assert isinstance(found, Measurement), found
    return found


def outcome(
    frames: Frames, *spans: Span, name: str, chunk: int = 32, start: int = 0, **settings: float
) -> Measurement | Skip:
    facts = VideoFacts("a video", len(frames), 16.0, *frames.shape[1:3], spans)
    chunks = ((at, frames[at : at + chunk]) for at in range(0, len(frames), chunk))
    chosen = {name: make_scorer(name, settings)}
    (scored,) = one_pass(chunks, [Take(facts, start, len(frames))], chosen, Runtime())
    return scored.outcomes[name]


def test_a_true_video_agrees_with_its_prompts_and_swapped_prompts_do_not():
    video = np.concatenate([clip(LEFT, 160), clip(SQUARE, 160)])
    true = score(video, Span(0, 160, LEFT), Span(160, 320, SQUARE), name="world_prompt")
    assert true.value > 0.99
    assert true.terms == 2
    assert set(true.extra) == {"color", "shape", "action", "background", "pattern", "visible", "iou"}
    assert score(video, Span(0, 160, SQUARE), Span(160, 320, LEFT), name="world_prompt").value < 0.05


def test_the_value_is_a_mean_over_segments_whatever_their_length():
    """One attribute of five wrong in the shorter segment: 1 - 0.2 / 2."""
    video = clip(LEFT, 320)
    blue = LEFT.replace("red", "blue")
    found = score(video, Span(0, 240, LEFT), Span(240, 320, blue), name="world_prompt")
    assert found.value == pytest.approx(0.9, abs=0.005)
    assert found.extra["color"] == pytest.approx(0.5, abs=0.005)
    assert found.curve is not None
    assert found.curve[:240].mean() == pytest.approx(1, abs=0.01)
    assert found.curve[240:].mean() == pytest.approx(0.8, abs=0.01)


def test_parts_agree_with_the_demo_where_both_say_the_same():
    video = np.concatenate([clip(LEFT, 100), clip(SQUARE, 140)])
    spans = (Span(0, 120, LEFT), Span(120, 240, SQUARE))
    found, demo = score(video, *spans, name="world_prompt"), score_video(video, spans, 16)
    for ours, theirs in (("color", "color"), ("action", "motion"), ("background", "background"), ("iou", "iou")):
        # Two segments of 7.5 s are two windows each for both, so that the order of the means does not matter.
        assert found.extra[ours] == pytest.approx(getattr(demo, theirs)), ours


def test_an_open_background_is_not_judged():
    prompt = "a red circle moving left"
    found = score(clip(LEFT, 80), Span(0, 80, prompt), name="world_prompt")
    assert found.value > 0.99
    assert "background" not in found.extra


@pytest.mark.parametrize("late", [0, 1, 3, 5])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (LEFT, RIGHT),
        (LEFT, LEFT.replace("red", "green")),
        (RIGHT, SQUARE),
        (RIGHT, "a red circle bouncing over a navy plain background"),
        ("a red circle standing still over a navy plain background", LEFT),
    ],
)
def test_a_switch_that_comes_late_by_some_blocks_is_late_by_so_many(old, new, late):
    """To a block: which block a bounce begins in cannot be told more exactly."""
    at = 96
    video = np.concatenate([clip(old, at + 12 * late), clip(new, 144 - 12 * late)])
    found = score(video, Span(0, at, old), Span(at, 240, new), name="switch_latency")
    assert found.value == pytest.approx(late, abs=1 if "bouncing" in new else 0)
    assert found.extra["frames"] == 12 * found.value
    assert found.extra["censored"] == 0


def test_a_switch_that_never_comes_is_censored_at_the_end_of_its_segment():
    found = score(clip(LEFT, 220), Span(0, 100, LEFT), Span(100, 220, RIGHT), name="switch_latency")
    assert (found.value, found.extra["censored"]) == (10, 1)
    assert "lower bound" in found.notes[0]
    # Of two switches one comes at once: the mean of 10 and 0, half of them censored.
    video = np.concatenate([clip(LEFT, 220), clip(SQUARE, 120)])
    spans = (Span(0, 100, LEFT), Span(100, 220, RIGHT), Span(220, 340, SQUARE))
    found = score(video, *spans, name="switch_latency")
    assert (found.value, found.extra["censored"], found.terms) == (5, 0.5, 2)
    each = {name: found.extra[name] for name in ("blocks_1", "censored_1", "blocks_2", "censored_2")}
    assert each == {"blocks_1": 10, "censored_1": 1, "blocks_2": 0, "censored_2": 0}


def test_a_flash_of_the_new_prompt_is_not_yet_the_switch():
    green = LEFT.replace("red", "green")
    video = clip(LEFT, 240)
    video[108:120] = clip(green, 240)[108:120]
    video[168:] = clip(green, 240)[168:]
    spans = (Span(0, 96, LEFT), Span(96, 240, green))
    assert score(video, *spans, name="switch_latency").value == 6
    assert score(video, *spans, name="switch_latency", hold=1).value == 1


def test_what_stays_the_same_at_a_cut_is_kept_only_if_it_is_seen():
    spans = (Span(0, 80, RIGHT), Span(80, 160, PLACE, cut=True))
    kept = np.concatenate([clip(RIGHT, 80), clip(PLACE, 80)])
    found = score(kept, *spans, name="identity_kept")
    assert found.value > 0.99
    assert score(kept, *spans, name="background_change").value > 0.99
    blue = replace(parse_prompt(PLACE), color="blue")
    half = np.concatenate([clip(RIGHT, 80), clip(blue, 16), clip(PLACE, 64)])
    found = score(half, *spans, name="identity_kept")
    assert found.extra["color"] == pytest.approx(0.5)
    assert found.extra["shape"] == pytest.approx(1, abs=0.05)
    assert found.value == pytest.approx(0.75, abs=0.03)


def test_a_background_that_stays_has_not_changed_and_one_of_two_attributes_counts_half():
    spans = (Span(0, 80, RIGHT), Span(80, 160, PLACE, cut=True))
    assert score(clip(RIGHT, 160), *spans, name="background_change").value == 0
    hue_only = "a red circle moving right over a teal plain background"
    found = score(np.concatenate([clip(RIGHT, 80), clip(hue_only, 80)]), *spans, name="background_change")
    assert found.value == pytest.approx(0.5)
    assert found.extra == {"background": 1, "pattern": 0, "as_asked": 0}


def test_what_was_seen_is_to_be_kept_even_if_it_was_not_asked_for():
    spans = (Span(0, 80, RIGHT), Span(80, 160, PLACE, cut=True))
    wrong = [replace(parse_prompt(prompt), color="yellow") for prompt in (RIGHT, PLACE)]
    found = score(np.concatenate([clip(scene, 80) for scene in wrong]), *spans, name="identity_kept")
    assert found.extra["color"] == 1
    assert found.extra["as_asked"] < 0.6


def test_chunks_and_the_place_of_a_take_do_not_matter():
    video = np.concatenate([clip(LEFT, 100), clip(RIGHT, 100), clip(PLACE, 100)])
    spans = (Span(0, 100, LEFT), Span(100, 200, RIGHT), Span(200, 300, PLACE, cut=True))
    shifted = (Span(0, 80, LEFT), Span(80, 180, RIGHT), Span(180, 280, PLACE, cut=True))
    for name in WORLD:
        part = score(video, *spans, name=name, chunk=13, start=20)
        whole = score(video[20:], *shifted, name=name, chunk=400)
        assert (part.value, part.extra) == (whole.value, whole.extra)


@pytest.mark.parametrize("name", WORLD)
def test_other_videos_are_skipped_with_the_reason(name):
    assert {kind for kind, made in scorers().items() if made.family == "world"} == set(WORLD)
    video = clip(LEFT, 20)
    assert "no prompt is known" in str(outcome(video, name=name))
    dog = outcome(video, Span(0, 20, "a dog on a beach"), name=name)
    assert "not of the embedded world" in str(dog)
    assert "64x64" in str(outcome(video[:, :32], Span(0, 20, LEFT), name=name))


def test_a_video_without_switch_or_cut_has_no_such_number():
    video = clip(LEFT, 60)
    assert "the video has one prompt" in str(outcome(video, Span(0, 60, LEFT), name="switch_latency"))
    same = (Span(0, 30, LEFT), Span(30, 60, LEFT))
    assert "no prompt switch changes anything" in str(outcome(video, *same, name="switch_latency"))
    for name in ("identity_kept", "background_change"):
        uncut = outcome(video, Span(0, 30, LEFT), Span(30, 60, RIGHT), name=name)
        assert str(uncut) == "no cut was asked for"
    spans = (Span(0, 30, LEFT), Span(30, 60, RIGHT, cut=True))
    assert "no prompt changes the background or the pattern" in str(outcome(video, *spans, name="background_change"))
    empty = np.zeros((60, 64, 64, 3), np.uint8)
    assert "no subject was seen" in str(outcome(empty, *spans, name="identity_kept"))
