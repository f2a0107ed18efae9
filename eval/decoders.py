"""How one file becomes frames: what its header and packets say, and the decoders that can read it.

PyAV is the decoder that scores are made from. It is held bit-equal to OpenCV, which stock VBench reads half of its
dimensions with, for every pixel format tested. decord, which VBench reads the other half with, gives the same pixels
for 8-bit video of even size, but rounds chroma of other files differently, refuses pictures turned by 90 degrees,
hides damage, and decodes ahead of a slow consumer without bound.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import BinaryIO, Protocol

import av
import av.container
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from irope.errors import UserError

Chunk = tuple[int, NDArray[np.uint8]]

# One packet is one frame in these; others may hide frames in packets (VP8) or pack two (MPEG-4 of old encoders).
FRAME_PER_PACKET = {"h264", "hevc", "vp9", "av1", "libdav1d", "ffv1", "gif", "mjpeg", "png", "rawvideo", "prores"}


class ReadError(UserError):
    """A video cannot be scored as it is; says which file, what is wrong with it, and the way out."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


@dataclass(frozen=True)
class Clip:
    """What a file holds: decodable frames, average rate, size as shown, rotation, pixel format, warnings."""

    path: Path
    frames: int
    fps: Fraction
    height: int
    width: int
    rotation: int
    pixels: str
    notes: tuple[str, ...]


class Decoder(Protocol):
    """Decodes frames [start, stop) in order, `size` at a time: (index of the first one, uint8 [n, H, W, 3] RGB)."""

    def __call__(self, clip: Clip, size: int, start: int, stop: int) -> Generator[Chunk, None, None]: ...


def inspect(path: Path, allow_truncated: bool = False) -> Clip:
    """Read the packets of a file without decoding more than the first frame; a file cut short is decoded to count.

    Raises:
        ReadError: the file is missing, not readable, empty, no video, without a frame, or cut short; the last one only
            unless `allow_truncated`, which leaves a note instead.
    """
    head, cut = _first_bytes(path)
    with _opened(path, head) as container:
        stream = _stream(path, container)
        packets, times = 0, array("q")
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    packets += 1
                    cut |= packet.is_corrupt
                    if (time := packet.pts if packet.pts is not None else packet.dts) is not None:
                        times.append(time)
        except av.FFmpegError:
            cut = True
        if not packets:
            raise ReadError(path, "holds no frame: whoever wrote it stopped before the first one; make it again")
        fps = stream.average_rate or stream.guessed_rate or stream.base_rate or Fraction(1)
        promised = stream.frames
        tick, one_each = stream.time_base, stream.codec_context.name in FRAME_PER_PACKET
    first = _first_picture(path, packets, cut)
    frames = packets if one_each and not cut else _count(path, cut)
    notes = _rate_note(times, frames, tick)
    if cut:
        notes += (_cut_short(path, frames, packets, promised, allow_truncated),)
    rotation = round(first.rotation / 90) * 90 % 360
    if rotation:
        notes += (f"turned upright: the file asks players to rotate it by {rotation} degrees anticlockwise",)
    height, width = (first.width, first.height) if rotation in (90, 270) else (first.height, first.width)
    return Clip(path, frames, fps, height, width, rotation, first.format.name, notes)


def _cut_short(path: Path, frames: int, packets: int, promised: int, allowed: bool) -> str:
    # A header may count the frames that were to come, or those that are there, or none.
    lost = f"the last {promised - frames} of {promised} frames" if promised > packets else "the end"
    if not allowed:
        raise ReadError(
            path,
            f"truncated: {lost} cannot be decoded; make it again, or score its first {frames}: score.truncated=true",
        )
    return f"truncated: {lost} cannot be decoded"


def _rate_note(times: array[int], frames: int, tick: Fraction | None) -> tuple[str, ...]:
    """A warning if frames are not equally long. One tick of the time base is rounding, not variation."""
    if tick is None or min(len(times), frames) < 3:
        return ()
    steps = np.diff(np.sort(np.array(times, np.float64))[:frames])
    if np.abs(steps - steps.mean()).max() <= 1 + 0.01 * steps.mean():
        return ()
    low, high = 1000 * float(tick) * steps.min(), 1000 * float(tick) * steps.max()
    return (f"variable frame rate: frames last {low:.0f} to {high:.0f} ms; each is scored once, at the average rate",)


