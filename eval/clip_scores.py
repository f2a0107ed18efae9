"""From the scores of clips to the score of a window: how VBench-Long fuses its slow and its fast branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.mapping import mapped, tables
from eval.one_pass import Outcome
from eval.scorer import Measurement, Rows, Skip, Take


@dataclass(frozen=True)
class Scene:
    """What one scorer says of a long video: of each of its clips, and of their first frames (``fast``), if asked."""

    clips: Sequence[Take]
    slow: Sequence[Outcome]
    fast: Outcome | None = None


def window_score(window: Take, name: str, scenes: Sequence[Scene], weight: float, mapping: bool) -> Outcome:
    """The measurement of a window that consists of ``scenes``; what it holds is said in `eval.vbench_long.Clips.score`.

    Args:
        name: of the scorer; those that `eval.mapping.tables` names have a fast branch.
        weight: of the fast branch, from 0 to 1.
        mapping: whether the fast branch's value goes through the table before it is weighted.
    """
    skips = [outcome for scene in scenes for outcome in scene.slow if isinstance(outcome, Skip)]
    count = sum(len(scene.clips) for scene in scenes)
    if len(skips) == count:
        return skips[0]
    slow: list[Measurement] = []
    fast: list[Measurement] = []
    scores: list[float] = []
    far: list[float] = []  # the mapped fast score of each clip that has one
    curve = np.full(window.frames, np.nan)
    for scene in scenes:
        if isinstance(scene.fast, Skip) and weight > 0:
            return Skip(f"clip to clip: {scene.fast}")
        between = scene.fast if isinstance(scene.fast, Measurement) else None
        if between is not None:
            fast.append(between)
        for clip, outcome in zip(scene.clips, scene.slow, strict=True):
            if isinstance(outcome, Skip):
                continue
            slow.append(outcome)
            if between is not None:
                far.append(mapped(name, between.value))
            scores.append(fused(name, outcome.value, between, weight, mapping))
            _fill(curve, window, clip, scores[-1])
    extra = _means(slow) | {"clips": float(len(slow))}
    if name in tables():
        extra["inclip"] = float(np.average([m.value for m in slow], weights=[m.terms for m in slow]))
    if fast:
        extra["clip2clip"] = float(np.average([m.value for m in fast], weights=[m.terms for m in fast]))
        extra["mapped_clip2clip"] = float(np.mean(far))
    notes = [note for m in [*slow, *fast] for note in m.notes]
    notes += [f"{len(skips)} of {count} clips have no value: {skips[0]}"] if skips else []
    return Measurement(float(np.mean(scores)), sum(m.terms for m in slow), curve, extra, tuple(dict.fromkeys(notes)))


def fused(name: str, inclip: float, fast: Measurement | None, weight: float, mapping: bool) -> float:
    """The score of a clip: its own, weighted with the fast score of its video.

    A video of one clip has no fast score. The official tool cannot tell that from a fast score that is mapped to 0, and
    takes the in-clip score alone there, too.
    """
    if fast is None or weight == 0:
        return inclip
    between = mapped(name, fast.value) if mapping else fast.value
    return inclip if mapping and between == 0 else (1 - weight) * inclip + weight * between


def _fill(curve: Rows, window: Take, clip: Take, score: float) -> None:
    """The score at every frame of the clip that no earlier clip holds."""
    here = curve[clip.start - window.start : clip.stop - window.start]
    here[np.isnan(here)] = score


def _means(found: Sequence[Measurement]) -> dict[str, float]:
    """Means over clips of those further numbers that every clip has."""
    shared = [key for key in found[0].extra if all(key in m.extra for m in found)]
    return {key: float(np.mean([m.extra[key] for m in found])) for key in shared}
