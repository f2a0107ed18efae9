"""The one-pass reader: a video is decoded once, in chunks, ahead of the models that score it.

Memory is that of a few chunks, whatever the length of the video. Decoding runs in one background thread and FFmpeg
holds no lock of Python's, so that it overlaps with the networks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from eval.decoders import Clip, Decoder, ReadError, decode_decord, decode_pyav, decord_notes, has_decord, inspect
from irope.errors import UserError

__all__ = ["BACKENDS", "ReadError", "VideoReader", "open_video"]

BACKENDS: dict[str, Decoder] = {"pyav": decode_pyav, "decord": decode_decord}
PREFETCH = 2
"""Chunks decoded ahead of the consumer."""


def open_video(path: Path, backend: str = "auto", allow_truncated: bool = False) -> VideoReader:
    """Open a video to score it.

    Args:
        path: any file FFmpeg reads: mp4, mkv, webm, gif, ...
        backend: `pyav`, `decord` (decord 0.6 or decord2), or `auto`, which is PyAV: it gives OpenCV's pixels for every
            format, reports damage, is faster, and its memory does not depend on the consumer (see `eval.decoders`).
        allow_truncated: read the frames of a file that is cut short, with a note, instead of refusing it.

    Raises:
        ReadError: the file cannot be scored; the message says why.
        UserError: unknown backend, or one that is not installed.
    """
    name = "pyav" if backend == "auto" else backend
    if name not in BACKENDS:
        near = get_close_matches(name, ["auto", *BACKENDS], 1, 0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"no reader backend {name!r} (there are auto, {', '.join(BACKENDS)}){hint}")
    if name == "decord" and not has_decord():
        raise UserError("backend 'decord' is not installed: pip install decord (or decord2), or take backend=pyav")
    clip = inspect(Path(path), allow_truncated)
    if name == "decord":
        if clip.rotation:
            raise ReadError(clip.path, "decord cannot read rotated video: take backend=pyav")
        clip = replace(clip, notes=clip.notes + decord_notes(clip))
    return VideoReader(clip, name)


class VideoReader:
    """An open video; made by `open_video`.

        with open_video(path) as video:
            for first, frames in video.chunks(stop=80):
                ...   # frames first, first + 1, ...: uint8 [n, H, W, 3], RGB

    Attributes:
        path, backend: what is read and by which decoder.
        frames: number of decodable frames.
        fps: average frames per second.
        height, width: of the frames as shown, after rotation.
        notes: warnings to show beside a score, such as a variable frame rate.
    """

    def __init__(self, clip: Clip, backend: str) -> None:
        self.path: Path = clip.path
        self.backend = backend
        self.frames: int = clip.frames
        self.fps: Fraction = clip.fps
        self.height: int = clip.height
        self.width: int = clip.width
        self.notes: tuple[str, ...] = clip.notes
        self._clip = clip
        self._closed = False
        self._pools: set[ThreadPoolExecutor] = set()

    def chunks(
        self, size: int = 32, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Frames [start, stop) in order: pairs of the index of the first frame and uint8 [n, H, W, 3], n <= size.

        At most `PREFETCH` chunks are decoded ahead. Every call decodes anew.

        Raises:
            ValueError: a window that is not within [0, frames], or a closed reader.
            ReadError: while iterating, for a damaged frame.
        """
        stop = self.frames if stop is None else stop
        if size < 1 or not 0 <= start <= stop <= self.frames:
            raise ValueError(f"no window [{start}, {stop}) by {size} in a video of {self.frames} frames")
        return self._ahead(BACKENDS[self.backend](self._clip, size, start, stop))

    def _ahead(
        self, source: Generator[tuple[int, NDArray[np.uint8]], None, None]
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The items of `source`, each made in the background while the consumer works on the one before."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._pools.add(pool)
        try:
            self._check_open()
            pending = deque(pool.submit(next, source, None) for _ in range(PREFETCH))
            while (item := pending.popleft().result()) is not None:
                pending.append(pool.submit(next, source, None))
                yield item
                self._check_open()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            self._pools.discard(pool)
            source.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.path} was closed")

    def close(self) -> None:
        """Stop decoding; an iteration that is under way raises ValueError."""
        self._closed = True
        for pool in list(self._pools):
            pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
