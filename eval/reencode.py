"""Frames through a lossy H.264 encoding and back, as VBench-Long does to every clip before it scores it.

It writes clips with torchvision.io.write_video: libx264 with its defaults, 4:2:0, and a quality that nobody chose. PyAV
before 14.2 asked for 1,024,000 bit/s, later versions for nothing, which is x264's CRF 23. Both make a video smoother
than it was; docs/vbench-long.md has the numbers.

Frames are uint8 [n, H, W, 3], RGB.
"""

from __future__ import annotations

import errno
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from types import TracebackType
from typing import IO, Literal, Self

import av
import numpy as np

from eval.scorer import Frames
from irope.video import VideoError

Codec = Literal["crf23", "1mbit", "crf0"]
"""``crf0`` loses only what the conversion to 4:2:0 does: the share of the bias that is not x264's."""

_BITS = 1_024_000
_CRF = {"crf23": "23", "crf0": "0"}

# With AVX-512 the x264 in PyAV 18.1 gives another file on every run (its macroblock tree; flickering moved by 5e-6).
# Every x86-64 CPU that runs torch has SSSE3; from there to AVX2 the files are equal, and encoding takes as long.
SAME_ON_EVERY_RUN = {"x264-params": "asm=SSSE3"} if platform.machine() in ("x86_64", "AMD64") else {}


class Reencoded:
    """Write frames, then read them back once as `chunks`; they lie in a temporary file without a name meanwhile.

        with Reencoded("crf23", fps=16) as copy:
            copy.write(frames)
            for start, frames in copy.chunks(32):
                ...

    One thread encodes: the same frames give the same copy, however many cores there are.

    Args:
        fps: of the file, a whole number; the rate control of ``1mbit`` depends on it.

    Raises:
        VideoError: the folder for temporary files is full or cannot be written; the sides of the picture are odd.
    """

    def __init__(self, codec: Codec, fps: int) -> None:
        self.fps, self.frames = fps, 0
        with _reported():
            self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
            self._container = av.open(self._file, "w", format="mp4")
            options = SAME_ON_EVERY_RUN | ({"crf": _CRF[codec]} if codec in _CRF else {})
            self._stream = self._container.add_stream("libx264", rate=fps, options=options)
        self._stream.pix_fmt = "yuv420p"
        self._stream.thread_count = 1
        if codec == "1mbit":
            self._stream.bit_rate = _BITS

    def write(self, frames: Frames) -> None:
        """Append frames, all of one size, both sides even."""
        height, width = frames.shape[1:3]
        if height % 2 or width % 2:
            raise VideoError(errno.EINVAL, f"{width}x{height} cannot be encoded in 4:2:0, both sides must be even")
        for picture in frames:
            if not self.frames:
                self._stream.height, self._stream.width = height, width
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = self.frames, Fraction(1, self.fps)
            self.frames += 1
            with _reported():
                self._container.mux(self._stream.encode(frame))

    def chunks(self, size: int, start: int = 0) -> Iterator[tuple[int, Frames]]:
        """(index of the first frame, counted from ``start``; at most ``size`` frames) of what was written."""
        with _reported():
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._file.seek(0)
        pending: list[Frames] = []
        done = start
        with av.open(self._file, "r") as container:
            for frame in container.decode(video=0):
                pending.append(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
                if len(pending) == size:
                    yield done, np.stack(pending)
                    done, pending = done + size, []
        if pending:
            yield done, np.stack(pending)
        if done + len(pending) != start + self.frames:
            raise VideoError(errno.EIO, f"{done + len(pending) - start} of {self.frames} encoded frames came back")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        where = tempfile.gettempdir()
        number = getattr(error, "errno", None) or errno.EIO
        raise VideoError(number, f"re-encoding failed: {error}; TMPDIR chooses another folder", where) from error
