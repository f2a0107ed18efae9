"""Does each segment show what its own prompt says, and how soon after a switch?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from eval.curves import Curve, frames_of
from eval.features import feature_rows, features_identity, features_missing, text_rows
from eval.registry import register_scorer
from eval.scorer import Accumulator, Measurement, Part, Runtime, Scorer, Skip, Span, Take

_TEXT = 1e-12


@register_scorer("segment_alignment")
@dataclass(frozen=True)
class SegmentAlignment(Scorer):
    """CLIP score of each segment with its own prompt: cosine of frame and text features (ViT-B/32), mean over frames.

    The value is the mean over segments; ``segment_1``, ``segment_2`` and so on are those of each. LongLive prints them
    times 100, for segments of 10 s. After a switch to another prompt, ``switch_latency_seconds`` is the time until the
    new prompt fits the next half second better than the old one does, a mean over the switches where that happens
    before the segment ends, and ``switched`` the share of those (both are ours).
    """

    title: ClassVar[str] = "Segment alignment"
    family = "long"
    source: ClassVar[str] = "LongLive (arXiv 2509.22622), CLIP score per 10 s segment"

    def unavailable(self) -> str | None:
        return features_missing("clip")

    def identity(self) -> Mapping[str, Any]:
        return features_identity("clip")

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        if not take.spans or not all(span.prompt.strip() for span in take.spans):
            raise Skip("the prompts of its segments are not known")
        return _Alignment(take, runtime)


class _Alignment:
    """Cosine of every frame with the prompt of its segment and with that of the segment before."""

    def __init__(self, take: Take, runtime: Runtime) -> None:
        self.take, self.runtime = take, runtime
        texts, self.cut = text_rows([span.prompt for span in take.spans], runtime)
        texts = texts.astype(np.float64)
        self.texts = texts / np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), _TEXT)
        self.own, self.old = np.full((2, take.frames), np.nan)

    def push(self, part: Part) -> None:
        rows = feature_rows(part, "clip", self.runtime).astype(np.float64)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TEXT)
        for number, span in enumerate(self.take.spans):
            start, stop = max(span.start, part.start), min(span.stop, part.start + len(rows))
            if start < stop:
                inside = rows[start - part.start : stop - part.start]
                self.own[start:stop] = np.einsum("nd,d->n", inside, self.texts[number])
                if number:
                    self.old[start:stop] = np.einsum("nd,d->n", inside, self.texts[number - 1])

    def close(self) -> Measurement:
        spans, fps = self.take.spans, self.take.video.fps
        means = [float(self.own[span.start : span.stop].mean()) for span in spans]
        extra = {f"segment_{number}": value for number, value in enumerate(means, 1)}
        switches = [after for before, after in pairwise(spans) if before.prompt != after.prompt]
        latencies = [latency(self.own - self.old, span, frames_of(0.5, fps)) for span in switches]
        known = [found / fps for found in latencies if found is not None]
        if switches:
            extra["switched"] = len(known) / len(switches)
        if known:
            extra["switch_latency_seconds"] = float(np.mean(known))
        notes = ("CLIP reads 75 tokens of a prompt; the rest was cut off",) if any(self.cut) else ()
        return Measurement(float(np.mean(means)), len(means), self.own, extra, notes)


def latency(advantage: Curve, span: Span, size: int) -> int | None:
    """Frames after the start of a segment from which the mean of the next ``size`` values is positive, or None."""
    inside = advantage[span.start : span.stop]
    size = min(size, len(inside))
    sums = np.convolve(inside, np.ones(size), mode="valid")
    positive = np.flatnonzero(sums > 0)
    return int(positive[0]) if len(positive) else None
