"""Every worked table of the published cache policies, as their code was observed to behave; no torch needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irope.policy import CacheEvent, PolicyError
from irope.registry import make_policy
from irope.schedules import SCHEDULES, Context, Denoise, Emit, Restart, Run, chunkwise, restart, rolling_window

DATA = json.loads(Path(__file__).with_name("policy_tables.json").read_text(encoding="utf-8"))
SWITCH, CUT = CacheEvent.PROMPT_SWITCH, CacheEvent.SCENE_CUT


def roll(tools, name, settings, blocks, events=None):
    """Block -> plan, through the chunkwise schedule."""
    policy = make_policy(name, settings)
    policy.check(3, blocks * 3, 21)
    script = tools.Script(blocks, events or {})
    return {op.noise_block: op for op in chunkwise(policy, script, Run()) if isinstance(op, Denoise) and op.plan}


def attended(op):
    """(frames, k, q) as the tables write them: the block's own keys last, at the index of its queries."""
    plan = op.plan
    return plan.read + op.frames, plan.key_index + plan.query_index, plan.query_index


@pytest.mark.parametrize("table", DATA["tables"], ids=lambda table: table["title"])
def test_table(tools, table):
    events = {int(block): CacheEvent(event) for block, event in table["events"].items()}
    calls = roll(tools, table["policy"], table["settings"], table["blocks"], events)
    for block, *columns in table["rows"]:
        assert attended(calls[block]) == tuple(map(tools.expand, columns)), f"block {block}"

    recompute = table.get("recompute", {})
    assert {block for block, op in calls.items() if op.plan.recompute} == set(map(int, recompute))
    for block, row in recompute.items():
        call = calls[int(block)].plan.recompute
        assert (call.frames, call.index, call.store) == tuple(
            tools.expand(row[key]) for key in ("queries", "at", "kept")
        )
        store_index = tuple(call.index[call.frames.index(frame)] for frame in call.store)
        assert (call.read + call.store, call.key_index + store_index) == (
            tools.expand(row["frames"]),
            tools.expand(row["k"]),
        )


@pytest.mark.parametrize("row", DATA["rolling_forcing"]["rows"], ids=lambda row: f"w{row[0]}")
def test_rolling_forcing(tools, row):
    window, frames, k, q, context = row
    ops = list(rolling_window(make_policy("rolling_forcing"), tools.Script(14), Run(steps=5)))
    denoise = [op for op in ops if isinstance(op, Denoise)]
    passes = [op for op in ops if isinstance(op, Context)]
    assert len(denoise) == len(passes) == 18
    assert attended(denoise[window]) == tuple(map(tools.expand, (frames, k, q)))
    clean = tools.expand(context)
    assert attended(passes[window]) == (clean, clean, clean[-3:])


def test_rolling_forcing_levels_and_output_order(tools):
    ops = list(rolling_window(make_policy("rolling_forcing"), tools.Script(14), Run(steps=5)))
    levels = [op.levels for op in ops if isinstance(op, Denoise)]
    assert levels[:5] == [(0,), (1, 0), (2, 1, 0), (3, 2, 1, 0), (4, 3, 2, 1, 0)]  # right-aligned while it fills
    assert levels[5:14] == [(4, 3, 2, 1, 0)] * 9
    assert levels[14:] == [(4, 3, 2, 1), (4, 3, 2), (4, 3), (4,)]  # left-aligned while it drains
    assert [op.block for op in ops if isinstance(op, Emit)] == list(range(14))


def test_rolling_forcing_holds_24_frames_the_first_block_among_them(tools):
    ops = rolling_window(make_policy("rolling_forcing"), tools.Script(30), Run(steps=5))
    held = [pages for op, _, pages in tools.replay(ops) if isinstance(op, Context)]
    assert max(map(len, held)) == 24
    assert all({0, 1, 2} <= pages for pages in held)


@pytest.mark.parametrize("row", DATA["cuts"]["rows"], ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}")
def test_rope_cut(tools, row):
    mode, frames, delta, q = row
    settings = {"cut_mode": mode, "cut_frames": frames, "cut_delta": delta}
    calls = roll(tools, "infinity_rope", settings, 8, {6: CUT})
    assert attended(calls[6]) == (tools.expand("0 16..20"), (0, 1, 2, *tools.expand(q)), tools.expand(q))
    assert attended(calls[7]) == tuple(map(tools.expand, ("0 19..23", "0..5", "3..5")))  # for that block only


@pytest.mark.parametrize(
    ("compat", "frames", "q"), [("official", "0 16..20", "45..47"), ("paper", "0 17..20", "18 64 65")]
)
def test_each_reading_has_its_cut(tools, compat, frames, q):
    frames_got, _, q_got = attended(roll(tools, "infinity_rope", {"compat": compat}, 7, {6: CUT})[6])
    assert (frames_got, q_got) == (tools.expand(frames), tools.expand(q))


def test_full_cache_ends_at_frame_21(tools):
    policy = make_policy("full")
    with pytest.raises(PolicyError, match=r"holds 21 latent frames.*needs 24"):
        policy.check(3, 24, 21)
    seen = []
    with pytest.raises(PolicyError, match="frame 23 does not fit"):
        seen.extend(chunkwise(policy, tools.Script(8), Run()))
    assert seen[-1] == Context((18, 19, 20), None, 0)  # seven blocks ran


