import threading
import weakref
from collections.abc import Callable, Generator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from eval import decoders, reader
from eval.decoders import Clip, inspect
from eval.reader import PREFETCH, ReadError, VideoReader, open_video
from irope.errors import UserError
from tests.reader_kit import BOTH, decoding_threads, needs_decord, read, read_opencv
from tests.video_kit import (
    Frames,
    hide_first,
    hide_vp8,
    moving,
    rotate,
    write_clip,
    write_exact,
)

# name, codec, pixel format, height, width, options; decord has OpenCV's pixels in the first group only
PLAIN = [
    ("landscape.mp4", "libx264", "yuv420p", 48, 80, {}),
    ("portrait.mp4", "libx264", "yuv420p", 96, 54, {}),
    ("no multiple of 16.mp4", "libx264", "yuv420p", 46, 62, {"g": "5"}),
    ("full_range.mp4", "libx264", "yuvj420p", 48, 80, {}),
    ("gray.mp4", "libx264", "gray", 48, 80, {}),
    ("odd444.mp4", "libx264", "yuv444p", 47, 63, {}),
    ("4-2-2.mp4", "libx264", "yuv422p", 48, 80, {}),
    ("vp9.webm", "libvpx-vp9", "yuv420p", 48, 80, {"cpu-used": "8", "deadline": "realtime"}),
    ("vp8.webm", "libvpx", "yuv420p", 48, 80, {"auto-alt-ref": "1", "lag-in-frames": "10", "b": "30k"}),
    ("mpeg4.avi", "mpeg4", "yuv420p", 48, 80, {}),
    ("ünï cödé_a b-0.mp4", "libx264", "yuv420p", 48, 80, {}),
]
SPECIAL = [
    ("ten_bits.mp4", "libx264", "yuv420p10le", 48, 80, {}),
    ("ten_bits_422.mp4", "libx264", "yuv422p10le", 48, 80, {}),
    ("odd420.avi", "mpeg4", "yuv420p", 47, 63, {}),
    ("animated.gif", "gif", "rgb8", 48, 80, {}),
]


@pytest.mark.parametrize(("name", "codec", "pixels", "height", "width", "options"), PLAIN + SPECIAL)
def test_frames_equal_opencv(tmp_path, name, codec, pixels, height, width, options):
    path = write_clip(tmp_path / name, moving(20, height, width), codec, pixels, options=options)
    got = read(path)
    assert got.shape == (20, height, width, 3)
    np.testing.assert_array_equal(got, read_opencv(path))


@needs_decord
@pytest.mark.parametrize(("name", "codec", "pixels", "height", "width", "options"), PLAIN)
def test_backends_give_the_same_frames(tmp_path, name, codec, pixels, height, width, options):
    path = write_clip(tmp_path / name, moving(20, height, width), codec, pixels, options=options)
    with open_video(path, "decord") as video:
        assert video.backend == "decord"
        assert video.notes == ()
    np.testing.assert_array_equal(read(path, "decord"), read(path, "pyav"))


@needs_decord
@pytest.mark.parametrize(("name", "codec", "pixels", "height", "width", "options"), SPECIAL[:3])
def test_decord_says_where_its_colours_are_its_own(tmp_path, name, codec, pixels, height, width, options):
    path = write_clip(tmp_path / name, moving(5, height, width), codec, pixels, options=options)
    with open_video(path, "decord") as video:
        assert "colours differ" in video.notes[0]
    assert (read(path, "decord") != read(path, "pyav")).mean() > 0.1


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("codec", ["ffv1", "libx264rgb"])
def test_lossless_files_of_odd_size_are_read_exactly(tmp_path, backend, codec):
    frames = moving(20, 47, 63)
    if codec == "ffv1":
        path = write_exact(tmp_path / "a.mkv", frames)
    else:
        path = write_clip(tmp_path / "a.mp4", frames, codec, "rgb24", options={"crf": "0"})
    np.testing.assert_array_equal(read(path, backend), frames)


