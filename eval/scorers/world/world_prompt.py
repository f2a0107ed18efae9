"""Does the video show what its prompts say?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eval.registry import register_scorer
from eval.scorer import Measurement, Take
from eval.world import LABELS, WINDOW, WorldScorer, labels, wanted, windows
from irope.world.scene import Scene
from irope.world.tracker import Agreement, Track, agreement

PARTS = ("color", "shape", "action", "background", "pattern")
"""What a prompt says; each counts the same, the last two only where the prompt names them."""


@register_scorer("world_prompt")
@dataclass(frozen=True)
class WorldPrompt(WorldScorer):
    """Agreement of the tracked video with the prompt of each segment, 0..1.

    Of every window of `eval.world.WINDOW` seconds: the share of frames of the right colour, shape, background and
    pattern, and whether the action is the right one; their mean, then the mean over the windows of a segment, then over
    the segments. The extras are the same means of each part alone, and of ``visible`` and ``iou``. The curve is the
    share of parts that each frame gets right, the action that of its window.
    """

    title: ClassVar[str] = "Prompt"
    source: ClassVar[str] = "irope.world.tracker"

    def measure(self, tracked: Track, take: Take, scenes: tuple[Scene, ...]) -> Measurement:
        curve = np.full(take.frames, np.nan)
        segments = []
        for span, scene in zip(take.spans, scenes, strict=True):
            found = []
            for window in windows([span], take.video.fps):
                found.append(_said(agreement(tracked, scene, window.start, window.stop)))
                here = slice(window.start, window.stop)
                right = [labels(tracked, n)[here] == wanted(scene, n) for n in LABELS if wanted(scene, n) is not None]
                action = np.full(window.stop - window.start, found[-1]["action"])
                curve[here] = np.mean([*right, action], axis=0)
            segments.append({name: float(np.mean([said[name] for said in found])) for name in found[0]})
        extra = {
            name: float(np.mean([said[name] for said in segments if name in said]))
            for name in (*PARTS, "visible", "iou")
            if any(name in said for said in segments)
        }
        value = np.mean([np.mean([said[name] for name in PARTS if name in said]) for said in segments])
        notes = (f"windows of {WINDOW:g} s",)
        return Measurement(float(value), len(segments), curve, extra, notes)


def _said(agreed: Agreement) -> Mapping[str, float]:
    found = {name: getattr(agreed, name) for name in (*PARTS, "visible", "iou")}
    return {name: value for name, value in found.items() if value is not None}
