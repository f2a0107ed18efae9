"""The plan trace of a video: every cache plan it used, run-length coded so that it does not grow with duration."""

from __future__ import annotations

from typing import Any

from irope.policy import CacheEvent, CachePlan


class PlanTrace:
    """Lossless log of plans, one entry for a stretch of blocks whose integers all move by constant steps.

    An entry holds the plan of its first block, ``count`` blocks, and ``step``: what each integer of (read, key_index,
    query_index) grows by from block to block. A window that slides for an hour is one entry.
    """

    def __init__(self, entries: list[dict[str, Any]] | None = None) -> None:
        self.entries = entries or []
        self._last: list[int] | None = None

    def add(self, block: int, event: CacheEvent, segment: int, plan: CachePlan) -> None:
        """Log the plan of ``block``; call in order of blocks."""
        record = {"event": event.value, "segment": segment, "plan": plan.to_json()}
        integers = _integers(plan)
        entry = self.entries[-1] if self.entries else {"event": None}
        # A block with an event is an entry of its own, so that events are found at a glance.
        plain = event is CacheEvent.BLOCK and entry["event"] == CacheEvent.BLOCK.value
        if plain and self._last is not None and integers is not None:
            step = [new - old for new, old in zip(integers, self._last, strict=False)]
            same_shape = len(integers) == len(self._last) and entry["segment"] == segment
            if same_shape and entry["count"] == 1:
                entry["step"] = step
            if same_shape and entry["step"] == step:
                entry["count"] += 1
                self._last = integers
                return
        self.entries.append({"block": block, "count": 1, "step": None, **record})
        self._last = integers


def _integers(plan: CachePlan) -> list[int] | None:
    """All integers of a plan that is nothing but them, else None (such a plan is an entry of its own)."""
    plain = plan.recompute is None and not (plan.merge or plan.select or plan.retain or plan.head_theta)
    if not plain or any(isinstance(page, str) for page in plan.read):
        return None
    return [*(page for page in plan.read if isinstance(page, int)), *plan.key_index, *plan.query_index]
