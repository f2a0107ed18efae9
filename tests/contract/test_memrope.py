"""MemRoPE: its published table, what its memories are made of, and every window it fits into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irope.explain import render_text, trace
from irope.policy import CachePlan, PolicyError
from irope.registry import make_policy
from irope.schedules import Denoise, Run, chunkwise

MEMORIES = ("long", "short")


def plans_of(tools, policy, blocks, run=None):
    """Block -> plan; the policy must accept the settings."""
    run = run or Run()
    policy.check(run.block, blocks * run.block, run.horizon)
    ops = chunkwise(policy, tools.Script(blocks), run)
    return [op.plan for op in ops if isinstance(op, Denoise) and op.plan]


def sources(plan):
    """Frames that flow into the memories."""
    first, second = ([page for page, _ in merge.terms if isinstance(page, int)] for merge in plan.merge)
    assert first == second
    return first


def test_the_published_slots(tools):
    plans = plans_of(tools, make_policy("memrope"), 7)
    assert plans[3] == CachePlan(tuple(range(9)), tuple(range(9)), (9, 10, 11))
    for block, evicted, recent in (
        (4, [5, 6, 7], range(8, 12)),
        (5, [8, 9, 10], range(11, 15)),
        (6, [11, 12, 13], range(14, 18)),
    ):
        plan = plans[block]
        assert plan.read == (0, 1, 2, *MEMORIES, *recent)
        assert (plan.key_index, plan.query_index) == (tuple(range(9)), (9, 10, 11))
        assert sources(plan) == evicted
        assert [(merge.page, merge.pool_tokens) for merge in plan.merge] == [("long", True), ("short", True)]


def contents(plans):
    """(long, short) behind every plan, where a frame's content is its number."""
    content = {}
    for plan in plans:
        content |= {frame: float(frame) for frame in sources(plan)} if plan.merge else {}
        content |= {merge.page: sum(weight * content[page] for page, weight in merge.terms) for merge in plan.merge}
        yield tuple(content.get(page) for page in MEMORIES)


def test_the_published_averages(tools):
    seen = list(contents(plans_of(tools, make_policy("memrope"), 6)))
    assert seen == [(None, None)] * 4 + [pytest.approx((6, 6)), pytest.approx((6.03, 6.3))]


SIZES = {"block": st.integers(1, 6), "sink": st.integers(0, 8), "spare": st.integers(0, 12)}


@given(**SIZES, rates=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_what_leaves_the_window_is_averaged_once(tools, block, sink, spare, rates):
    window = sink + 2 + 1 + block + spare
    settings = {"window": window, "sink": sink, "long_rate": rates[0], "short_rate": rates[1]}
    plans = plans_of(tools, make_policy("memrope", settings), 14, Run(block=block))
    averages: list[float] = []
    absorbed: list[int] = []
    for number, (plan, memories) in enumerate(zip(plans, contents(plans), strict=True)):
        start = number * block
        if start + block <= window:  # not full
            assert plan == CachePlan(tuple(range(start)), tuple(range(start)), tuple(range(start, start + block)))
            continue
        assert plan.read == (*range(sink), *MEMORIES, *range(start - spare - 1, start))
        assert plan.key_index + plan.query_index == tuple(range(window))
        absorbed += sources(plan)
        mean = sum(sources(plan)) / len(sources(plan))
        averages = [old + rate * (mean - old) for old, rate in zip(averages or [mean, mean], rates, strict=True)]
        assert memories == pytest.approx(averages)
    if absorbed:  # every frame once, from the first on, up to the recent ones
        assert absorbed == list(range(absorbed[0], len(plans) * block - block - spare - 1))


@given(**SIZES)
def test_the_cache_holds_what_it_says(tools, block, sink, spare):
    policy = make_policy("memrope", {"window": sink + 3 + block + spare, "sink": sink})
    most = 0
    for op, readable, held in tools.replay(chunkwise(policy, tools.Script(30), Run(block=block))):
        plan = getattr(op, "plan", None)
        most = max(most, len(readable) if plan else 0, len(held))
    assert policy.window <= most <= policy.capacity(block) == policy.window + 2


def test_explain_names_the_memories_and_what_flows_into_them(tools):
    rows = trace(make_policy("memrope"), tools.Script(9), Run())
    assert rows[5].roles == ("sink",) * 3 + ("memory",) * 2 + ("past",) * 4
    line = next(line for line in render_text(rows).splitlines() if line.startswith("5 "))
    assert "[0 1 2] long short 11..14 | 15 16 17" in line
    assert "long ← long 8 9 10, short ← short 8 9 10" in line


def test_two_blocks_are_the_full_cache(tools):
    assert plans_of(tools, make_policy("memrope"), 2) == plans_of(tools, make_policy("full"), 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 8}, r"sink 3 \+ 2 memories \+ 1 recent frame \+ block 3 = 9 .* window 8; .*: window 9 or sink 2$"),
        ({"window": 5, "sink": 0}, r"= 6 latent frames do not fit in window 5; nearest valid: window 6$"),
        ({"sink": -1}, "sink must not be negative, got -1; nearest valid value: 0"),
        ({"long_rate": 1.5}, r"long_rate must lie in 0\.\.1, got 1\.5; nearest valid value: 1$"),
        ({"short_rate": -0.1}, r"short_rate must lie in 0\.\.1, got -0\.1; nearest valid value: 0$"),
        ({"short_rate": float("nan")}, "short_rate must lie in .* got nan"),
    ],
)
def test_impossible_settings_are_refused_with_the_nearest_valid_one(values, message):
    with pytest.raises(PolicyError, match=message):
        make_policy("memrope", values).check(3, 21, 21)