@pytest.mark.parametrize("backend", BOTH)
def test_what_a_reader_tells(tmp_path, backend):
    path = write_clip(tmp_path / "a.mp4", moving(33, 48, 80), fps=24)
    with open_video(path, backend) as video:
        assert (video.path, video.backend) == (path, backend)
        assert (video.frames, video.fps, video.height, video.width) == (33, Fraction(24), 48, 80)
        assert video.notes == ()


def test_pyav_is_chosen_because_it_gives_opencvs_pixels(tmp_path):
    with open_video(write_clip(tmp_path / "a.mp4", moving(2))) as video:
        assert video.backend == "pyav"


@pytest.mark.parametrize("backend", BOTH)
def test_one_frame(tmp_path, backend):
    path = write_exact(tmp_path / "a.mkv", moving(1))
    np.testing.assert_array_equal(read(path, backend), moving(1))


@pytest.mark.parametrize("backend", BOTH)
def test_a_window_is_a_slice(tmp_path, backend):
    frames = moving(50)
    path = write_clip(tmp_path / "a.mp4", frames, options={"g": "12"})
    whole = read(path, backend)
    with open_video(path, backend) as video:
        for size, start, stop in [(8, 0, 50), (8, 0, 9), (50, 13, 50), (64, 3, None), (1, 48, 50), (5, 12, 37)]:
            chunks = list(video.chunks(size, start, stop))
            np.testing.assert_array_equal(np.concatenate([part for _, part in chunks]), whole[start:stop])
            assert [first for first, _ in chunks] == list(range(start, stop or 50, size))
            assert all(len(part) == size for _, part in chunks[:-1])
            assert all(part.dtype == np.uint8 for _, part in chunks)
        assert list(video.chunks(8, 20, 20)) == []
        for start, stop in [(0, 51), (-1, 5), (6, 5)]:
            with pytest.raises(ValueError, match="50 frames"):
                video.chunks(8, start, stop)


@pytest.mark.parametrize("backend", BOTH)
def test_a_variable_rate_is_read_frame_by_frame_with_a_note(tmp_path, backend):
    frames, times = moving(20), [15 * i + 7 * (i % 3 == 1) for i in range(20)]
    path = write_clip(tmp_path / "a.mkv", frames, "ffv1", "bgr0", times=times)
    np.testing.assert_array_equal(read(path, backend), frames)
    with open_video(path, backend) as video:
        (note,) = video.notes
    gaps = [1000 * (b - a) / 240 for a, b in pairwise(times)]
    assert "variable frame rate" in note
    assert f"{min(gaps):.0f} to {max(gaps):.0f} ms" in note


@pytest.mark.parametrize("fps", [16, 24, 30, 60])
def test_rounded_time_stamps_are_no_variable_rate(tmp_path, fps):
    """Matroska counts in milliseconds, so frames of 1/60 s last 16 or 17 of them."""
    assert inspect(write_exact(tmp_path / "a.mkv", moving(40, 16, 16), fps)).notes == ()


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_video_is_turned_upright_as_opencv_does(tmp_path, degrees):
    path = rotate(write_clip(tmp_path / "a.mp4", moving(10)), degrees)
    got = read(path)
    np.testing.assert_array_equal(got, read_opencv(path))
    with open_video(path) as video:
        assert (video.height, video.width) == got.shape[1:3]
        assert "turned upright" in video.notes[0]
    if decoders.has_decord():
        with pytest.raises(ReadError, match="backend=pyav"):
            open_video(path, "decord")


def test_frames_that_players_do_not_show_are_not_scored(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving(30), options={"g": "10"})
    trimmed = hide_first(path, tmp_path / "b.mp4", 6)
    np.testing.assert_array_equal(read(trimmed), read(path)[6:])
    np.testing.assert_array_equal(read(trimmed), read_opencv(trimmed))
    if decoders.has_decord():  # it shows all of them
        with pytest.raises(ReadError, match="30 frames, not 24"):
            read(trimmed, "decord")


def test_frames_are_counted_and_not_packets(tmp_path):
    path = write_clip(tmp_path / "a.webm", moving(30), "libvpx", options={"deadline": "realtime", "cpu-used": "8"})
    hidden = hide_vp8(path, tmp_path / "b.webm", (4, 5, 20))
    np.testing.assert_array_equal(read(hidden), np.delete(read(path), (4, 5, 20), axis=0))


