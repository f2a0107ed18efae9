"""Frames to video files and back.

A video is written while it is generated: an H.264 mp4 to look at and, if asked for, a lossless companion (FFV1 in mkv)
that scores are made from. Both are written as closed chunks in a folder of their own, one per checkpoint, and joined
without encoding again, so that a killed run continues at its last checkpoint and ends with the same bytes. Nothing is
visible under the final name before it is complete. What is being written has a random name: a process that hung while
another took over its folder cannot hit a file of the other.

Frames are uint8 [n, H, W, 3], RGB.
"""

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, cast

import av
import av.container
import numpy as np
from numpy.typing import NDArray

from irope.errors import UserError
from irope.lettering import strip_height, text_strip

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

Frames = NDArray[np.uint8]

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EFBIG: "the file is too large for this file system or for ulimit -f",
    errno.EACCES: "permission denied: choose another results folder, or change its rights",
    errno.EROFS: "the file system is read-only: choose another results folder",
    errno.ENOTDIR: "part of the path is a file, not a folder: choose another results folder",
    errno.ENOENT: "no such file",
}
MENDABLE = frozenset(_ADVICE)  # what is on disk already is good, and the same command can continue


class VideoError(UserError, OSError):
    """A video file cannot be written or read; the message names the file and what to do."""


class Codec(NamedTuple):
    """How a stream is written. All of them are deterministic: one thread, no time stamps, no random numbers."""

    suffix: str
    container: str
    encoder: str
    pixels: str
    options: dict[str, str]


# "superfast" has no macroblock tree, by which x264 may write other bytes on every run (eval/reencode.py).
# No B-frames: frames are stored in the order they are shown, so that chunks of any length join without a gap in time.
H264 = Codec(".mp4", "mp4", "libx264", "yuv420p", {"crf": "18", "preset": "superfast", "bf": "0"})
FFV1 = Codec(".mkv", "matroska", "ffv1", "bgr0", {"level": "3", "slicecrc": "1"})


@dataclass(frozen=True)
class Progress:
    """What is safely on disk: closed chunks, the frames in them, and the hash chain of those frames (hex)."""

    chunks: int = 0
    frames: int = 0
    hash: str = ""

    def to_json(self) -> dict[str, int | str]:
        """As JSON types; `Progress(**data)` reads it back."""
        return asdict(self)


def frame_hash(frames: Frames, previous: str = "") -> str:
    """Hash chain over frames: h = sha256(previous h || bytes of the frame), one link a frame, in hex."""
    for frame in frames:
        previous = hashlib.sha256(bytes.fromhex(previous) + frame.tobytes()).hexdigest()
    return previous