def _first_bytes(path: Path) -> tuple[bytes, bool]:
    """The first bytes, by which a container is recognised, and whether the file ends before its container does."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
            if not head:
                raise ReadError(path, "is empty (0 bytes): make it again")
            return head, _ends_early(file, head)
    except FileNotFoundError:
        raise ReadError(path, "no such file") from None
    except IsADirectoryError:
        raise ReadError(path, "is a folder, not a video") from None
    except PermissionError:
        raise ReadError(path, "permission denied: change its rights, or read it as its owner") from None
    except OSError as error:
        raise ReadError(path, f"cannot be read: {error.strerror or error}") from error


def _ends_early(file: BinaryIO, head: bytes) -> bool:
    """Whether the file is shorter than its own headers say (ISO 14496-12 boxes, EBML/Matroska, RIFF, GIF89a).

    Frame counts and durations cannot tell: edit lists and longer sound make them differ in files that are whole.
    """
    length = file.seek(0, 2)
    if head[4:8] == b"ftyp":
        at = 0
        while at + 8 <= length:
            file.seek(at)
            box = file.read(16)
            size = int.from_bytes(box[:4], "big")
            size = int.from_bytes(box[8:], "big") if size == 1 else size or length - at
            if size < 8:
                return True
            at += size
        return at != length
    if (segment := head.find(b"\x18\x53\x80\x67")) >= 0 and head.startswith(b"\x1a\x45\xdf\xa3"):
        value = head[segment + 4 :]
        bits = 8 - value[0].bit_length() if value else 8
        size = int.from_bytes(value[: bits + 1], "big") & ((1 << 7 * (bits + 1)) - 1)
        unknown = size == (1 << 7 * (bits + 1)) - 1  # a stream that was never finished, or is live
        return not unknown and segment + 4 + bits + 1 + size > length
    if head.startswith(b"RIFF"):
        return int.from_bytes(head[4:8], "little") + 8 > length
    if head.startswith(b"GIF8"):
        file.seek(length - 1)
        return file.read(1) != b";"
    return False


def _opened(path: Path, head: bytes) -> av.container.InputContainer:
    try:
        return av.open(str(path.absolute()))  # absolute: a name like `http:x.mp4` is a file, not an address
    except av.FFmpegError as error:
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide"):
            problem = "truncated: its index (moov) is missing, because writing was cut off; make it again"
        elif head.startswith((b"\x1a\x45\xdf\xa3", b"RIFF", b"GIF8")):
            problem = "truncated: it ends within its header, before the first frame; make it again"
        elif isinstance(error, av.InvalidDataError):
            problem = "not a video: FFmpeg knows no format with such content"
        else:
            problem = f"cannot be opened: {error.strerror}"
        raise ReadError(path, problem) from error


def _stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    shown = [stream for stream in container.streams.video if not stream.disposition & _COVER]
    if not shown:
        kinds = {stream.type for stream in container.streams}
        if not kinds:
            raise ReadError(path, "holds no frame: whoever wrote it stopped before the first one; make it again")
        raise ReadError(
            path, "is audio only: it holds no picture" if "audio" in kinds else f"holds {kinds} only, no picture"
        )
    stream = shown[0]
    if stream.codec_context is None:
        raise ReadError(path, "its codec cannot be decoded here: convert it to H.264 or FFV1")
    stream.thread_type, stream.thread_count = "SLICE", 1  # faster per core than more, and enough for any scorer
    return stream


_COVER = av.stream.Disposition.attached_pic


def _pictures(path: Path, cut: bool = False) -> Iterator[av.VideoFrame]:
    """Frames in order, to the end or to the first one that is damaged: av.FFmpegError.

    Of a file that is cut short, only those that the decoder gives before it is told that there is no more: among the
    later ones a frame may be missing that is shown before them but stored after, and the last packet may be half there.
    """
    with av.open(str(path.absolute())) as container:
        packets = container.demux(_stream(path, container))
        for packet, after in pairwise(chain(packets, [None])):
            if cut and not (after and after.size):
                return
            for picture in packet.decode() if packet else ():
                if picture.is_corrupt:
                    raise av.InvalidDataError(0, "damaged")
                yield picture


def _first_picture(path: Path, packets: int, cut: bool) -> av.VideoFrame:
    try:
        for picture in _pictures(path, cut):
            return picture
    except av.FFmpegError:
        pass
    why = (
        "truncated: it ends before the first frame does"
        if cut
        else f"damaged: none of its {packets} frames can be decoded"
    )
    raise ReadError(path, f"{why}; make it again")


def _count(path: Path, cut: bool) -> int:
    count = 0
    try:
        for _ in _pictures(path, cut):
            count += 1
    except av.FFmpegError:
        pass
    return count


def decode_pyav(clip: Clip, size: int, start: int, stop: int) -> Generator[Chunk, None, None]:
    """PyAV's decoder. A window that begins late is decoded from the first frame: exact in every container."""
    # One converter for the whole file: FFmpeg's tables are made once (3 times faster at 64x64). Bicubic as OpenCV.
    convert, turns = VideoReformatter(), clip.rotation // 90
    chunk = np.empty((0, clip.height, clip.width, 3), np.uint8)
    done = 0
    try:
        for index, picture in enumerate(islice(_pictures(clip.path), stop)):
            if index >= start:
                at = (index - start) % size
                if not at:
                    chunk = np.empty((min(size, stop - index), clip.height, clip.width, 3), np.uint8)
                pixels = np.rot90(_rgb(picture, convert), turns)
                if pixels.shape != chunk.shape[1:]:
                    raise ReadError(clip.path, f"the size changes at frame {index}: cut the video there")
                chunk[at] = pixels
                if at + 1 == len(chunk):
                    yield index - at, chunk
            done = index + 1
    except av.FFmpegError as error:
        raise ReadError(clip.path, f"frame {done} of {clip.frames} is damaged; make the video again") from error
    if done < stop:
        raise ReadError(clip.path, f"only {done} of {clip.frames} frames could be decoded; make the video again")