@pytest.mark.parametrize("backend", BOTH)
def test_stopping_early_leaves_no_thread(tmp_path, backend):
    path = write_clip(tmp_path / "a.mp4", moving(60))
    with open_video(path, backend) as video:
        for _ in video.chunks(4):
            assert decoding_threads()
            break
        assert decoding_threads() == []

        def score() -> None:
            for _ in video.chunks(4):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            score()
        assert decoding_threads() == []
        held = video.chunks(4)
        next(held)
    assert decoding_threads() == []  # closing the reader stops what somebody still holds
    with pytest.raises(ValueError, match="closed"):
        next(held)
    with pytest.raises(ValueError, match="closed"):
        next(video.chunks(4))


def fake(monkeypatch: pytest.MonkeyPatch, decode: Callable[[int], Frames], count: int) -> VideoReader:
    """A reader of `count` chunks of one frame, each made by `decode`."""

    def chunks(clip: Clip, size: int, start: int, stop: int) -> Generator[tuple[int, Frames], None, None]:
        for index in range(start, stop):
            yield index, decode(index)

    monkeypatch.setitem(reader.BACKENDS, "fake", chunks)
    return VideoReader(Clip(Path("fake.mp4"), count, Fraction(16), 1, 1, 0, "rgb24", ()), "fake")


def test_an_error_of_the_decoding_thread_reaches_the_consumer(monkeypatch):
    def decode(index: int) -> Frames:
        if index == 3:
            raise MemoryError("of the decoder")
        return np.zeros((1, 1, 1, 3), np.uint8)

    seen = []
    chunks = fake(monkeypatch, decode, 9).chunks(1)
    with pytest.raises(MemoryError, match="of the decoder"):
        seen.extend(first for first, _ in chunks)
    assert seen == [0, 1, 2]
    assert decoding_threads() == []


def test_decoding_runs_ahead_by_a_bounded_number_of_chunks(monkeypatch):
    made = [threading.Event() for _ in range(12)]
    alive: set[int] = set()
    most = 0

    def decode(index: int) -> Frames:
        frames = np.zeros((1, 1, 1, 3), np.uint8)
        alive.add(index)
        weakref.finalize(frames, alive.discard, index)
        made[index].set()
        return frames

    for first, frames in fake(monkeypatch, decode, len(made)).chunks(1):
        ahead = first + PREFETCH
        if ahead < len(made):
            # The consumer is busy, and the chunks after its own are made all the same; but no more than that.
            assert made[ahead].wait(timeout=20)
            assert not any(event.is_set() for event in made[ahead + 1 :])
        most = max(most, len(alive))
        del frames
    # the one at hand, those ahead, and the one before, which the loop lets go when it has the next
    assert most <= PREFETCH + 2


def test_backends_that_are_not_there(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", moving(2))
    with pytest.raises(UserError, match="did you mean 'decord'"):
        open_video(path, "decrod")
    monkeypatch.setattr(reader, "has_decord", lambda: False)
    with pytest.raises(UserError, match="not installed"):
        open_video(path, "decord")
    assert len(read(path)) == 2


@needs_decord
def test_decord_frames_survive_vbenchs_global_bridge(tmp_path):
    decord = pytest.importorskip("decord")
    pytest.importorskip("torch")
    frames = moving(9)
    path = write_exact(tmp_path / "a.mkv", frames)
    decord.bridge.set_bridge("torch")
    try:
        got = read(path, "decord")
    finally:
        decord.bridge.reset_bridge()
    assert isinstance(got, np.ndarray)
    np.testing.assert_array_equal(got, frames)


def test_decord_warns_of_its_memory(tmp_path):
    clip = inspect(write_clip(tmp_path / "a.mp4", moving(2)))
    assert decoders.decord_notes(clip) == ()
    (note,) = decoders.decord_notes(replace(clip, frames=3840, height=480, width=832))
    assert "up to 4 GB" in note
