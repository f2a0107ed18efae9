"""A video in memory, and VBench-Long as a slow reference written from the description of the official tool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from eval.scorer import Derived, Frames, Measurement, Part, Runtime, Scorer, Span, Take, VideoFacts
from eval.scorers.consistency import ConsistencyTerms
from eval.scorers.vbench.temporal_flickering import TemporalFlickering
from eval.vbench_long import Clips

FLICKER = {"temporal_flickering": TemporalFlickering()}


def noise(frames: int, height: int = 6, width: int = 8, seed: int = 0) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


def pan(frames: int, height: int = 96, width: int = 128, seed: int = 0) -> Frames:
    """A textured picture that moves, with the noise of a camera: what a video encoder smooths."""
    rng = np.random.default_rng(seed)
    texture = np.kron(rng.uniform(0, 255, (height // 8, (width + 2 * frames) // 8 + 1, 1)), np.ones((8, 8, 3)))
    moved = np.stack([texture[:, 2 * i : 2 * i + width] for i in range(frames)])
    return np.clip(moved + rng.normal(0, 4, moved.shape), 0, 255).astype(np.uint8)


@dataclass
class Video:
    """Stands for a VideoReader; counts the frames that are read."""

    pixels: Frames
    fps: float = 16.0
    path: Path = Path("video")
    read: int = 0

    def chunks(self, size: int = 32, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Frames]]:
        for first in range(start, len(self.pixels) if stop is None else stop, size):
            frames = self.pixels[first : min(first + size, len(self.pixels) if stop is None else stop)]
            self.read += len(frames)
            yield first, frames

    def take(self, start: int = 0, stop: int | None = None, name: str = "video") -> Take:
        frames, height, width = self.pixels.shape[:3]
        facts = VideoFacts(name, frames, self.fps, height, width, (Span(0, frames, "a prompt"),))
        return Take(facts, start, frames if stop is None else stop)


def score(video: Video, protocol: Clips, scorers: Mapping[str, Scorer | Derived], *windows: Take):
    takes = windows or (video.take(),)
    found = {done.take: done.outcomes for done in protocol.score(video, takes, scorers, Runtime())}  # type: ignore[arg-type]
    assert found.keys() == set(takes)
    return [found[take] for take in takes]


# The reference: the steps of metrics.md, one after the other, on arrays.


def cut(frames: Frames, segment: int) -> list[Frames]:
    if len(frames) < segment:
        return [frames]
    count, remaining = divmod(len(frames), segment)
    pieces = [frames[i * segment : (i + 1) * segment] for i in range(count)]
    if remaining:
        begin = count * segment - (segment - remaining)
        pieces.append(frames[begin:])
    return pieces


def flickering(frames: Frames) -> float:
    wide = frames.astype(np.float64)
    return float(np.mean([1 - np.abs(b - a).mean() / 255 for a, b in pairwise(wide)]))


def features(frames: Frames) -> np.ndarray:
    return frames.reshape(len(frames), -1)[:, ::5].astype(np.float64) - 100


def consistency(frames: Frames) -> float:
    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return max(0.0, float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))

    rows = features(frames)
    return float(np.mean([(cosine(rows[i - 1], rows[i]) + cosine(rows[0], rows[i])) / 2 for i in range(1, len(rows))]))


@dataclass(frozen=True)
class Consistency(Scorer):
    """The formula on pixels; remembers which takes it was opened for."""

    family = "vbench"
    opened: list[Take] = field(default_factory=list, compare=False)

    def open(self, take: Take, runtime: Runtime):
        self.opened.append(take)
        return _Consistency(take.frames)


class _Consistency:
    def __init__(self, frames: int) -> None:
        self.terms = ConsistencyTerms(frames)

    def push(self, part: Part) -> None:
        self.terms.push(part.rows("pixels", features))

    def close(self) -> Measurement:
        return self.terms.close()
