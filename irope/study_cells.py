"""What the policy study rolls out: which policy meets which prompts, without a model.

Cells that are equal by arithmetic are listed once (docs/policy-study.md has the list): without a sink absolute and
relative indices are the same differences; at f0 = window a pinned sink is an attached one, which is the same for every
f0; a flush that keeps the whole past is no flush.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from irope.errors import UserError
from irope.policy import CacheEvent, CachePolicy, PolicyError
from irope.registry import make_policy
from irope.script import Clock
from irope.world import Scene, sample_scene
from irope.world.scene import ACTIONS, DIRECTIONS, HUES

LISTS = ("main", "motion", "background", "free")
PARTS = ("windows", "switch", "cut", "attention")


@dataclass(frozen=True)
class Take:
    """A scene and what it becomes at the event; the same scene where nothing is to change."""

    before: Scene
    after: Scene


@dataclass(frozen=True)
class Cell:
    """One batched roll-out: every prompt of ``takes`` in lock step, the same noise in every cell.

    Attributes:
        label: of a row of the tables, unique within a part and ``takes``.
        facts: what a table or a verdict selects by.
        at: block of the event; the study reads before and after it also where ``event`` is a plain block.
        stretches: seconds at which 5-second readings begin (part ``windows``).
    """

    part: str
    label: str
    policy: CachePolicy
    takes: str
    blocks: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    at: int | None = None
    event: CacheEvent = CacheEvent.BLOCK
    stretches: tuple[float, ...] = ()

    def record(self) -> dict[str, Any]:
        """Everything of the cell that decides its readings, as JSON."""
        return {
            "part": self.part,
            "policy": {"name": self.policy.name, **asdict(self.policy)},
            "takes": self.takes,
            "blocks": self.blocks,
            "at": self.at,
            "event": self.event.value,
            "stretches": list(self.stretches),
        }


def takes(name: str, count: int, seed: int) -> list[Take]:
    """``count`` takes of one of `LISTS`, no prompt twice, none seen in training where it names a background.

    ``main``: every action in turn, nothing changes. ``motion``: a straight motion becomes another one, in every fourth
    take circling. ``background``: another background colour behind a straight motion. ``free``: straight motions
    without background, so that a cut may change it.

    Raises:
        UserError: the world does not hold so many.
    """
    rng = np.random.default_rng([seed, 40 + LISTS.index(name)])
    straight = tuple(DIRECTIONS)
    actions = ACTIONS if name == "main" else straight
    found: dict[str, Take] = {}
    drawn = 0
    while len(found) < count:
        number, drawn = len(found), drawn + 1
        if drawn > 10_000:  # some four times what 64 take
            raise UserError(
                f"policy_study: no {count} different takes of the list {name!r} in the embedded world; "
                f"nearest valid value of its tier's prompts: {number}"
            )
        # Of 63 unseen prompts a straight motion, few are unseen with another motion, too: any first motion will do.
        action = straight[int(rng.integers(4))] if name == "motion" else actions[number % len(actions)]
        scene = sample_scene(rng, held_out=True, action=action)
        after = scene
        if name == "free":
            scene = after = scene.without_background()
        elif name == "motion":
            after = replace(scene, action="circling" if number % 4 == 3 else _other(rng, straight, scene.action))
        elif name == "background":
            assert scene.background is not None
            after = replace(scene, background=_other(rng, tuple(HUES), scene.background))
        if name == "free" or after.held_out:
            found.setdefault(scene.prompt, Take(scene, after))  # equal prompts have equal noise: the same video
    return list(found.values())


def _other(rng: np.random.Generator, names: Sequence[str], present: str) -> str:
    others = [name for name in names if name != present]
    return others[int(rng.integers(len(others)))]


def cells(settings: Mapping[str, Any], checkpoint: str, clock: Clock, horizon: int) -> tuple[list[Cell], list[str]]:
    """The cells of a tier for one checkpoint, and what is left out because a policy's check refuses it."""
    found: list[Cell] = []
    for part, make in (("windows", _windows), ("switch", _switch), ("cut", _cut), ("attention", _attention)):
        if (wanted := settings.get(part)) is not None:
            found.extend(make(wanted, checkpoint, clock))
    kept, refused = [], []
    for cell in found:
        try:
            cell.policy.check(clock.block, cell.blocks * clock.block, horizon)
            kept.append(cell)
        except PolicyError as error:
            refused.append(f"{cell.part}, {cell.label}: {error}")
    return kept, refused


def _infinity(window: int, sink: int, **settings: Any) -> CachePolicy:
    return make_policy("infinity_rope", {"window": window, "sink": sink, **settings})