class VideoWriter:
    """Writes one video as it is generated.

        with VideoWriter(path, fps=16) as writer:
            for frames in rollout:
                writer.write(frames)
                saved = writer.checkpoint()   # from here `VideoWriter(path, fps=16, resume=saved)` continues
            writer.finish()

    Args:
        path: the mp4 that is made; the lossless companion has the same name with .mkv.
        fps: frames per second.
        scale: nearest-neighbour enlargement of the mp4, for small pictures.
        subtitles: puts a strip below the picture of the mp4, for the text given to `write`.
        lossless: also write the frames as they are.
        resume: continue after this progress; everything else in the folder of the chunks is dropped.
        parts: folder for the chunks, on the same file system, in one that exists; `<name>.parts` unless given.

    Leaving the `with` block without `finish` keeps the closed chunks and nothing else.
    Raises VideoError (an OSError) for everything the file system refuses.
    """

    def __init__(
        self,
        path: Path,
        fps: int,
        scale: int = 1,
        subtitles: bool = False,
        lossless: bool = False,
        resume: Progress | None = None,
        parts: Path | None = None,
    ) -> None:
        if fps < 1 or scale < 1:
            raise ValueError(f"fps and scale must be at least 1, got fps={fps}, scale={scale}")
        self.path, self.fps, self.scale, self.subtitles = path, fps, scale, subtitles
        self.parts = parts or path.with_name(path.stem + ".parts")
        self.codecs = (H264, FFV1) if lossless else (H264,)
        self.saved = resume or Progress()
        self._frames, self._hash = self.saved.frames, self.saved.hash
        self._shape: tuple[int, ...] | None = None
        self._open: list[_Chunk] = []
        with _reported(self.parts):
            self.parts.mkdir(parents=parts is None, exist_ok=True)
            self._prepare()

    def _prepare(self) -> None:
        """Keep the chunks that `saved` counts, drop every other file an earlier run left."""
        keep = set(_chunk_names(self.saved.chunks, self.codecs))
        for file in self.parts.iterdir():
            if file.name not in keep:
                file.unlink()
        if missing := [name for name in sorted(keep) if not (self.parts / name).exists()]:
            raise VideoError(
                errno.ENOENT, f"cannot continue: {', '.join(missing)} is gone; start this video again", str(self.parts)
            )

    def write(self, frames: Frames, subtitle: str | None = None) -> None:
        """Append frames, uint8 [n, H, W, 3]; all of one size. ValueError for another shape or type."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(f"frames must be uint8 [n, H, W, 3], got {frames.dtype} {list(frames.shape)}")
        if self._shape not in (None, frames.shape[1:]):
            raise ValueError(f"all frames of a video have one size: {self._shape}, now {frames.shape[1:]}")
        if not len(frames):
            return
        self._shape = frames.shape[1:]
        if not self._open:
            for codec in self.codecs:
                self._open.append(_Chunk(self._chunk_path(codec, self.saved.chunks), codec, self.fps))
        for frame in frames:
            for chunk in self._open:
                chunk.encode(self._display(frame, subtitle) if chunk.codec is H264 else frame)
        self._frames += len(frames)
        self._hash = frame_hash(frames, self._hash)

    def checkpoint(self) -> Progress:
        """Close the current chunk, so that all frames so far survive a kill; returns where to continue."""
        for chunk in self._open:
            chunk.close()
        self.saved = Progress(self.saved.chunks + bool(self._open), self._frames, self._hash)
        self._open = []
        return self.saved

    def finish(self, keep_chunks: bool = False, check: Callable[[], None] = lambda: None) -> Progress:
        """Join the chunks under the final names. VideoError if there is no frame, or one is missing.

        With `keep_chunks` an earlier checkpoint stays valid until `clean`: for a caller who has more to write before
        the video counts as done, and may be killed before that. `check` is called right before the files get their
        names; what it raises prevents that.
        """
        done = self.checkpoint()
        if not done.frames:
            raise VideoError(errno.EINVAL, "no frame was written", str(self.path))
        finals = [self.path.with_suffix(codec.suffix) for codec in self.codecs]
        for codec, final in zip(self.codecs, finals, strict=True):
            parts = [self._chunk_path(codec, number) for number in range(done.chunks)]
            _join(parts, self.parts / final.name, codec, self.fps, done.frames)
        check()
        for final in reversed(finals):  # the mp4 last: where it is, all is
            with _reported(final):
                (self.parts / final.name).replace(final)
        if not keep_chunks:
            self.clean()
        return done

    def clean(self) -> None:
        """Remove the chunks, and with them the way back to a checkpoint."""
        with _reported(self.parts):
            shutil.rmtree(self.parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for chunk in self._open:
            chunk.drop()
        self._open = []

    def _chunk_path(self, codec: Codec, number: int) -> Path:
        return self.parts / f"{number:05d}{codec.suffix}"

    def _display(self, frame: Frames, subtitle: str | None) -> Frames:
        """The frame as it is looked at: enlarged, with its strip, both sides even as 4:2:0 needs them."""
        shown = frame.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
        height, width = shown.shape[:2]
        shown = np.pad(shown, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self.subtitles:
            width = shown.shape[1]
            strip = text_strip(subtitle, width) if subtitle else np.zeros((strip_height(width), width, 3), np.uint8)
            shown = np.concatenate([shown, strip])
        return np.ascontiguousarray(shown)


def missing_chunks(parts: Path, chunks: int, lossless: bool) -> bool:
    """Whether a chunk that a checkpoint counts is not in its folder."""
    codecs = (H264, FFV1) if lossless else (H264,)
    return not all((parts / name).exists() for name in _chunk_names(chunks, codecs))


def _chunk_names(chunks: int, codecs: Sequence[Codec]) -> list[str]:
    return [f"{number:05d}{codec.suffix}" for codec in codecs for number in range(chunks)]


class _Chunk:
    """One file being encoded; it gets its name when it is closed."""

    def __init__(self, path: Path, codec: Codec, fps: int) -> None:
        self.path, self.codec, self.fps, self.count = path, codec, fps, 0
        with _reported(path):
            self.file, self.container = _create(path, codec)
            stream = self.container.add_stream(codec.encoder, rate=fps, options=codec.options)
        self.stream = cast(av.VideoStream, stream)
        self.stream.pix_fmt = codec.pixels
        self.stream.thread_count = 1  # the same bytes on every machine

    def encode(self, picture: Frames) -> None:
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        if not self.count:
            self.stream.height, self.stream.width = picture.shape[:2]
        frame.pts, frame.time_base = self.count, Fraction(1, self.fps)
        self.count += 1
        with _reported(self.path):
            self.container.mux(self.stream.encode(frame))
        self.file.raise_interrupt()

    def close(self) -> None:
        with _reported(self.path):
            self.container.mux(self.stream.encode(None))
            _publish(self.file, self.container, self.path)

    def drop(self) -> None:
        _discard(self.file, self.container)


def _join(parts: list[Path], path: Path, codec: Codec, fps: int, frames: int) -> None:
    """Copy the packets of the chunks into one file; time goes on by whole frames."""
    with _reported(path):
        file, container = _create(path, codec)
        try:
            stream, before = None, 0
            for part in parts:
                with av.open(part) as source:
                    video = source.streams.video[0]
                    stream = stream or container.add_stream_from_template(video)
                    count = 0
                    for packet in source.demux(video):
                        if packet.dts is None or packet.pts is None or packet.time_base is None:
                            continue  # demux ends with an empty packet
                        tick = packet.time_base * fps
                        packet.pts = packet.dts = before + round(packet.pts * tick)
                        packet.duration, packet.time_base, packet.stream = 1, Fraction(1, fps), stream
                        container.mux(packet)
                        count += 1
                    before += count
            if before != frames:
                raise VideoError(
                    errno.EIO, f"its chunks hold {before} frames, not {frames}: start this video again", str(path)
                )
            _publish(file, container, path)
        except BaseException:
            _discard(file, container)
            raise


class _File(io.BufferedWriter):
    """A file for PyAV, which writes a trailer when it closes and prints what goes wrong with it: not once `dropped`.

    PyAV also swallows a Ctrl-C that comes while it writes or seeks, so that is kept for `raise_interrupt`; what was
    written may then be incomplete, and the file is dropped.
    """

    dropped = False
    interrupted = False
    part: Path

    def write(self, data: "Buffer") -> int:
        try:
            return memoryview(data).nbytes if self.dropped else super().write(data)
        except KeyboardInterrupt:
            self.interrupted = True
            return memoryview(data).nbytes

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except KeyboardInterrupt:
            self.interrupted = True
            return self.raw.seek(offset, whence)

    def raise_interrupt(self) -> None:
        """Raises KeyboardInterrupt if one came while PyAV wrote."""
        if self.interrupted:
            raise KeyboardInterrupt


def _create(path: Path, codec: Codec) -> tuple[_File, av.container.OutputContainer]:
    """A container on a part file. Through a Python file, because that one reports a full disk and can be synced."""
    part = path.with_name(f"{path.name}.{token_hex(4)}.part")
    file = _File(io.FileIO(part, "wb"))
    file.part = part
    return file, av.open(file, "w", format=codec.container, options={"fflags": "+bitexact"})


def _publish(file: _File, container: av.container.OutputContainer, path: Path) -> None:
    container.close()
    file.raise_interrupt()
    file.flush()
    os.fsync(file.fileno())
    file.close()
    file.part.replace(path)


def _discard(file: _File, container: av.container.OutputContainer) -> None:
    # On the way out of an error, which is the one to show: a second one from closing would hide it.
    file.dropped = True
    for close in (container.close, file.close, file.part.unlink):
        with suppress(OSError, av.FFmpegError, ValueError):
            close()


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn what the system or FFmpeg raise into a VideoError that names the file and the way out."""
    try:
        yield
    except VideoError:
        raise
    except (OSError, av.FFmpegError) as error:
        number = getattr(error, "errno", None) or errno.EIO
        advice = _ADVICE.get(number, getattr(error, "strerror", None) or str(error))
        raise VideoError(number, advice, str(path)) from error


class VideoInfo(NamedTuple):
    """Size, rate and number of frames, counted."""

    frames: int
    fps: Fraction
    height: int
    width: int


def probe(path: Path) -> VideoInfo:
    """Read a video's header and count its packets, without decoding. VideoError if it is no video."""
    with _reported(path), av.open(path) as container:
        video = _video_stream(container, path)
        frames = sum(packet.dts is not None for packet in container.demux(video))
        return VideoInfo(frames, video.average_rate or Fraction(0), video.height, video.width)


def read_frames(path: Path, chunk: int = 16) -> Iterator[Frames]:
    """Decode a video in pieces of at most `chunk` frames, uint8 [n, H, W, 3]. VideoError if it is no video."""
    with _reported(path), av.open(path) as container:
        video = _video_stream(container, path)
        video.thread_type = "AUTO"
        pending: list[Frames] = []
        for frame in container.decode(video):
            pending.append(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
            if len(pending) == chunk:
                yield np.stack(pending)
                pending = []
        if pending:
            yield np.stack(pending)


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    if not container.streams.video:
        raise VideoError(errno.EINVAL, "this file holds no video", str(path))
    return container.streams.video[0]
