"""What holds for every registered policy, whatever its settings and whatever happens; and who equals whom."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from itertools import pairwise
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from irope.policy import CacheEvent, CachePolicy, CacheView, Call, Page, PolicyError, pages_after
from irope.registry import make_policy, policies, policy_fields
from irope.schedules import SCHEDULES, Context, Denoise, Run, chunkwise

NAMES = sorted(policies())
BESIDES = {"memrope": 3}  # slots that a window needs beside sink and block: two memories and a recent frame
EVENTS = st.dictionaries(st.integers(1, 11), st.sampled_from([CacheEvent.PROMPT_SWITCH, CacheEvent.SCENE_CUT]))


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is Union or type(kind).__name__ == "UnionType":
        return st.one_of(*map(values_of, get_args(kind)))
    small: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(0, 24),
        bool: st.booleans(),
        float: st.floats(0, 1),
        type(None): st.none(),
    }
    return small[kind]


def settings_of(name: str) -> st.SearchStrategy[dict[str, Any]]:
    kinds = get_type_hints(policies()[name])
    return st.fixed_dictionaries({}, optional={key: values_of(kinds[key]) for key in policy_fields(policies()[name])})


@st.composite
def cases(draw, name: str):
    """(policy that accepts its settings, run, blocks, events)."""
    run = Run(steps=draw(st.integers(1, 5)), block=draw(st.integers(1, 4)))
    values = draw(settings_of(name))
    if draw(st.booleans()):  # the smallest window: no room for any past
        sink = values.get("sink", policy_fields(policies()[name])["sink"])
        values["window"] = sink + run.block + BESIDES.get(name, 0)
    if name == "rolling_sink":  # whose settings as drawn seldom fit together
        values["sink"] = values.get("sink", 18) // run.block * run.block
        values["window"] = draw(st.one_of(st.just(values["sink"] + run.block), st.integers(0, 24)))
        values["recent"] = draw(st.integers(0, max(0, values["window"] - run.block)))
    policy = make_policy(name, values)
    blocks = draw(st.integers(1, 12))
    if policy.schedule == "restart":
        run = Run(run.steps, policy.overlap)  # type: ignore[attr-defined]
        assume(run.block > 0 and policy.window % run.block == 0 and policy.window > run.block)
    try:
        policy.check(run.block, blocks * run.block, run.horizon)
    except PolicyError:
        assume(False)
    return policy, run, blocks, draw(EVENTS)


def operations(tools, case):
    policy, run, blocks, events = case
    return SCHEDULES[policy.schedule](policy, tools.Script(blocks, events), run)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)
@given(data=st.data())
def test_a_plan_reads_what_was_written_and_never_exceeds_the_capacity(tools, name, data):
    policy, run, *_ = case = data.draw(cases(name))
    for op, readable, held in tools.replay(operations(tools, case)):
        if isinstance(op, Context):
            assert len(held) <= policy.capacity(run.block)
        plan = getattr(op, "plan", None)
        if plan is None:
            continue
        assert set(plan.read) | set(plan.retain) <= readable
        assert not set(plan.read) & set(op.frames)
        assert len(plan.key_index) == len(plan.read)
        assert len(plan.query_index) == len(op.frames)
        assert all(type(index) is int for index in plan.key_index + plan.query_index)
        assert json.loads(json.dumps(plan.to_json()))["read"] == list(plan.read)
        if plan.recompute is not None:
            assert set(plan.recompute.store) <= set(plan.recompute.frames) <= set(range(op.frames[0]))
            assert not set(plan.recompute.read) & set(plan.recompute.store)


class Recorder:
    """Passes views through to a policy and keeps (view, copy made before, plan)."""

    def __init__(self, policy: CachePolicy) -> None:
        self.policy = policy
        self.seen: list[tuple[CacheView, CacheView, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def plan(self, view: CacheView) -> Any:
        before = copy.deepcopy(view)
        self.seen.append((view, before, self.policy.plan(view)))
        return self.seen[-1][-1]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(data=st.data())
def test_a_plan_is_pure(tools, name, data):
    policy, run, blocks, events = data.draw(cases(name))
    recorder = Recorder(policy)
    list(SCHEDULES[policy.schedule](recorder, tools.Script(blocks, events), run))  # type: ignore[arg-type]
    fresh = make_policy(name, {key: getattr(policy, key) for key in policy_fields(type(policy))})
    for view, before, plan in reversed(recorder.seen):  # in another order, so that no hidden state can agree by luck
        assert view == before
        assert policy.plan(view) == fresh.plan(view) == plan


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(data=st.data())
def test_an_empty_cache_reads_nothing(name, data):
    policy, run, *_ = data.draw(cases(name))
    for call in Call:
        plan = policy.plan(CacheView((), tuple(range(run.block)), call=call))
        assert (plan.read, plan.retain) == ((), ())
        assert [b - a for a, b in pairwise(plan.query_index)] == [1] * (run.block - 1)


@pytest.mark.parametrize("name", NAMES)
@given(window=st.integers(-2, 30), sink=st.integers(-2, 30), block=st.integers(1, 5))
def test_impossible_windows_are_refused_with_the_nearest_valid_one(name, window, sink, block):
    # Settings beside window and sink are chosen so that nothing else is at fault.
    rest = {"f0": 60} if "f0" in policy_fields(policies()[name]) else {}
    least = block + BESIDES.get(name, 0)

    def check(window: int, sink: int) -> None:
        if name == "rolling_sink":  # whose sink is whole blocks, too
            window, sink, rest["recent"] = window - sink % block, sink - sink % block, max(0, window - block - sink)
        make_policy(name, {"window": window, "sink": sink, **rest}).check(block, block, 21)

    if sink >= 0 and sink + least <= window:
        check(window, sink)
        return
    with pytest.raises(PolicyError) as error:
        make_policy(name, {"window": window, "sink": sink, **rest}).check(block, block, 21)
    if sink < 0:
        assert "nearest valid value: 0" in str(error.value)
        return
    assert f"window {sink + least}" in str(error.value)
    check(sink + least, sink)
    if least <= window:
        assert f"or sink {window - least}" in str(error.value)
        check(window, window - least)


@pytest.mark.parametrize(
    ("values", "nearest"), [({"f0": 3}, "nearest valid: 4"), ({"cut_delta": -1}, "0"), ({"flush_keep": -1}, "0")]
)
def test_infinity_rope_refuses_its_other_impossible_settings(values, nearest):
    with pytest.raises(PolicyError, match=nearest):
        make_policy("infinity_rope", values).check(3, 21, 21)


def test_policies_import_no_torch():
    code = "import sys, irope.registry as r; r.policies(); import irope.schedules; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# A plan that contradicts itself is refused before anything runs.

VIEW = CacheView((Page("memory"), Page(0), Page(1)), (2,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key_index": (0,)}, "1 key indices for 2 pages"),
        ({"query_index": (2, 3)}, "2 query indices for a block of 1 frames"),
        ({"read": (0, 7)}, r"does not hold: \[7\]"),
        ({"retain": ("long",)}, r"does not hold: \['long'\]"),
        ({"read": (0, 2)}, r"frames of the new block as past frames: \[2\]"),
    ],
)
def test_a_contradictory_plan_is_refused(change, message):
    from irope.policy import CachePlan

    good = {"read": (0, 1), "key_index": (0, 1), "query_index": (2,)}
    kept = (*map(Page, (0, 1, 2)),)
    assert pages_after(VIEW, CachePlan(**good), commit=True) == kept
    view = CacheView((*VIEW.pages, Page(2)), VIEW.block) if change.get("read") == (0, 2) else VIEW
    with pytest.raises(PolicyError, match=message):
        pages_after(view, CachePlan(**good | change), commit=True)


def test_writes_take_only_from_pages_that_are_held():
    from irope.policy import CachePlan, Merge, Recompute, Select

    def after(read=(), **writes):
        plan = CachePlan(read, tuple(range(len(read))), (2,), **writes)
        return {page.id: page.segment for page in pages_after(CacheView(VIEW.pages, (2,), segment=5), plan, False)}

    merge = Merge("mean", ((0, 0.5), (1, 0.5)))
    assert after(("mean", 0), merge=(merge, Merge("mean", (("mean", 1.0),)))) == {"mean": 5, 0: 0}
    assert after(("top",), merge=(merge,), select=(Select(("top",), ("mean",)),)) == {"top": 5}
    assert after((0, 1), recompute=Recompute((0, 1), (0, 1), (1,), (0,), (0,))) == {0: 0, 1: 5}
    for writes in (
        {"merge": (Merge("mean", ((9, 1.0),)),)},
        {"merge": (Merge("mean", (("mean", 1.0),)),)},
        {"select": (Select(("top",), (9,)),)},
        {"recompute": Recompute((1,), (0,), (1,), (9,), (0,))},
        {"recompute": Recompute((0, 1), (0,), (1,))},
        {"recompute": Recompute((1,), (0,), (1,)), "read": (0,)},  # a recache drops what it neither reads nor stores
    ):
        with pytest.raises(PolicyError):
            after(**writes)


# Who equals whom. Only index differences matter, so two plans are the same when they read the same frames, encoded in
# the same way, at the same distances from the queries.


def distances(policy: CachePolicy, tools, blocks: int = 12, events=None, only=None) -> list[dict[Any, list[int]]]:
    result = []
    for op in chunkwise(policy, tools.Script(blocks, events or {}), Run()):
        if isinstance(op, Denoise) and op.plan:
            pages = zip(op.plan.read, op.plan.key_index, strict=True)
            result.append(
                {page: [q - index for q in op.plan.query_index] for page, index in pages if only is None or only(page)}
            )
    return result


WINDOWS = st.integers(3, 24)


@given(window=WINDOWS, f0=st.integers(0, 30), events=EVENTS)
def test_without_a_sink_relative_indices_equal_a_rolling_window(tools, window, f0, events):
    switches = dict.fromkeys(events, CacheEvent.PROMPT_SWITCH)
    infinity = make_policy("infinity_rope", {"window": window, "sink": 0, "f0": window + f0, "on_switch": "keep"})
    rolling = make_policy("rolling", {"window": window, "sink": 0})
    assert distances(infinity, tools, events=switches) == distances(rolling, tools, events=switches)


@given(events=EVENTS)
def test_at_window_6_the_flush_of_the_code_is_the_normal_roll(tools, events):
    script = tools.Script(12, events)
    plans = [
        [
            op.plan
            for op in chunkwise(make_policy("infinity_rope", {"on_switch": mode}), script, Run())
            if op_has_plan(op)
        ]
        for mode in ("flush", "keep")
    ]
    assert plans[0] == plans[1]


def op_has_plan(op: Any) -> bool:
    return isinstance(op, Denoise) and op.plan is not None


@given(window=WINDOWS, sink=st.integers(0, 6))
def test_f0_equal_to_the_window_is_longlive_infinity(tools, window, sink):
    assume(sink + 3 <= window)
    infinity = make_policy("infinity_rope", {"window": window, "sink": sink, "f0": window})
    slots = make_policy("kv_recache", {"window": window, "sink": sink, "index": "relative"})
    script = tools.Script(12)
    assert list(chunkwise(infinity, script, Run())) == list(chunkwise(slots, script, Run()))


@given(f0=st.integers(6, 40), events=EVENTS)
def test_f0_with_an_attached_sink_shifts_everything(tools, f0, events):
    """The sink moves with the window once it moves, so f0 cannot matter from then on."""
    switches = dict.fromkeys(events, CacheEvent.PROMPT_SWITCH)
    here, there = (
        distances(make_policy("infinity_rope", {"f0": value, "sink_index": "attached"}), tools, events=switches)
        for value in (6, f0)
    )
    assert here == there


@given(f0=st.integers(6, 40))
def test_f0_moves_a_pinned_sink_and_nothing_else(tools, f0):
    def run(value, only=None):
        return distances(make_policy("infinity_rope", {"f0": value}), tools, blocks=20, only=only)

    assert run(f0, only=lambda page: page != 0) == run(6, only=lambda page: page != 0)
    assert run(f0)[-1][0] == [f0 - 3, f0 - 2, f0 - 1]


def test_the_two_readings_differ_in_the_distance_of_the_sink(tools):
    official, paper = (distances(make_policy("infinity_rope", {"compat": c}), tools, 9) for c in ("official", "paper"))
    assert [block.pop(0, None) for block in official][3:] == [[3, 4, 5]] * 6
    assert [block.pop(0, None) for block in paper][7:] == [[18, 19, 20]] * 2
    assert official == paper


@given(sink=st.integers(0, 3))
def test_shorter_videos_are_the_beginning_of_longer_ones(tools, sink):
    for name in NAMES:
        policy = policies()[name]
        if policy.schedule != "chunkwise" or name == "full":
            continue
        values = {"sink": sink} if name != "rolling_sink" else {"sink": 3 * sink, "recent": 18 - 3 * sink}
        short, long = (list(chunkwise(make_policy(name, values), tools.Script(n), Run())) for n in (7, 40))
        assert long[: len(short)] == short
