"""Small video files, whole and broken, made while a test runs."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from eval.reencode import SAME_ON_EVERY_RUN

Frames = NDArray[np.uint8]
TICK = Fraction(1, 240)
"""The time base of `write_clip(times=...)`."""


def moving(count: int, height: int = 48, width: int = 80, seed: int = 0) -> Frames:
    """Textures that move, with sharp coloured edges and grain, so that two ways to convert colours differ visibly."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = 128 + 100 * np.sin(y / 7 + x / 11)
    frames = [
        np.stack([128 + 100 * np.sin((x + 3 * t) / 9), waves, (3 * x + 2 * y + 5 * t) % 256], axis=-1)
        for t in range(count)
    ]
    return np.clip(np.stack(frames) + rng.normal(0, 12, (count, height, width, 3)), 0, 255).astype(np.uint8)


def write_clip(
    path: Path,
    frames: Frames,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    fps: int = 16,
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    index_first: bool = False,
) -> Path:
    """Encode uint8 [n, H, W, 3] with any codec; `times` (ticks of 1/240 s) for a variable rate.

    The same frames become the same packets on every run.

    `index_first` puts an mp4's index before its pictures, so that the file can be read although its end is missing.
    """
    base = TICK if times is not None else Fraction(1, fps)
    layout = {"movflags": "faststart"} if index_first else {}
    with av.open(str(path), "w", options=layout) as container:
        same = SAME_ON_EVERY_RUN if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=fps, options={**same, **(options or {})})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.thread_count = pixels, 1
        stream.time_base = stream.codec_context.time_base = base
        for index, pixel in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixel, format="rgb24").reformat(format=pixels)
            picture.pts, picture.time_base = index if times is None else times[index], base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def write_exact(path: Path, frames: Frames, fps: int = 16) -> Path:
    """A lossless file (FFV1, the format of irope's companions): it decodes to exactly these frames. Use .mkv."""
    return write_clip(path, frames, "ffv1", "bgr0", fps, options={"level": "3", "slicecrc": "1"})


def write_audio(path: Path, seconds: float = 0.5, cover: bool = False) -> Path:
    """Silence and no picture, or only one of the sleeve, as music files have it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        assert isinstance(stream, av.AudioStream)
        if cover:
            sleeve = container.add_stream("mjpeg", rate=1)
            assert isinstance(sleeve, av.VideoStream)
            sleeve.height, sleeve.width, sleeve.pix_fmt = 48, 64, "yuvj420p"
            sleeve.disposition = av.stream.Disposition.attached_pic
            picture = av.VideoFrame.from_ndarray(moving(1, 48, 64)[0], format="rgb24").reformat(format="yuvj420p")
            picture.pts = 0
            container.mux([*sleeve.encode(picture), *sleeve.encode(None)])
        for _ in range(max(1, round(seconds * 16000 / 1024))):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.rate = 16000
            container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    return path


def write_no_frames(path: Path) -> Path:
    """A header, and a trailer after no frame at all."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.start_encoding()
    return path


def rotate(path: Path, degrees: int) -> Path:
    """Ask players to rotate an mp4 (clockwise, a multiple of 90): the display matrix of its track header."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[degrees // 90 % 4]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def hide_first(path: Path, made: Path, count: int, fps: int = 16) -> Path:
    """Copy an mp4 so that its first `count` frames are there but not shown, as players trim a video: an edit list."""
    with av.open(str(path)) as source, av.open(str(made), "w", options={"avoid_negative_ts": "disabled"}) as container:
        video = source.streams.video[0]
        stream = container.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.size and packet.pts is not None and packet.dts is not None and packet.time_base is not None:
                shift = int(Fraction(count, fps) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                container.mux(packet)
    return made


def hide_vp8(path: Path, made: Path, numbers: Sequence[int]) -> Path:
    """Copy a webm of VP8 with the `show_frame` bit (RFC 6386, 9.1) of some packets cleared: they give no frame."""
    with av.open(str(path)) as source, av.open(str(made), "w") as container:
        video = source.streams.video[0]
        stream = container.add_stream_from_template(video)
        for number, packet in enumerate(source.demux(video)):
            if packet.size:
                data = bytearray(bytes(packet))
                data[0] &= ~(0x10 * (number in numbers))
                copy = av.Packet(bytes(data))
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                container.mux(copy)
    return made


def cut(path: Path, share: float) -> Path:
    """Keep the first `share` of the bytes, as an interrupted copy does."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def damage(path: Path, share: float, size: int = 3000, seed: int = 0) -> Path:
    """Overwrite `size` bytes with noise, beginning at `share` of the file."""
    data = bytearray(path.read_bytes())
    at = int(len(data) * share)
    data[at : at + size] = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    return path


def unknown_codec(path: Path) -> Path:
    """Rename the codec of an mp4 of H.264 to one that does not exist."""
    data = path.read_bytes()
    at = data.rindex(b"avc1")
    path.write_bytes(data[:at] + b"zzzz" + data[at + 4 :])
    return path
