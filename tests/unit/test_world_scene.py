"""The prompt grammar: words to scenes and back, and what it says to a slip of the pen."""

import itertools

import numpy as np
import pytest

from irope.world.scene import ACTIONS, COLORS, HUES, PATTERNS, SHAPES, PromptError, Scene, parse_prompt, sample_scene


def test_every_scene_survives_the_round_trip_through_words() -> None:
    subjects = list(itertools.product(COLORS, SHAPES, ACTIONS))
    grounds = [(None, None), *itertools.product(HUES, PATTERNS)]
    scenes = [Scene(*subject, *grounds[i % len(grounds)]) for i, subject in enumerate(subjects)]
    assert [parse_prompt(scene.prompt) for scene in scenes] == scenes
    assert len({scene.prompt for scene in scenes}) == len(scenes)


@pytest.mark.parametrize(
    ("text", "scene"),
    [
        ("A red circle moving left.", Scene("red", "circle", "moving left")),
        ("an  RED circle bouncing over a navy background", Scene("red", "circle", "bouncing", "navy", "plain")),
        ("red cross circling over olive striped", Scene("red", "cross", "circling", "olive", "striped")),
    ],
)
def test_articles_case_and_a_missing_pattern_are_forgiven(text: str, scene: Scene) -> None:
    assert parse_prompt(text) == scene


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a rde circle circling", 'did you mean "red"'),
        ("a red circle moveing left", 'did you mean "moving"'),
        ("a red circle moving left over a navi plain background", 'did you mean "navy"'),
        ("a circle red circling", 'unknown colour "circle"'),
        ("a red circle", "unknown action"),
        ("", "expected"),
        ("a red circle circling over a navy plain striped background", 'too many words after "over"'),
    ],
)
def test_a_wrong_prompt_is_told_what_is_wrong(text: str, hint: str) -> None:
    with pytest.raises(PromptError, match=hint):
        parse_prompt(text)


def test_half_a_background_is_refused() -> None:
    with pytest.raises(PromptError, match="both"):
        Scene("red", "circle", "circling", "navy", None)


def test_held_out_prompts_are_one_in_eight_and_never_drawn_for_training() -> None:
    rng = np.random.default_rng(0)
    everything = [Scene(*parts) for parts in itertools.product(COLORS, SHAPES, ACTIONS, HUES, PATTERNS)]
    share = np.mean([scene.held_out for scene in everything])
    assert 0.11 < share < 0.14
    assert not any(sample_scene(rng).held_out for _ in range(300))
    assert all(sample_scene(rng, held_out=True, action="circling").held_out for _ in range(20))
