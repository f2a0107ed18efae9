import errno
import hashlib
import io
import os
import resource
from fractions import Fraction

import av
import numpy as np
import pytest

from irope.lettering import strip_height, text_strip, text_width, wrap
from irope.video import Progress, VideoError, VideoWriter, frame_hash, probe, read_frames

CHUNKS = (9, 12, 1, 2, 12)  # the first block decodes to 9 frames, the others to 12; odd ones for good measure


def noise(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def moving_ramp(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    frames = [np.stack([y * 4 + t, x * 3 + t, x * 0 + 5 * t], axis=-1) for t in range(count)]
    return np.stack(frames).clip(0, 255).astype(np.uint8)


def write(path, frames, chunks=CHUNKS, **options) -> Progress:
    with VideoWriter(path, fps=16, **options) as writer:
        done = writer.saved.frames
        for size in np.diff([done, *(n for n in np.cumsum(chunks) if n > done)]):
            writer.write(frames[done : done + size])
            writer.checkpoint()
            done += size
        return writer.finish()


def read(path) -> np.ndarray:
    return np.concatenate(list(read_frames(path)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "clip.mp4"


def test_lossless_companion_is_bit_exact_also_for_noise_and_odd_sizes(path):
    frames = noise(sum(CHUNKS), 31, 47)
    write(path, frames, lossless=True)
    np.testing.assert_array_equal(read(path.with_suffix(".mkv")), frames)
    assert probe(path.with_suffix(".mkv")) == (len(frames), Fraction(16), 31, 47)
    assert probe(path) == (len(frames), Fraction(16), 32, 48)


def test_joined_mp4_has_every_frame_at_its_time(path):
    frames = moving_ramp(sum(CHUNKS))
    write(path, frames)
    with av.open(path) as container:
        (video,) = container.streams.video
        assert video.codec_context.name == "h264"
        assert video.codec_context.pix_fmt == "yuv420p"
        assert video.average_rate == 16
        assert video.frames == len(frames)
        assert video.duration * video.time_base == Fraction(len(frames), 16)
        decoded = list(container.decode(video))
    assert [frame.pts * frame.time_base for frame in decoded] == [Fraction(i, 16) for i in range(len(frames))]
    shown = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded]).astype(int)
    # The ramp brightens by 1..5 levels a frame, so a frame that is lost, doubled or swapped would show.
    assert np.abs(shown - frames).mean(axis=(1, 2, 3)).max() < 3
    np.testing.assert_allclose(shown[..., 2].mean(axis=(1, 2)), np.arange(len(frames)) * 5, atol=2.4)


def test_enlargement_repeats_pixels(path):
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    frames[:, :4, 4:] = 255
    write(path, frames, chunks=(3,), scale=8)
    shown = read(path)
    assert shown.shape == (3, 64, 64, 3)
    assert np.abs(shown.astype(int) - np.kron(frames, np.ones((1, 8, 8, 1)))).max() < 12


def test_hash_chain_is_the_documented_one_and_continues():
    frames, link = noise(5), b""
    for frame in frames:
        link = hashlib.sha256(link + frame.tobytes()).digest()
    assert frame_hash(frames) == link.hex()
    assert frame_hash(frames[2:], frame_hash(frames[:2])) == link.hex()
    assert frame_hash(frames[::-1]) != link.hex()


@pytest.mark.parametrize("kill_in_chunk", range(len(CHUNKS)))
def test_killed_and_resumed_video_has_the_same_bytes(tmp_path, kill_in_chunk):
    frames = noise(sum(CHUNKS))
    whole = write(tmp_path / "whole.mp4", frames, lossless=True)

    path, done = tmp_path / "killed.mp4", 0
    saved = Progress()
    writer = VideoWriter(path, fps=16, lossless=True)
    for size in CHUNKS[:kill_in_chunk]:
        writer.write(frames[done : done + size])
        saved = writer.checkpoint()
        done += size
    # After the state was saved the run goes on, closes one more chunk and dies within the next: both must go.
    writer.write(noise(4))
    writer.checkpoint()
    writer.write(noise(4))
    del writer

    saved = Progress(**saved.to_json())
    assert write(path, frames, lossless=True, resume=saved) == whole
    for suffix in (".mp4", ".mkv"):
        assert path.with_suffix(suffix).read_bytes() == (tmp_path / "whole").with_suffix(suffix).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.mkv", "killed.mp4", "whole.mkv", "whole.mp4"]


def test_a_kill_between_finish_and_the_sidecar_can_resume_if_the_chunks_were_kept(tmp_path):
    path, frames = tmp_path / "clip.mp4", noise(sum(CHUNKS))
    with VideoWriter(path, fps=16) as writer:
        writer.write(frames[:9])
        saved = writer.checkpoint()
        writer.write(frames[9:])
        done = writer.finish(keep_chunks=True)
    assert write(path, frames, chunks=(9, len(frames) - 9), resume=saved) == done
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_resume_without_its_chunks_is_refused(path):
    with pytest.raises(VideoError, match=r"00000\.mp4.*start this video again"):
        VideoWriter(path, fps=16, resume=Progress(1, 9, "00"))


def test_nothing_under_the_final_name_until_finish(path):
    with VideoWriter(path, fps=16, lossless=True) as writer:
        writer.write(noise(3))
        writer.checkpoint()
        writer.write(noise(3))
    assert [p.name for p in path.parent.iterdir()] == ["clip.parts"]
    assert sorted(p.name for p in writer.parts.iterdir()) == ["00000.mkv", "00000.mp4"]


def test_an_older_video_stays_until_the_new_one_is_complete(path):
    write(path, moving_ramp(9), chunks=(9,))
    before = path.read_bytes()
    with VideoWriter(path, fps=16) as writer:
        writer.write(noise(9))
        writer.checkpoint()
        assert path.read_bytes() == before
        writer.finish()
    assert path.read_bytes() != before


@pytest.mark.parametrize("limit", [500, 20_000, 60_000])
def test_a_write_the_system_refuses_leaves_nothing_under_a_final_name(path, limit):
    frames = noise(sum(CHUNKS))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # a real failing write, also for root
    try:
        with pytest.raises(VideoError, match=r"file is too large.*clip") as error:
            write(path, frames, lossless=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno == errno.EFBIG
    assert not list(path.parent.rglob("*.part"))
    assert not path.exists()
    assert not path.with_suffix(".mkv").exists()
    write(path, frames, lossless=True)
    np.testing.assert_array_equal(read(path.with_suffix(".mkv")), frames)


def test_full_disk_says_what_to_do(path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VideoError, match=r"disk is full.*same command again.*clip\.parts/00000\.mp4"):
        write(path, noise(9), chunks=(9,))
    assert [p.name for p in path.parent.iterdir()] == ["clip.parts"]
    assert list((path.parent / "clip.parts").iterdir()) == []


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VideoError, match="choose another results folder"):
        VideoWriter(tmp_path / "file" / "clip.mp4", fps=16)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 99])
