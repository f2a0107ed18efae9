"""A timed script and a slow cache model, both apart from the code under test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from irope.policy import CacheEvent, CachePlan, PageId
from irope.schedules import Context, Op, Restart


@dataclass(frozen=True)
class Script:
    """``blocks`` blocks, with an event at some of them; every event begins a segment."""

    blocks: int
    marks: Mapping[int, CacheEvent] = field(default_factory=dict)

    def event(self, block: int) -> CacheEvent:
        return self.marks.get(block, CacheEvent.BLOCK)

    def segment(self, block: int) -> int:
        return sum(mark <= block for mark in self.marks)


def expand(text: str) -> tuple[int, ...]:
    """'0 16..18' -> (0, 16, 17, 18), the notation of the tables."""
    numbers: list[int] = []
    for part in text.split():
        first, _, last = part.partition("..")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers)


def replay(ops: Iterable[Op]) -> Iterator[tuple[Op, frozenset[PageId], frozenset[PageId]]]:
    """(operation, pages that can be read by it, pages held behind it): a set of names, updated by the book."""
    held: frozenset[PageId] = frozenset()
    for op in ops:
        readable = held
        if isinstance(op, Restart):
            held = readable = frozenset()
        plan = getattr(op, "plan", None)
        if plan is not None:
            readable = held | written(plan)
            held = frozenset(plan.read) | frozenset(plan.retain)
        if isinstance(op, Context):
            held = held | frozenset(op.frames)
        yield op, readable, held


def written(plan: CachePlan) -> frozenset[PageId]:
    pages: list[PageId] = list(plan.recompute.store) if plan.recompute else []
    pages += [merge.page for merge in plan.merge]
    pages += [page for select in plan.select for page in select.pages]
    return frozenset(pages)


@pytest.fixture(scope="session")
def tools() -> SimpleNamespace:
    return SimpleNamespace(Script=Script, expand=expand, replay=replay)
