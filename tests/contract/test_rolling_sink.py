"""Rolling Sink: its published table, the order of its replay at any length, and every bank that fits its window."""

from __future__ import annotations

from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irope.explain import render_text, trace
from irope.policy import PolicyError
from irope.registry import make_policy
from irope.schedules import Denoise, Run, chunkwise


def plans_of(tools, policy, blocks, run=None):
    """Block -> plan; the policy must accept the settings."""
    run = run or Run()
    policy.check(run.block, blocks * run.block, run.horizon)
    ops = chunkwise(policy, tools.Script(blocks), run)
    return [op.plan for op in ops if isinstance(op, Denoise) and op.plan]


def test_the_published_table(tools):
    plans = plans_of(tools, make_policy("rolling_sink"), 20)
    assert plans[6].read == plans[6].key_index == tuple(range(18))
    assert plans[7].read == plans[7].key_index == tuple(range(3, 21))
    assert plans[8].read == (*range(6, 18), 17, 16, 15, 21, 22, 23)
    assert (plans[8].key_index, plans[8].query_index) == (tuple(range(6, 24)), (24, 25, 26))
    # A full turn: forwards again from index 36, and some frames are read twice at once.
    assert plans[13].read == (*range(14, -1, -1), 36, 37, 38)
    assert plans[15].read == (*range(8, -1, -1), *range(6), 42, 43, 44)


def published_refill(block: int, j: int, bank: int) -> tuple[int, ...]:
    """What the slots of the block that begins at ``j`` are filled with (policies.md 2.9, per block, not per frame)."""
    m = j % bank
    return tuple(bank - 1 - m - i if (j // bank) % 2 else m + i for i in range(block))


@given(
    block=st.integers(1, 4),
    bank=st.integers(1, 8),
    spare=st.integers(0, 5),
    recent=st.integers(0, 8),
    blocks=st.integers(1, 40),
)
def test_the_replay_goes_there_and_back_at_any_length(tools, block, bank, spare, recent, blocks):
    """``bank`` in blocks; the window has room for the bank and ``spare`` frames more."""
    sink = bank * block
    window = sink + spare + block
    recent = min(recent + spare, window - block)
    policy = make_policy("rolling_sink", {"window": window, "sink": sink, "recent": recent})
    plans = plans_of(tools, policy, blocks, Run(block=block))
    there_and_back = [*range(sink), *reversed(range(sink))]
    order = list(islice(cycle(there_and_back), blocks * block))
    assert order == [frame for j in range(0, blocks * block, block) for frame in published_refill(block, j, sink)]
    for number, plan in enumerate(plans):
        start = number * block
        assert plan.key_index == tuple(range(max(0, start - window + block), start))
        assert plan.query_index == tuple(range(start, start + block))
        if start + block <= window:
            assert plan.read == plan.key_index
        for index, page in zip(plan.key_index, plan.read, strict=True):
            assert page == (index if index >= start - recent else order[index])


@given(block=st.integers(1, 4), bank=st.integers(1, 8), blocks=st.integers(1, 60), recent=st.integers(0, 8))
def test_the_bank_is_held_to_the_end_and_nothing_else_is_kept(tools, block, bank, blocks, recent):
    sink = bank * block
    policy = make_policy("rolling_sink", {"window": sink + block, "sink": sink, "recent": min(recent, sink)})
    most, made = 0, 0
    for op, readable, held in tools.replay(chunkwise(policy, tools.Script(blocks), Run(block=block))):
        plan = getattr(op, "plan", None)
        if plan is not None:
            made = op.frames[0]
            assert set(range(min(sink, made))) <= held <= {*range(sink), *range(made - policy.recent, made)}
            assert set(plan.read) | set(plan.retain) <= readable
        most = max(most, len(held))
    assert most <= policy.capacity(block)
    if made >= sink + policy.recent:
        assert most == policy.capacity(block)


def test_beyond_1024_latent_frames(tools):
    """Frame numbers go on; no distance leaves what was trained."""
    plans = plans_of(tools, make_policy("rolling_sink"), 400)
    last = plans[-1]  # frames 1197..1199; its window begins at index 1179 = 32 * 36 + 27
    assert last.query_index == (1197, 1198, 1199)
    assert last.key_index == tuple(range(1179, 1197))
    assert last.read == (*range(8, -1, -1), *range(6), 1194, 1195, 1196)
    assert {*last.read, *last.retain} == {*range(18), 1194, 1195, 1196}
    assert max(max(plan.query_index) - min(plan.key_index) for plan in plans[1:]) == 20


def test_explain_shows_what_is_replayed(tools):
    """Also near a turn, where frames are read twice."""
    rows = trace(make_policy("rolling_sink"), tools.Script(30), Run())
    for row in rows:
        assert row.roles == tuple("sink" if page < 18 else "past" for page in row.plan.read)
    assert "[12..17 17..9] 27 28 29 | 30 31 32" in render_text(rows)


def frames_and_indices(plans):
    return [(plan.read, plan.key_index, plan.query_index) for plan in plans]


def test_with_a_true_past_only_it_is_the_rolling_window(tools):
    policy = make_policy("rolling_sink", {"sink": 0, "recent": 18})
    rolling = make_policy("rolling", {"window": 21, "sink": 0})
    assert frames_and_indices(plans_of(tools, policy, 30)) == frames_and_indices(plans_of(tools, rolling, 30))


def test_two_blocks_are_the_full_cache(tools):
    assert plans_of(tools, make_policy("rolling_sink"), 2) == plans_of(tools, make_policy("full"), 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sink": 17}, r"the first 15 to 18 frames can be replayed, in whole blocks of 3, not 17 .*: sink 18$"),
        ({"sink": 12}, r"not 12 \(sink\); nearest valid: sink 15$"),
        ({"window": 12}, "impossible window: sink 18 .* nearest valid: window 21 or sink 9$"),
        ({"window": 27}, r"the first 21 to 24 frames .* nearest valid: sink 21$"),
        ({"window": 20, "sink": 15, "recent": 0}, r"the first 17 to 17 frames .* nearest valid: recent 2$"),
        ({"recent": -1}, r"recent must lie in 0\.\.18 .* got -1; nearest valid value: 0$"),
        ({"recent": 20}, r"recent must lie in 0\.\.18 .* got 20; nearest valid value: 18$"),
        ({"sink": -3}, "sink must not be negative, got -3; nearest valid value: 0"),
    ],
)
def test_impossible_settings_are_refused_with_the_nearest_valid_one(values, message):
    with pytest.raises(PolicyError, match=message):
        make_policy("rolling_sink", values).check(3, 21, 21)
    named = {"sink": int, "recent": int, "window": int}
    word, value = message.rstrip("$").split()[-2:]
    if word in named:  # the nearest valid value is valid
        make_policy("rolling_sink", values | {word: int(value)}).check(3, 21, 21)
