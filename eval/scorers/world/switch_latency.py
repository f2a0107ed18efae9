"""How long a video goes on with the old prompt after a switch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from eval.registry import register_scorer
from eval.scorer import Measurement, Skip, Span, Take
from eval.world import LABELS, WorldScorer, labels, wanted
from irope.world.scene import Scene
from irope.world.tracker import Track, action_of

PERIODIC = ("circling", "bouncing")


@register_scorer("switch_latency")
@dataclass(frozen=True)
class SwitchLatency(WorldScorer):
    """Blocks from a prompt switch until the new prompt wins; 0 when the first block already shows it.

    Only what the switch changes counts: the attributes that both prompts name and that differ. A block is won by the
    new prompt when it shows more of them, as the new prompt has them, than as the old one had; the switch is done at
    the first of ``hold`` blocks in a row that are won. A switch that is never done counts with all blocks of its
    segment, and the share of those is ``censored``. The value is the mean over the switches, cuts included;
    ``blocks_1`` is the count of the switch that begins segment 1 (the second one) of the window and ``censored_1``
    whether it was never done, and so on.

    Attributes:
        block: pixel frames of a block, counted from the switch.
        hold: blocks in a row, fewer at the end of the segment.
        period: pixel frames, from the start of the block, in which circling and bouncing are looked for, which need a
            while to be told (a circle takes 44); every other action is judged by the block alone.
    """

    block: int = 12
    hold: int = 2
    period: int = 48

    title: ClassVar[str] = "Switch latency (blocks)"
    better = "lower"
    source: ClassVar[str] = "irope.world.tracker"

    def measure(self, tracked: Track, take: Take, scenes: tuple[Scene, ...]) -> Measurement:
        done = {
            number: self._until(tracked, old, new, span)
            for number, ((old, new), span) in enumerate(zip(pairwise(scenes), take.spans[1:], strict=True), 1)
            if changed(old, new)
        }
        if len(scenes) < 2:
            raise Skip("the video has one prompt")
        if not done:
            raise Skip("no prompt switch changes anything that both prompts name")
        blocks = float(np.mean([count for count, _ in done.values()]))
        censored = float(np.mean([not won for _, won in done.values()]))
        extra = {"frames": blocks * self.block, "censored": censored}
        for number, (count, won) in done.items():
            extra |= {f"blocks_{number}": float(count), f"censored_{number}": float(not won)}
        notes = ("censored switches count with the blocks of their segment: a lower bound",) if censored else ()
        return Measurement(blocks, len(done), None, extra, notes)

    def _until(self, tracked: Track, old: Scene, new: Scene, span: Span) -> tuple[int, bool]:
        """Blocks before the new prompt wins, or all of the segment and False."""
        starts = range(span.start, span.stop, self.block)
        won = [self._won(tracked, old, new, start, span) for start in starts]
        for at in range(len(won)):
            if all(won[at : at + self.hold]):
                return at, True
        return len(won), False

    def _won(self, tracked: Track, old: Scene, new: Scene, start: int, span: Span) -> bool:
        here = slice(start, min(start + self.block, span.stop))
        lead = 0.0
        for name in changed(old, new):
            if name == "action":
                lead += self._acts(tracked, new.action, start, span) - self._acts(tracked, old.action, start, span)
            else:
                seen = labels(tracked, name)[here]
                lead += float((seen == wanted(new, name)).mean() - (seen == wanted(old, name)).mean())
        return lead > 0

    def _acts(self, tracked: Track, action: str, start: int, span: Span) -> bool:
        """Whether the action is seen from frame ``start`` on; at the end of the segment, in the last frames of it."""
        length = self.period if action in PERIODIC else self.block
        first = max(span.start, min(start, span.stop - length))
        return action_of(tracked, first, min(first + length, span.stop)) == action


def changed(old: Scene, new: Scene) -> tuple[str, ...]:
    """What both scenes name and is not the same in both."""
    names = ("action", *LABELS)
    pairs = {name: (getattr(old, name), getattr(new, name)) for name in names}
    return tuple(name for name, (a, b) in pairs.items() if None not in (a, b) and a != b)
