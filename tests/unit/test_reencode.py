"""The lossy clips of the official VBench-Long: like its files, the same on every run, and nothing stays behind."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from eval.clips import copies
from eval.reader import open_video
from eval.reencode import Reencoded
from eval.scorer import Frames
from eval.vbench_long import Clips
from irope.video import VideoError
from tests.vbench_long_kit import FLICKER, Consistency, Video, consistency, cut, flickering, noise, pan, score


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def encoded(frames: Frames, path: Path, bit_rate: int) -> Frames:
    """Written by the defaults of PyAV and libx264, as torchvision.io.write_video did, and read back from the file."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=16, bit_rate=bit_rate)
        stream.height, stream.width = frames.shape[1:3]
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    with open_video(path) as video:
        return np.concatenate([chunk for _, chunk in video.chunks()])


def test_lossy_clips_are_those_of_the_official_tool_and_smoother(temporary):
    video = Video(pan(70))
    pieces = cut(video.pixels, 32)
    (exact,) = score(video, Clips(), FLICKER)
    assert exact["temporal_flickering"].value == pytest.approx(np.mean([flickering(p) for p in pieces]), abs=1e-12)
    for reencode, bit_rate in (("crf23", 0), ("1mbit", 1_024_000)):
        (lossy,) = score(video, Clips(reencode=reencode), FLICKER)
        files = [encoded(piece, temporary / f"{i}.mp4", bit_rate) for i, piece in enumerate(pieces)]
        official = np.mean([flickering(file) for file in files])
        assert lossy["temporal_flickering"].value == pytest.approx(official, abs=5e-5)
        assert lossy["temporal_flickering"].value > exact["temporal_flickering"].value + 1e-3


def test_first_frames_are_encoded_once_more(temporary):
    video = Video(pan(70))

    def copy(frames: Frames) -> Frames:
        with Reencoded("crf23", 16) as lossy:
            lossy.write(frames)
            return np.concatenate([chunk for _, chunk in lossy.chunks(9)])

    pieces = [copy(piece) for piece in cut(video.pixels, 32)]
    between = consistency(copy(np.stack([piece[0] for piece in pieces])))
    protocol = Clips(features="same", mapping=False, reencode="crf23")
    windows = [video.take(), video.take(0, 40), video.take(0, 20)]  # first frames of clips of other windows are others
    found = score(video, protocol, {"subject_consistency": Consistency()}, *windows)[0]["subject_consistency"]
    assert found.extra["clip2clip"] == pytest.approx(between, abs=1e-12)
    assert found.extra["inclip"] == pytest.approx(np.mean([consistency(p) for p in pieces]), abs=1e-12)
    assert list(temporary.iterdir()) == []


def test_copies_leave_nothing_behind(temporary):
    video, seen = Video(pan(100)), []
    takes = [video.take(0, 32), video.take(32, 64), video.take(64, 96), video.take(68, 100)]
    for _ in range(2):
        for clip, chunks in copies(video.chunks(7), takes, "crf23"):
            frames = [(start, frames) for start, frames in chunks]
            assert [start for start, _ in frames] == [clip.start]
            seen.append(np.concatenate([f for _, f in frames]))
            assert len(seen[-1]) == clip.frames
            assert list(temporary.iterdir()) == []
    assert all((first == second).all() for first, second in zip(seen[:4], seen[4:], strict=True))
    begun = copies(video.chunks(7), takes, "crf23")
    next(begun)
    begun.close()
    assert list(temporary.iterdir()) == []


def test_a_lossy_clip_is_the_same_on_every_run(temporary):
    """With AVX-512 it was not, from about this size on."""
    frames, seen = pan(32, 240, 416), set()
    for _ in range(6):
        with Reencoded("crf23", 16) as copy:
            copy.write(frames)
            seen.add(b"".join(chunk.tobytes() for _, chunk in copy.chunks(32)))
    assert len(seen) == 1


def test_what_cannot_be_encoded_is_skipped_or_told(monkeypatch):
    odd = Video(noise(40, 5, 8))
    (outcomes,) = score(odd, Clips(reencode="crf23"), FLICKER)
    assert "even sides, not 8x5" in str(outcomes["temporal_flickering"])
    with pytest.raises(VideoError, match="8x5"), Reencoded("crf23", 16) as copy:
        copy.write(odd.pixels)
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(VideoError, match="TMPDIR"):
        Reencoded("crf23", 16)