def test_reading_what_is_no_video(tmp_path, content):
    file = tmp_path / "broken.mp4"
    file.write_bytes(content)
    for reader in (read, probe):
        with pytest.raises(VideoError, match=r"broken\.mp4"):
            reader(file)


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(VideoError, match=r"no such file.*none\.mp4"):
        read(tmp_path / "none.mp4")


def test_misuse_is_refused(path):
    with VideoWriter(path, fps=16) as writer:
        for bad in (noise(2).astype(float), noise(2)[0], noise(2)[..., :2]):
            with pytest.raises(ValueError, match="uint8"):
                writer.write(bad)
        writer.write(noise(2))
        with pytest.raises(ValueError, match="one size"):
            writer.write(noise(2, 16, 16))
    with VideoWriter(path, fps=16) as writer, pytest.raises(VideoError, match="no frame"):
        writer.finish()
    with pytest.raises(ValueError, match="scale=0"):
        VideoWriter(path, fps=16, scale=0)


def test_chunked_reading_gives_the_same_frames(path):
    frames = noise(11)
    write(path, frames, chunks=(11,), lossless=True)
    pieces = list(read_frames(path.with_suffix(".mkv"), chunk=4))
    assert [len(piece) for piece in pieces] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate(pieces), frames)


def test_subtitle_lies_below_the_picture(path):
    frames = np.full((4, 64, 64, 3), 90, np.uint8)
    with VideoWriter(path, fps=16, scale=4, subtitles=True) as writer:
        writer.write(frames[:2], "a small red circle moving left")
        writer.write(frames[2:])
        writer.finish()
    shown = read(path).astype(int)
    assert shown.shape == (4, 256 + strip_height(256), 256, 3)
    assert np.abs(shown[:, :240] - 90).max() < 6
    assert shown[:2, 260:].max() > 180
    assert shown[2:, 260:].max() < 40


@pytest.mark.parametrize(
    "text", ["a small red circle moving left over a blue striped background", "x" * 300, "猫" * 90]
)
def test_wrapped_lines_fit(text):
    for lines in (1, 3):
        wrapped = wrap(text, 12, 200, lines)
        assert len(wrapped) <= lines
        assert all(text_width(line, 12) <= 200 for line in wrapped)
    together = "".join(wrapped).replace(" ", "")
    assert together.rstrip("…") in text.replace(" ", "")
    assert text_strip(text, 256).shape == (strip_height(256), 256, 3)


@pytest.mark.parametrize("at", range(1, 11))
def test_ctrl_c_while_ffmpeg_writes_is_not_lost(tmp_path, monkeypatch, at):
    """PyAV swallows what is raised in a file's write, so the writer must raise it again; nothing gets a final name."""
    writes = 0

    class Interrupted(io.FileIO):
        def write(self, data):
            nonlocal writes
            writes += 1
            if writes == at:
                raise KeyboardInterrupt
            return super().write(data)

    monkeypatch.setattr("irope.video.io.FileIO", Interrupted)
    frames = noise(30)
    writer = VideoWriter(tmp_path / "a.mp4", fps=16, lossless=True)
    with pytest.raises(KeyboardInterrupt):
        _write_to_the_end(writer, frames)
    assert writes >= at
    assert not list(tmp_path.glob("*.m*"))
    monkeypatch.undo()
    again = VideoWriter(tmp_path / "a.mp4", fps=16, lossless=True, resume=writer.saved)
    assert _write_to_the_end(again, frames).hash == frame_hash(frames)
    np.testing.assert_array_equal(read(tmp_path / "a.mkv"), frames)


def _write_to_the_end(writer: VideoWriter, frames: np.ndarray) -> Progress:
    with writer:
        for start in range(writer.saved.frames, len(frames), 5):
            writer.write(frames[start : start + 5])
            writer.checkpoint()
        return writer.finish()
