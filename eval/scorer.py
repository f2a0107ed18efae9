"""What a scorer is, and what it is given: frames of a take, chunk by chunk, and what others computed of them.

A video is decoded once. Each chunk of frames is handed to the accumulators of every scorer and every take (a frame
window or a clip) that it touches; what several of them need, such as the features of a frame, is computed once a chunk.

Shapes: F frames of a take, n frames of a part, H x W pixels, 3 = RGB.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Rows = NDArray[np.floating[Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """Pixel frames [start, stop) that were to show ``prompt``; ``cut`` says that a scene cut was asked for at start."""

    start: int
    stop: int
    prompt: str
    cut: bool = False


@dataclass(frozen=True)
class VideoFacts:
    """What is known of a video besides its pixels.

    Attributes:
        name: how the video is called in a table and in messages.
        frames: number of frames; ``fps`` frames per second.
        spans: segments with their prompts, in order, without gaps; empty when no prompt is known.
    """

    name: str
    frames: int
    fps: float
    height: int
    width: int
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Take:
    """Frames [start, stop) of a video, scored as if they were a video of their own."""

    video: VideoFacts
    start: int
    stop: int

    @property
    def frames(self) -> int:
        return self.stop - self.start

    @property
    def spans(self) -> tuple[Span, ...]:
        """The segments of the take, their frames counted from its start; a cut on its first frame is none."""
        inside = [span for span in self.video.spans if span.start < self.stop and span.stop > self.start]
        return tuple(
            Span(
                max(0, span.start - self.start),
                min(self.stop, span.stop) - self.start,
                span.prompt,
                span.cut and span.start > self.start,
            )
            for span in inside
        )


@dataclass(frozen=True)
class Runtime:
    """Where and how networks run: ``batch`` pictures at a time; half precision is never the default."""

    device: str = "cpu"
    precision: Literal["float32", "half"] = "float32"
    batch: int = 16


class Chunk:
    """Consecutive frames of a video, uint8 [n, H, W, 3], and what was computed of them so far."""

    def __init__(self, start: int, frames: Frames) -> None:
        self.start, self.frames = start, frames
        self._rows: dict[Any, Any] = {}

    @property
    def stop(self) -> int:
        return self.start + len(self.frames)

    def rows(self, key: Any, make: Callable[[Frames], T]) -> T:
        """``make(frames)``, one row a frame, computed for the first who asks under ``key``."""
        if key not in self._rows:
            self._rows[key] = make(self.frames)
        found: T = self._rows[key]
        return found


class Pairs:
    """Results of frame pairs (indices of the video), kept while a later take may still ask for them."""

    def __init__(self) -> None:
        self._found: dict[tuple[Any, int, int], Any] = {}

    def get(self, key: Any, first: int, second: int) -> Any | None:
        return self._found.get((key, first, second))

    def put(self, key: Any, first: int, second: int, result: Any) -> None:
        self._found[key, first, second] = result

    def forget(self, before: int) -> None:
        """Drop pairs that end before this frame."""
        self._found = {key: result for key, result in self._found.items() if key[2] >= before}


@dataclass(frozen=True)
class Part:
    """The frames that a chunk and a take have in common."""

    chunk: Chunk
    take: Take
    pairs: Pairs

    @property
    def _inside(self) -> slice:
        first = max(self.chunk.start, self.take.start) - self.chunk.start
        return slice(first, min(self.chunk.stop, self.take.stop) - self.chunk.start)

    @property
    def start(self) -> int:
        """Index of the first frame, counted from the start of the take."""
        return self.chunk.start + self._inside.start - self.take.start

    @property
    def frames(self) -> Frames:
        """uint8 [n, H, W, 3]; a view, valid until the next chunk: copy what is to be kept."""
        return self.chunk.frames[self._inside]

    def rows(self, key: Any, make: Callable[[Frames], Any]) -> Any:
        """Rows of the part, n of them, from one computation on the whole chunk; ``key`` names it and its settings."""
        return self.chunk.rows(key, make)[self._inside]


@dataclass(frozen=True)
class Measurement:
    """What one scorer says of one take.

    Attributes:
        value: the score as tables show it; NaN is not allowed: raise `Skip` instead.
        terms: how many terms the mean was taken over, the weight of the take in a frame-weighted mean.
        curve: F values, one a frame, NaN where a frame has none; None if the score has no course in time.
        extra: further numbers of the same measurement, by name.
        notes: what a reader of the number must know.
    """

    value: float
    terms: int = 1
    curve: Rows | None = None
    extra: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Skip(Exception):  # noqa: N818 - an answer, not an error
    """A scorer has no number for this take; the text follows "skipped, because"."""


class Accumulator(Protocol):
    """Takes the parts of one take in order; holds a bounded amount of memory, whatever the length of the take."""

    def push(self, part: Part) -> None: ...

    def close(self) -> Measurement:
        """The result, after the last part. Raises Skip if there is none."""
        ...


@dataclass(frozen=True)
class Measure(ABC):
    """A measure of videos; its settings are the fields of the dataclass.

    Attributes:
        name: under which it is registered and stored.
        title: column heading.
        better: whether a higher or a lower value is better; None for a measure that ranks nothing, such as motion.
        family: ``vbench``, ``embedded``, ``world`` (the embedded model's videos only) or ``long``.
        source: paper or code of the definition.
        pooled: how single-process VBench averages over videos: by ``videos``, or weighted by ``frames``.
        rate: True where the value of a video is 0 or 1.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    better: ClassVar[Literal["higher", "lower"] | None] = "higher"
    family: ClassVar[Literal["vbench", "embedded", "world", "long"]]
    source: ClassVar[str] = ""
    pooled: ClassVar[Literal["videos", "frames"]] = "videos"
    rate: ClassVar[bool] = False

    def unavailable(self) -> str | None:
        """Why this cannot run here (a package or weights missing, and how to get them), or None."""
        return None

    def identity(self) -> Mapping[str, Any]:
        """Besides the settings, what its numbers depend on: digests of weights, versions of packages; JSON types."""
        return {}


@dataclass(frozen=True)
class Scorer(Measure):
    """A measure taken from the frames."""

    @abstractmethod
    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        """Begin a take. Raises Skip where the take cannot be scored (one frame, no prompt)."""


@dataclass(frozen=True)
class Derived(Measure):
    """A measure computed from what other scorers found of the same take."""

    family = "long"

    @property
    @abstractmethod
    def of(self) -> Sequence[str]:
        """Names of the scorers whose measurements it needs."""

    @abstractmethod
    def derive(self, take: Take, found: Mapping[str, Measurement]) -> Measurement:
        """The measurement; ``found`` holds every scorer named in `of`. Raises Skip where the take has none."""