# What the released ∞-RoPE code does otherwise (its flush copies the tail of a buffer that may not be full, and counts
# queries from the window's end while the keys are numbered from the front).


@pytest.mark.parametrize("keep", [0, 1, 2, 7])
def test_a_flush_before_the_cache_is_full_reads_only_what_was_written(tools, keep):
    ops = chunkwise(make_policy("infinity_rope", {"flush_keep": keep}), tools.Script(3, {1: SWITCH}), Run())
    op, readable, _ = next(entry for entry in tools.replay(ops) if getattr(entry[0], "noise_block", 0) == 1)
    assert set(op.plan.read) <= readable
    assert op.plan.read == (0, *(1, 2)[2 - min(keep, 2) :])


@pytest.mark.parametrize("window", [6, 9, 12, 15, 21])
def test_queries_stand_at_their_own_keys_while_a_window_refills(tools, window):
    calls = roll(tools, "infinity_rope", {"window": window}, 20, {10: SWITCH})
    assert [len(calls[10 + i].plan.read) for i in range(8)] == [min(3 + 3 * i, window - 3) for i in range(8)]
    for block in range(10, 20):
        plan = calls[block].plan
        q0 = plan.query_index[0]
        past = [(frame, index) for frame, index in zip(plan.read, plan.key_index, strict=True) if frame != 0]
        # The block follows its past without a gap: index difference = frame difference.
        assert [q0 - index for _, index in past] == [3 * block - frame for frame, _ in past]
        assert plan.query_index == (q0, q0 + 1, q0 + 2)


def test_only_this_window_is_left_after_a_flush(tools):
    """Window 12, flush at block 8: k 0..5 with queries at 9 10 11 in the released code, here one line of indices."""
    assert attended(roll(tools, "infinity_rope", {"window": 12}, 9, {8: SWITCH})[8]) == (
        tools.expand("0 22..26"),
        tools.expand("0 7..11"),
        tools.expand("9..11"),
    )


# CausVid


@pytest.mark.parametrize(("seconds", "blocks", "rollouts"), [(5, 7, 1), (60, 80, 14), (120, 160, 27), (240, 320, 54)])
def test_causvid_rollouts(tools, seconds, blocks, rollouts):
    ops = list(restart(make_policy("causvid"), tools.Script(blocks), Run(steps=3)))
    assert sum(isinstance(op, Restart) for op in ops) + 1 == rollouts
    assert all(op == Restart(overlap=3, anchor_pixel=72) for op in ops if isinstance(op, Restart))
    assert sum(pixels_per_rollout(ops)) == 1 + 4 * (3 * blocks - 1)
    assert pixels_per_rollout(ops)[:-1] == [72] * (rollouts - 1)


def pixels_per_rollout(ops):
    """Pixel frames that leave each roll-out: the first latent of a fresh decoder gives one, every other four."""
    totals = [0]
    for op in ops:
        if isinstance(op, Restart):
            totals.append(0)
        elif isinstance(op, Emit):
            decoded = 9 if op.frames == (0, 1, 2) else 12
            totals[-1] += decoded if op.pixels is None else op.pixels
            assert op.pixels is None or 0 < op.pixels < decoded
    return totals


def test_causvid_blocks(tools):
    ops = list(restart(make_policy("causvid"), tools.Script(20), Run(steps=3)))
    begin = next(i for i, op in enumerate(ops) if isinstance(op, Restart))
    first = [attended(op) for op in ops[:begin] if getattr(op, "plan", None)]
    assert first == [tuple(map(tools.expand, (f"0..{3 * j + 2}",) * 2 + (f"{3 * j}..{3 * j + 2}",))) for j in range(7)]
    # The next roll-out: block 0 is context only, then blocks 1..6 are generated at 3..20 again.
    second = ops[begin + 1 :]
    assert isinstance(second[0], Emit)
    assert isinstance(second[1], Context)
    assert attended(second[1]) == ((0, 1, 2),) * 3
    assert attended(second[2]) == tuple(map(tools.expand, ("0..5", "0..5", "3..5")))


def test_causvid_meets_a_switch_at_the_next_rollout(tools):
    ops = list(restart(make_policy("causvid"), tools.Script(20, {8: SWITCH}), Run(steps=3)))
    segments = [op.segment for op in ops if isinstance(op, Denoise)][::3]
    assert segments == [0] * 13 + [1] * 7
    assert [op.block for op in ops if isinstance(op, Emit) and op.event is SWITCH] == [12]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("blocks", [7, 8, 20, 80])
def test_nothing_is_denoised_that_never_leaves(tools, name, blocks):
    policy = {"chunkwise": "infinity_rope", "rolling_window": "rolling_forcing", "restart": "causvid"}[name]
    ops = list(SCHEDULES[name](make_policy(policy), tools.Script(blocks), Run(steps=5)))
    last = max(i for i, op in enumerate(ops) if isinstance(op, Emit))
    assert not [op for op in ops[last:] if isinstance(op, Denoise)]
