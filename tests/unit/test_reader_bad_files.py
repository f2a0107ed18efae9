"""Files that are no good: each has its own message, and no frame is missing silently."""

import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from eval.decoders import inspect
from eval.reader import ReadError, open_video
from irope.errors import UserError
from tests.reader_kit import BOTH, decoding_threads, read
from tests.video_kit import (
    Frames,
    cut,
    damage,
    moving,
    unknown_codec,
    write_audio,
    write_clip,
    write_no_frames,
)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def file_of(content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda path: path, "no such file"),
    "folder": (folder, "is a folder"),
    "empty": (file_of(b""), "empty"),
    "text": (file_of(b"once upon a time\n" * 99), "not a video"),
    "noise": (file_of(np.random.default_rng(0).bytes(9999)), "not a video"),
    "audio only": (write_audio, "audio only"),
    "music with a sleeve": (lambda path: write_audio(path, cover=True), "audio only"),
    "no frame": (write_no_frames, "no frame"),
    "no index": (lambda path: cut(write_clip(path, moving(20)), 0.7), r"truncated: its index \(moov\)"),
    "codec": (lambda path: unknown_codec(write_clip(path, moving(5))), "codec cannot be decoded"),
    "frames": (lambda path: damage(write_clip(path, moving(5)), 0.01, 9**5), "moov|damaged|not a video"),
}


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("case", BAD)
def test_each_bad_file_has_its_own_message(tmp_path, case, backend):
    make, message = BAD[case]
    path = make(tmp_path / "a b_ü.mp4")
    with pytest.raises(ReadError, match=message) as caught:
        open_video(path, backend)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, UserError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving(2))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything, so somebody else tries
        end, other = os.pipe()
        if not (child := os.fork()):
            os.setuid(65534)
            try:
                open_video(path)
            except ReadError as error:
                os.write(other, error.problem.encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(end, 99).startswith(b"permission denied")
        os.close(end)
        os.close(other)
    else:
        with pytest.raises(ReadError, match="permission denied"):
            open_video(path)


@pytest.mark.parametrize(("name", "codec", "pixels"), [
    ("a.mp4", "libx264", "yuv420p"), ("a.mkv", "libx264", "yuv420p"), ("a.mkv", "ffv1", "bgr0"),
    ("a.avi", "mpeg4", "yuv420p"), ("a.gif", "gif", "rgb8"),
])  # fmt: skip
def test_a_file_cut_short_is_refused_unless_asked_for(tmp_path, name, codec, pixels):
    path = write_clip(tmp_path / name, moving(60, 96, 160), codec, pixels, index_first=name == "a.mp4")
    whole = read(path)
    cut(path, 0.6)
    with pytest.raises(ReadError, match="truncated") as caught:
        open_video(path)
    with open_video(path, allow_truncated=True) as video:
        assert 10 < video.frames < 60
        assert str(video.frames) in str(caught.value)
        assert any("truncated" in note for note in video.notes)
    np.testing.assert_array_equal(read(path, allow_truncated=True), whole[: video.frames])


def test_no_frame_is_skipped_at_the_end_of_a_cut_file(tmp_path):
    """H.264 stores frames out of order, so that the last ones before a cut have holes between them."""
    path = write_clip(tmp_path / "a.mkv", moving(40))
    whole, data = read(path), path.read_bytes()
    found = set()
    for length in range(len(data) // 3, len(data), len(data) // 40):
        path.write_bytes(data[:length])
        got = read(path, allow_truncated=True)
        np.testing.assert_array_equal(got, whole[: len(got)])
        found.add(len(got))
    assert len(found) > 10


def test_every_cut_of_every_container_is_noticed(tmp_path):
    """Also where no packet is broken: the headers say how long the file is."""
    for name, codec, pixels in [("a.mp4", "libx264", "yuv420p"), ("a.mkv", "ffv1", "bgr0"), ("a.gif", "gif", "rgb8")]:
        whole = write_clip(tmp_path / name, moving(12, 16, 16), codec, pixels, index_first=True).read_bytes()
        inspect(tmp_path / name)
        with av.open(str(tmp_path / name)) as container:
            between = {packet.pos + packet.size for packet in container.demux(video=0) if packet.size}
        for length in sorted({*range(1, len(whole), max(1, len(whole) // 60)), *between} - {len(whole)}):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(ReadError):
                inspect(tmp_path / name)


@pytest.mark.parametrize("size", [5, 3000])
def test_damage_is_reported(tmp_path, size):
    """Five bytes break one picture, which FFmpeg patches up; thousands break packets. Most of both must be noticed."""
    path = write_clip(tmp_path / "a.mp4", moving(40, 96, 160), options={"g": "10"})
    whole, data = read(path), path.read_bytes()
    noticed = 0
    for seed in range(10):
        path.write_bytes(data)
        damage(path, 0.2 + 0.07 * seed, size, seed)
        got: list[Frames] = []
        with open_video(path) as video, suppress(ReadError):
            got.extend(frames for _, frames in video.chunks(4))
        if (count := sum(map(len, got))) < len(whole):
            noticed += 1
            good = max(0, count - 3)  # shown before the damaged frame, others may be made from it
            np.testing.assert_array_equal(np.concatenate([whole[:0], *got])[:good], whole[:good])
    assert noticed >= 5
    assert decoding_threads() == []