def _rgb(picture: av.VideoFrame, convert: VideoReformatter) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]. Deeper pictures go through BGR, as in OpenCV: FFmpeg's two converters round differently."""
    deep = any(component.bits > 8 for component in picture.format.components)
    target = "bgr24" if deep else "rgb24"
    made = convert.reformat(picture, format=target, interpolation=Interpolation.BICUBIC, threads=1)
    pixels = made.to_ndarray().astype(np.uint8, copy=False)
    return pixels[..., ::-1] if deep else pixels


def has_decord() -> bool:
    """Whether `decord` can be imported; decord 0.6 and decord2 have the same name."""
    return find_spec("decord") is not None


def decord_notes(clip: Clip) -> tuple[str, ...]:
    """Warnings of what decord does with this file."""
    notes: tuple[str, ...] = ()
    chroma = av.VideoFormat(clip.pixels, clip.width, clip.height).components
    halved = any(part.width < clip.width or part.height < clip.height for part in chroma)
    if any(part.bits > 8 for part in chroma) or (halved and (clip.width % 2 or clip.height % 2)):
        notes += (f"decord's colours differ from OpenCV's in {clip.pixels} of {clip.width}x{clip.height}",)
    ahead = clip.frames * clip.height * clip.width * 3
    if ahead > 2**30:
        notes += (f"decord decodes ahead without bound: up to {ahead / 2**30:.0f} GB of memory",)
    return notes


def decode_decord(clip: Clip, size: int, start: int, stop: int) -> Generator[Chunk, None, None]:
    """decord's decoder, for comparisons. Only the first chunk needs a seek, which decord does itself."""
    import decord

    try:
        # One thread: more are no faster per core, and they run further ahead.
        reader = decord.VideoReader(str(clip.path.absolute()), ctx=decord.cpu(0), num_threads=1)
        if len(reader) != clip.frames:
            raise ReadError(clip.path, f"decord counts {len(reader)} frames, not {clip.frames}: take backend=pyav")
        for index in range(start, stop, size):
            batch = reader.get_batch(list(range(index, min(index + size, stop))))
            # vbench sets decord's bridge for the whole process, after which batches are torch tensors
            yield index, batch.asnumpy() if hasattr(batch, "asnumpy") else batch.numpy()
    except RuntimeError as error:  # decord's own errors derive from it
        reason = str(error).strip().splitlines()[0]
        raise ReadError(clip.path, f"decord cannot read it ({reason}): take backend=pyav") from error
