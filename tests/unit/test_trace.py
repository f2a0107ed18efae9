"""The run-length code of a plan trace is lossless and does not grow."""

from __future__ import annotations

import json

from irope.policy import CacheEvent, CachePlan, CacheView, Page
from irope.registry import make_policy
from irope.trace import PlanTrace

EVENTS = {9: CacheEvent.PROMPT_SWITCH, 20: CacheEvent.SCENE_CUT}


def plans(name: str, blocks: int) -> list[tuple[int, CacheEvent, int, CachePlan]]:
    policy, pages, made = make_policy(name), (), []
    for block in range(blocks):
        frames = tuple(range(3 * block, 3 * block + 3))
        event, segment = EVENTS.get(block, CacheEvent.BLOCK), sum(block >= start for start in EVENTS)
        plan = policy.plan(CacheView(pages, frames, event, segment))
        made.append((block, event, segment, plan))
        pages = tuple(Page(frame) for frame in range(3 * block + 3))
    return made


def unfold(entries: list[dict]) -> list[dict]:  # type: ignore[type-arg]
    """Every block's plan, written out from the entries alone."""
    found = []
    for entry in entries:
        names = ("read", "key_index", "query_index")
        first = [entry["plan"].get(name, []) for name in names]
        step = iter(entry["step"] or [0] * sum(map(len, first)))
        steps = [[next(step) for _ in values] for values in first]
        for i in range(entry["count"]):
            moved = [
                [v + i * s for v, s in zip(values, by, strict=True)] for values, by in zip(first, steps, strict=True)
            ]
            found.append(
                {"block": entry["block"] + i, "event": entry["event"] if i == 0 else "block"}
                | dict(zip(names, moved, strict=True))
            )
    return found


def test_every_plan_comes_back_also_through_json_in_the_middle() -> None:
    for name in ("infinity_rope", "rolling"):
        made = plans(name, 60)
        trace = PlanTrace()
        for number, row in enumerate(made):
            if number % 7 == 0:  # as a checkpoint does
                trace = PlanTrace(json.loads(json.dumps(trace.entries)))
            trace.add(*row)
        wanted = [
            {
                "block": b,
                "event": e.value,
                "read": list(p.read),
                "key_index": list(p.key_index),
                "query_index": list(p.query_index),
            }
            for b, e, _, p in made
        ]
        assert unfold(json.loads(json.dumps(trace.entries))) == wanted


def test_a_long_video_has_no_more_entries_than_a_short_one() -> None:
    counts = []
    for blocks in (100, 1000):
        trace = PlanTrace()
        for row in plans("infinity_rope", blocks):
            trace.add(*row)
        counts.append(len(trace.entries))
    assert counts[0] == counts[1] < 10


def test_a_block_with_an_event_is_an_entry_of_its_own() -> None:
    trace = PlanTrace()
    for row in plans("infinity_rope", 40):
        trace.add(*row)
    events = {entry["block"]: entry for entry in trace.entries if entry["event"] != "block"}
    assert {block: entry["event"] for block, entry in events.items()} == {9: "prompt_switch", 20: "scene_cut"}
    assert all(entry["count"] == 1 for entry in events.values())