def _windows(settings: Mapping[str, Any], checkpoint: str, clock: Clock) -> Iterator[Cell]:
    long = settings.get("long") or {}
    longer = long.get("seconds", {}).get(checkpoint, 0)

    def cell(label: str, policy: CachePolicy, facts: Mapping[str, Any]) -> Cell:
        seconds = max(settings["seconds"], longer if label in long.get("cells", ()) else 0)
        read = [*settings["stretches"], *(long["stretches"] if seconds > settings["seconds"] else ())]
        stretches = tuple(float(start) for start in read if start + 5 <= seconds)
        return Cell("windows", label, policy, "main", _blocks(clock, seconds), facts, stretches=stretches)

    for window in settings["windows"]:
        for sink in settings["sinks"]:
            name = f"w{window} s{sink}"
            facts = {"window": window, "sink": sink}
            absolute = make_policy("rolling", {"window": window, "sink": sink})
            if sink == 0:
                yield cell(name, absolute, facts | {"index": "any", "f0": None})
                continue
            yield cell(f"{name} absolute", absolute, facts | {"index": "absolute", "f0": None})
            swept = sink in settings.get("sweep_sinks", settings["sinks"])
            for f0 in settings["f0"] if swept else dict.fromkeys((window, settings["f0"][-1])):
                if f0 >= window:
                    yield cell(
                        f"{name} f0={f0}",
                        _infinity(window, sink, f0=f0),
                        facts | {"index": "relative", "f0": f0},
                    )
    if settings.get("full"):
        latents = _blocks(clock, settings["seconds"]) * clock.block
        facts = {"window": None, "sink": 0, "index": "absolute", "f0": None}
        yield cell("full history", make_policy("full", {"window": latents}), facts)


def _blocks(clock: Clock, seconds: float) -> int:
    return clock.latents(seconds) // clock.block


def _switch(settings: Mapping[str, Any], checkpoint: str, clock: Clock) -> Iterator[Cell]:
    sink, at = settings["sink"], settings["at"]
    for kind in settings["kinds"]:
        for window in settings["windows"]:
            ways = {"keep": _infinity(window, sink, on_switch="keep")}
            # Keeping the whole past is no flush: the same plans as "keep".
            ways |= {
                f"flush {kept}": _infinity(window, sink, flush_keep=kept)
                for kept in settings["flush_keep"]
                if kept < window - sink - clock.block
            }
            ways["recache"] = make_policy("kv_recache", {"window": window, "sink": sink, "index": "relative"})
            for way, policy in ways.items():
                facts = {"window": window, "sink": sink, "way": way, "kind": kind}
                blocks = at + settings["blocks"]
                label = f"{kind} w{window} {way}"
                yield Cell("switch", label, policy, kind, blocks, facts, at, CacheEvent.PROMPT_SWITCH)


def _cut(settings: Mapping[str, Any], checkpoint: str, clock: Clock) -> Iterator[Cell]:
    window, sink, at, kept = settings["window"], settings["sink"], settings["at"], settings["flush_keep"]
    blocks = at + settings["blocks"]

    def cell(label: str, event: CacheEvent, facts: Mapping[str, Any], **policy: Any) -> Cell:
        made = _infinity(window, sink, flush_keep=kept, **policy)
        return Cell("cut", label, made, "free", blocks, facts, at, event)

    yield cell("none", CacheEvent.BLOCK, {"way": "none"})
    yield cell("flush only", CacheEvent.PROMPT_SWITCH, {"way": "flush"})
    for mode in settings["modes"]:
        for frames in settings["frames"]:
            for delta in settings["deltas"]:
                facts = {"way": "cut", "mode": mode, "frames": frames, "delta": delta}
                # The second frame of a block that ends at its own last index stays, too: a cut that only flushes.
                if (mode, frames, delta) == ("target", "last2", window):
                    continue
                label = f"{mode} {frames} Δ={delta}"
                yield cell(label, CacheEvent.SCENE_CUT, facts, cut_mode=mode, cut_frames=frames, cut_delta=delta)


def _attention(settings: Mapping[str, Any], checkpoint: str, clock: Clock) -> Iterator[Cell]:
    window, sink = settings["window"], settings["sink"]
    far, near = (_blocks(clock, seconds) for seconds in (settings["seconds_absolute"], settings["seconds"]))
    absolute = make_policy("rolling", {"window": window, "sink": sink})
    yield Cell("attention", "absolute", absolute, "main", far, {"index": "absolute", "f0": None})
    for f0 in settings["f0"]:
        facts = {"index": "relative", "f0": f0}
        yield Cell("attention", f"f0={f0}", _infinity(window, sink, f0=f0), "main", near, facts)
