"""The plan trace of a video: every cache plan it used, run-length coded so that it does not grow with duration."""

from __future__ import annotations

from typing import Any

from irope.policy import CacheEvent, CachePlan

_INTEGERS = ("read", "key_index", "query_index")


class PlanTrace:
    """Lossless log of plans, one entry for a stretch of blocks whose integers all move by constant steps.

    An entry holds the plan of its first block, ``count`` blocks, and ``step``: what each integer of (read, key_index,
    query_index) grows by from block to block. A window that slides for an hour is one entry; a block with an event is
    an entry of its own, so that events are found at a glance. ``entries`` is all the state there is.
    """

    def __init__(self, entries: list[dict[str, Any]] | None = None) -> None:
        self.entries = entries or []

    def add(self, block: int, event: CacheEvent, segment: int, plan: CachePlan) -> None:
        """Log the plan of ``block``; call in order of blocks."""
        record = {"event": event.value, "segment": segment, "plan": plan.to_json()}
        now = _integers(record)
        if self.entries and event is CacheEvent.BLOCK and now is not None:
            entry = self.entries[-1]
            first = _integers(entry)
            if (
                first is not None
                and len(first) == len(now)
                and (entry["event"], entry["segment"]) == ("block", segment)
            ):
                step = entry["step"] or [new - old for new, old in zip(now, first, strict=True)]
                if now == [old + entry["count"] * s for old, s in zip(first, step, strict=True)]:
                    entry["step"], entry["count"] = step, entry["count"] + 1
                    return
        self.entries.append({"block": block, "count": 1, "step": None, **record})


def _integers(record: dict[str, Any]) -> list[int] | None:
    """All integers of a plan that is nothing but them, else None (such a plan is an entry of its own)."""
    plan = record["plan"]
    if set(plan) - set(_INTEGERS) or any(isinstance(page, str) for page in plan["read"]):
        return None
    return [value for name in _INTEGERS for value in plan.get(name, ())]
