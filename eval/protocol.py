"""What is cut out of a video and how the pieces become one score. The protocol is part of every score's key.

``whole``: a window of the video is scored as one video. ``clips`` (eval/vbench_long.py): it is cut into short clips,
which are scored one by one and averaged, as VBench-Long does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from eval.one_pass import Scored, one_pass
from eval.reader import VideoReader
from eval.registry import AnyScorer
from eval.scorer import Runtime, Take

CHUNK = 32
"""Frames decoded and held at a time."""


@dataclass(frozen=True)
class Protocol(ABC):
    """A way to score windows of a video; its settings are the fields of the dataclass.

    Attributes:
        kind: name under which a configuration chooses it.
    """

    kind: ClassVar[str]

    def record(self) -> dict[str, Any]:
        """What a score's key holds of the protocol, as JSON types."""
        return {"kind": self.kind, **asdict(self)}

    def unavailable(self, name: str) -> str | None:
        """Why the protocol cannot use a scorer here although that could run by itself; None if it can."""
        return None

    def identity(self, name: str) -> Mapping[str, Any]:
        """What a scorer's numbers depend on besides itself and the settings, such as digests of weights; JSON types."""
        return {}

    @abstractmethod
    def score(
        self,
        video: VideoReader,
        windows: Sequence[Take],
        scorers: Mapping[str, AnyScorer],
        runtime: Runtime,
        report: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Scored]:
        """One `Scored` for each window (its ``take`` is the window), given out as soon as it is known.

        Args:
            report: told how many frames of the video are done.

        Raises:
            ReadError: the video cannot be decoded to the end of a window.
        """


@dataclass(frozen=True)
class Whole(Protocol):
    """Every window is scored as if it were a video of its own."""

    kind: ClassVar[str] = "whole"

    def score(
        self,
        video: VideoReader,
        windows: Sequence[Take],
        scorers: Mapping[str, AnyScorer],
        runtime: Runtime,
        report: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Scored]:
        start, stop = min(w.start for w in windows), max(w.stop for w in windows)
        yield from one_pass(video.chunks(CHUNK, start, stop), windows, scorers, runtime, report)
