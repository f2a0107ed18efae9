"""What the tracker sees on both sides of the scene cuts of a take."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from eval.scorer import Measurement, Skip, Take
from eval.world import labels, wanted
from irope.world.scene import Scene
from irope.world.tracker import Track


def at_cuts(
    tracked: Track, take: Take, scenes: tuple[Scene, ...], frames: int, names: tuple[str, ...], *, changed: bool
) -> Measurement:
    """How far the labels ``names`` stay, or change, at the cuts whose prompts have them the same, or different.

    Compared are the ``frames`` on either side of a cut, fewer in a short segment: the commonest label before with that
    of every frame after. Raises Skip when no cut has such a label.
    """
    if not any(span.cut for span in take.spans):
        raise Skip("no cut was asked for")
    cuts: list[float] = []
    asked: list[float] = []
    alone: dict[str, list[float]] = {name: [] for name in names}
    unseen = 0
    for (before, after), (old, new) in zip(pairwise(take.spans), pairwise(scenes), strict=True):
        if not after.cut:
            continue
        found = []
        for name in names:
            first, second = wanted(old, name), wanted(new, name)
            if first is None or second is None or (first != second) != changed:
                continue
            seen = labels(tracked, name)[max(before.start, before.stop - frames) : before.stop]
            seen = seen[seen >= 0]
            if not len(seen):
                unseen += 1
                continue
            then = labels(tracked, name)[after.start : min(after.stop, after.start + frames)]
            same = float((then == np.bincount(seen).argmax()).mean())
            found.append(1 - same if changed else same)
            alone[name].append(found[-1])
            asked.append(float((then == second).mean()))
        if found:
            cuts.append(float(np.mean(found)))
    if not cuts:
        verb = "changes" if changed else "keeps"
        why = "no subject was seen before any" if unseen else f"no prompt {verb} the {' or the '.join(names)} at any"
        raise Skip(f"{why} scene cut")
    extra = {name: float(np.mean(values)) for name, values in alone.items() if values}
    notes = (f"{unseen} attributes left out: no subject before the cut",) if unseen else ()
    return Measurement(float(np.mean(cuts)), len(cuts), None, extra | {"as_asked": float(np.mean(asked))}, notes)
