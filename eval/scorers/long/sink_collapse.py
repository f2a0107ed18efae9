"""Sink collapse: the video suddenly falls back to the frames kept in the attention sink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from eval.curves import frames_of
from eval.registry import register_scorer
from eval.scorer import Accumulator, Measurement, Part, Runtime, Scorer, Skip, Take


@register_scorer("sink_collapse")
@dataclass(frozen=True)
class SinkCollapse(Scorer):
    """Largest sudden drop of the normalised L2 distance to the sink frames, 0..1.

    d[t] is the mean L2 distance of the pixels of frame t to each sink frame, divided by its maximum over the video.
    The drop at t is the largest d of the ``within`` seconds before t, minus d[t]; the value is the largest drop. The
    mean over videos is LoL's Sink-Collapse Avg and the largest its Sink-Collapse Max, which LoL prints times 100. LoL
    says neither how suddenly a drop must come nor what it normalises by (its curves end at 1): a second and the maximum
    are ours. A subject that returns to its place, as on a circle, lowers d as well: read it beside `loops`.

    Attributes:
        sink_frames: pixel frames of the sink; 1 is what the first latent frame decodes to, LongLive's three make 9.
        within: seconds in which a drop is sudden.
    """

    sink_frames: int = 1
    within: float = 1.0
    title: ClassVar[str] = "Sink collapse"
    better = "lower"
    family = "long"
    source: ClassVar[str] = "LoL (arXiv 2601.16914), section 4.1"

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        needed = self.sink_frames + frames_of(self.within, take.video.fps)
        if take.frames <= needed:
            raise Skip(f"the sink and a drop take more than {needed} frames, the video has {take.frames}")
        return _SinkCollapse(take, self)


class _SinkCollapse:
    def __init__(self, take: Take, scorer: SinkCollapse) -> None:
        self.take, self.scorer = take, scorer
        self.distance = np.zeros(take.frames)
        self.sink: list[NDArray[np.float32]] = []

    def push(self, part: Part) -> None:
        for at, frame in enumerate(part.frames, part.start):
            pixels = frame.astype(np.float32)
            if at < self.scorer.sink_frames:
                self.sink.append(pixels)
            else:
                self.distance[at] = np.mean([np.linalg.norm((pixels - kept).ravel()) for kept in self.sink])

    def close(self) -> Measurement:
        fps = self.take.video.fps
        curve = self.distance / (self.distance.max() or 1.0)
        curve[: self.scorer.sink_frames] = np.nan
        seen = curve[self.scorer.sink_frames :]
        within = frames_of(self.scorer.within, fps)
        before = sliding_window_view(np.pad(seen, (within, 0))[:-1], within).max(axis=1)
        drop = np.maximum(before - seen, 0)
        at = int(drop.argmax()) + self.scorer.sink_frames
        return Measurement(float(drop.max()), 1, curve, {"at_seconds": at / fps} if drop.max() > 0 else {})
