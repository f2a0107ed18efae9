"""What systems in other environments make of a length and a script before anything runs: clips, seeds, prompts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.systems.chain import chain, clip_seed, shots_of
from irope.errors import UserError
from irope.systems import ImpossibleError, make_system


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 3))
def test_a_chain_shows_every_frame_once_and_makes_no_clip_too_many(frames: int, native: int, repeated: int) -> None:
    if repeated >= native:
        with pytest.raises(ValueError):
            chain(frames, native, repeated)
        return
    clips = chain(frames, native, repeated)
    shown = [clip.start + i for clip in clips for i in range(clip.made - clip.repeated)]
    assert shown == list(range(len(shown)))
    assert len(shown) - (native - repeated) < frames <= len(shown) or len(clips) == 1
    assert [clip.repeated for clip in clips] == [0] + [repeated] * (len(clips) - 1)
    assert all(clip.made == native for clip in clips)


def test_the_first_clip_has_the_seed_of_the_video_and_no_other_one_has() -> None:
    seeds = [clip_seed(seed, index) for seed in range(20) for index in range(90)]
    assert seeds[::90] == list(range(20))
    assert len(set(seeds)) == len(seeds)


def test_a_prompt_begins_with_the_clip_whose_beginning_is_nearest() -> None:
    clips = chain(26, 6)  # frames 0..5, 6..10, 11..15, 16..20, 21..25
    for switch in range(4, 24):
        found = shots_of(clips, [(0, switch), (switch, 26)], "X")
        begins = next(clip.start for clip, shot in zip(clips, found, strict=True) if shot)
        assert abs(begins - switch) == min(abs(clip.start - switch) for clip in clips[1:])


def test_a_prompt_that_would_never_be_seen_is_refused() -> None:
    with pytest.raises(ImpossibleError, match=r"X: a prompt can change between clips only, .* frames 7 to 7"):
        shots_of(chain(26, 6), [(0, 7), (7, 8), (8, 26)], "X")


PLANS = [  # seconds, calls, frames made, frames kept; by hand from policies.md, section 4
    ("nova", {}, [(5, 2, 65, 60), (10, 4, 129, 120), (60, 23, 737, 720), (120, 45, 1441, 1440), (240, 90, 2881, 2880)]),
    ("nova", {"latents": 16}, [(5, 1, 61, 60), (60, 12, 721, 720)]),
    (
        "pyramid_flow",
        {},
        [(5, 1, 121, 120), (10, 2, 241, 240), (60, 12, 1441, 1440), (120, 24, 2881, 2880), (240, 48, 5761, 5760)],
    ),
    ("pyramid_flow", {"latents": 31}, [(5, 1, 241, 120), (10, 1, 241, 240), (60, 6, 1441, 1440)]),
    ("magi_1", {}, [(5, 1, 120, 120), (5.5, 1, 144, 132), (10, 1, 240, 240), (60, 1, 1440, 1440)]),
    ("magi_1", {"allow_long": True}, [(120, 1, 2880, 2880), (240, 1, 5760, 5760)]),
]


@pytest.mark.parametrize(("name", "settings", "rows"), PLANS)
def test_plans(name: str, settings: dict[str, Any], rows: list[tuple[float, int, int, int]]) -> None:
    system = make_system({"name": name, **settings})
    for seconds, calls, made, kept in rows:
        plan = system.plan(seconds)
        assert (plan.calls, plan.frames_made, plan.frames_kept) == (calls, made, kept)
    with pytest.raises(ImpossibleError):
        system.plan(0.01)


def test_magi_1_needs_100_gb_for_a_minute_and_refuses_more() -> None:
    magi = make_system({"name": "magi_1"})
    assert magi.plan(60).notes[:2] == ("60 chunks", "102 GB of pinned host memory for keys and values")
    for seconds, memory in ((120, "203 GB"), (240, "406 GB")):
        with pytest.raises(
            ImpossibleError, match=f"{memory} of pinned host memory; nearest valid: 60 s.*allow_long=true"
        ):
            magi.plan(seconds)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "nova", "latents": 1}, "latents=1 is too short; nearest valid: 2"),
        ({"name": "pyramid_flow", "latents": 20}, "latents=20 is no length of variant=768p; valid: 16 or 31"),
        ({"name": "pyramid_flow", "latents": 31, "variant": "384p"}, "variant=384p; valid: 16"),
        ({"name": "pyramid_flow", "model": "minifux"}, "did you mean 'miniflux'"),
        ({"name": "magi_1", "height": 725}, "height=725 is no multiple of 16; try 720"),
        ({"name": "magi_1", "steps": 10}, "steps=10 is no multiple of 4"),
    ],
)
def test_settings_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_system(values)
