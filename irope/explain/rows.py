"""The plans of a video as rows to look at, and which of them tell nothing new."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Literal

from irope.policy import CacheEvent, CachePlan, CachePolicy, PageId
from irope.schedules import SCHEDULES, Context, Denoise, Emit, Events, Restart, Run

Role = Literal["sink", "past", "memory", "recomputed"]

EVENT_NAMES = {CacheEvent.PROMPT_SWITCH: "prompt switch", CacheEvent.SCENE_CUT: "scene cut"}


@dataclass(frozen=True)
class Row:
    """One plan: a block, or a window of a rolling schedule.

    Attributes:
        label: what the row is called: the block's number, or ``w5`` for a window of several blocks.
        block: number of the (first) block in the video.
        frames: the new latent frames, numbered as the cache does.
        roles: one per page that the plan reads.
        context: whether the plan is that of a context pass only.
        restart: whether the cache was emptied just before.
        horizon: trained length in latent frames.
    """

    label: str
    block: int
    event: CacheEvent
    segment: int
    frames: tuple[int, ...]
    plan: CachePlan
    roles: tuple[Role, ...]
    context: bool = False
    restart: bool = False
    horizon: int = 21

    @property
    def reach(self) -> int:
        """Largest index difference between a query and a key."""
        index = self.plan.key_index + self.plan.query_index
        return max(self.plan.query_index) - min(index)

    @property
    def notes(self) -> list[str]:
        """What deserves attention, in words."""
        notes = [EVENT_NAMES[self.event]] if self.event in EVENT_NAMES else []
        if self.restart:
            notes.append(f"new roll-out: frames {spans(self.frames)} are context")
        elif self.context:
            notes.append("context pass")
        if self.plan.recompute is not None:
            notes.append(f"encodes {spans(self.plan.recompute.frames)} again")
        notes += [f"{merge.page} ← {spans(page for page, _ in merge.terms)}" for merge in self.plan.merge]
        notes += [f"{spans(s.pages)} ← best tokens of {spans(s.sources)}" for s in self.plan.select]
        return notes

    @property
    def warning(self) -> str:
        """A word where a query is farther from a key than any was in training."""
        return f"reaches {self.reach} back (trained: {self.horizon - 1})" if self.reach >= self.horizon else ""

    def to_json(self) -> dict[str, Any]:
        """The row as JSON types."""
        flags = {"context": self.context, "restart": self.restart}
        return {
            "label": self.label,
            "block": self.block,
            "event": self.event.value,
            "segment": self.segment,
            "frames": list(self.frames),
            "roles": list(self.roles),
            "plan": self.plan.to_json(),
            **{key: True for key, value in flags.items() if value},
        }


def trace(policy: CachePolicy, events: Events, run: Run) -> list[Row]:
    """Every plan of a video, in order.

    Raises:
        PolicyError: the settings are impossible for this video, or the policy makes an impossible plan.
    """
    policy.check(run.block, events.blocks * run.block, run.horizon)
    rows: list[Row] = []
    held: tuple[PageId, ...] = ()
    block, windows, restarted, emitted = 0, 0, False, CacheEvent.BLOCK
    for op in SCHEDULES[policy.schedule](policy, events, run):
        if isinstance(op, Restart):
            held, restarted = (), True
        elif isinstance(op, Emit):
            block, emitted = op.block, op.event
        elif op.plan is not None:
            if isinstance(op, Denoise):
                block, event = op.noise_block, op.event
                windows += 1
            else:
                event = emitted if restarted else CacheEvent.BLOCK
            if op.plan.recompute is not None:
                held = op.plan.recompute.read + op.plan.recompute.store
            label = f"w{windows - 1}" if policy.schedule == "rolling_window" else str(block)
            sink = frozenset(sorted({page for page in held if isinstance(page, int)})[: policy.sink])
            roles = tuple(_role(page, op.plan, sink) for page in op.plan.read)
            context = isinstance(op, Context)
            rows.append(
                Row(label, block, event, op.segment, op.frames, op.plan, roles, context, restarted, run.horizon)
            )
            held, restarted = (*op.plan.read, *op.plan.retain), False
        if isinstance(op, Context):
            held = (*(page for page in held if page not in op.frames), *op.frames)
    return rows


def _role(page: PageId, plan: CachePlan, sink: frozenset[int]) -> Role:
    if isinstance(page, str):
        return "memory"
    if plan.recompute is not None and page in plan.recompute.store:
        return "recomputed"
    return "sink" if page in sink else "past"


def spans(pages: Iterable[PageId], shortest: int = 4) -> str:
    """'0 6..11 17..12 long': runs of at least ``shortest`` neighbours, rising or falling, as first..last."""
    parts: list[str] = []
    run: list[int] = []

    def close() -> None:
        parts.extend([f"{run[0]}..{run[-1]}"] if len(run) >= shortest else map(str, run))
        run.clear()

    for page in pages:
        if not isinstance(page, int):
            close()
            parts.append(page)
            continue
        if run and (abs(page - run[-1]) != 1 or (len(run) > 1 and page - run[-1] != run[-1] - run[-2])):
            close()
        run.append(page)
    close()
    return " ".join(parts)


Group = tuple[Row, ...]
"""Rows told together: the plans of one label, or of two policies at one block."""


@dataclass(frozen=True)
class Gap:
    """Groups left out because each is the one before it, moved on."""

    first: str
    last: str
    summary: str

    @property
    def labels(self) -> str:
        return f"{self.first} … {self.last}" if self.first != self.last else self.first


Step = tuple[tuple[int, ...], ...]


def _step(before: Row, after: Row) -> Step | None:
    """What every number of a row grows by from one to the next; None where the two are not alike."""
    a, b = before.plan, after.plan
    alike = after.event is CacheEvent.BLOCK and not after.restart and b.recompute is None and a.recompute is None
    alike = alike and before.roles == after.roles and len(before.frames) == len(after.frames)
    alike = alike and [p for p in a.read if isinstance(p, str)] == [p for p in b.read if isinstance(p, str)]
    alike = alike and (len(a.merge), len(a.select), a.head_theta) == (len(b.merge), len(b.select), b.head_theta)
    if not alike or before.context != after.context:
        return None
    pairs = zip(a.read, b.read, strict=True)
    return (
        tuple(y - x for x, y in pairs if isinstance(x, int) and isinstance(y, int)),
        tuple(y - x for x, y in zip(a.key_index, b.key_index, strict=True)),
        tuple(y - x for x, y in zip(a.query_index, b.query_index, strict=True)),
        tuple(y - x for x, y in zip(before.frames, after.frames, strict=True)),
    )


def _steps(before: Group, after: Group) -> tuple[Step, ...] | None:
    if len(before) != len(after):
        return None
    steps = [_step(a, b) for a, b in zip(before, after, strict=True)]
    return tuple(step for step in steps if step is not None) if None not in steps else None


def _summary(row: Row, step: Step) -> str:
    """'the same, 3 frames on; indices stay', for a stretch whose last row is ``row``."""
    reads, keys, queries, frames = step
    on = frames[0]
    frame_roles = [role for role in row.roles if role != "memory"]
    past = {d for d, role in zip(reads, frame_roles, strict=True) if role == "past"}
    parts = [f"the same, {on} frames on" if past <= {on} else "frames change in steady steps"]
    parts.append("indices stay" if set(queries) == {0} else f"indices move on by {queries[0]}")
    behind = [d - queries[0] for d, role in zip(keys, row.roles, strict=True) if role == "sink"]
    if any(behind):
        parts.append(f"the sink falls back, at last to distance {row.reach}")
    return "; ".join(parts)


def condense(groups: Sequence[Group], limit: int | None = None) -> list[Group | Gap]:
    """Leave out what is told by its neighbours.

    Of a stationary stretch the first and the last group stay. With ``limit``, at most about that many groups stay:
    the first, those around events, and the last.
    """
    steps = [None, *(_steps(a, b) for a, b in pairwise(groups))]
    told: list[Group | Gap] = []
    i = 0
    while i < len(groups):
        end = i
        while steps[i] is not None and end + 1 < len(groups) and steps[end + 1] == steps[i]:
            end += 1
        told.append(groups[i])
        if end - i >= 3:
            step = steps[i]
            assert step is not None
            # A pair of policies is told by the first one.
            summary = _summary(groups[end - 1][0], step[0])
            told += [Gap(groups[i + 1][0].label, groups[end - 1][0].label, summary), groups[end]]
            i = end
        i += 1
    if limit is None or len(told) <= limit:
        return told
    return _thin(told, limit)


def _thin(told: list[Group | Gap], limit: int) -> list[Group | Gap]:
    marked = {i for i, item in enumerate(told) if not isinstance(item, Gap) and any(row.notes for row in item)}
    events = {i for i, item in enumerate(told) if not isinstance(item, Gap) and item[0].event in EVENT_NAMES}
    near = {i + d for i in events for d in (-1, 0, 1)} | {len(told) - 1}
    keep = set(range(min(4, limit))) | near
    for i in [*sorted(marked), *range(len(told))]:  # then the rest from the front, while there is room
        if len(keep) >= limit:
            break
        keep.add(i)
    result: list[Group | Gap] = []
    for kept, items in groupby(enumerate(told), key=lambda entry: entry[0] in keep):
        run = [item for _, item in items]
        if kept:
            result += run
        elif len(run) == 1:
            result.append(run[0] if isinstance(run[0], Gap) else Gap(run[0][0].label, run[0][0].label, "not shown"))
        else:
            first, last = run[0], run[-1]
            result.append(
                Gap(
                    first.first if isinstance(first, Gap) else first[0].label,
                    last.last if isinstance(last, Gap) else last[0].label,
                    "not shown",
                )
            )
    return result


def grouped(rows: Iterable[Row]) -> list[Group]:
    """Rows of one label together: a window and its context pass."""
    return [tuple(group) for _, group in groupby(rows, key=lambda row: row.label)]


def unit_of(rows: Sequence[Row]) -> str:
    return "window" if rows and rows[0].label.startswith("w") else "block"
