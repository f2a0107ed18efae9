"""VBench-Long as a protocol, against a slow reference written from the description of the official tool."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import vbench_long
from eval.clip_features import ClipFeatures
from eval.clips import copies
from eval.mapping import mapped, tables
from eval.reader import open_video
from eval.reencode import Reencoded
from eval.scorer import Derived, Frames, Measurement, Part, Runtime, Scorer, Skip, Span, Take, VideoFacts
from eval.scorers.consistency import ConsistencyTerms
from eval.scorers.vbench.temporal_flickering import TemporalFlickering
from eval.vbench_long import Clips, ClipsError
from irope.settings import check_settings
from irope.video import VideoError, VideoWriter

CONF = Path(__file__).resolve().parents[2] / "conf"
FLICKER = {"temporal_flickering": TemporalFlickering()}


def noise(frames: int, height: int = 6, width: int = 8, seed: int = 0) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


def pan(frames: int, height: int = 96, width: int = 128, seed: int = 0) -> Frames:
    """A textured picture that moves, with the noise of a camera: what a video encoder smooths."""
    rng = np.random.default_rng(seed)
    texture = np.kron(rng.uniform(0, 255, (height // 8, (width + 2 * frames) // 8 + 1, 1)), np.ones((8, 8, 3)))
    moved = np.stack([texture[:, 2 * i : 2 * i + width] for i in range(frames)])
    return np.clip(moved + rng.normal(0, 4, moved.shape), 0, 255).astype(np.uint8)


@dataclass
class Video:
    """Stands for a VideoReader; counts the frames that are read."""

    pixels: Frames
    fps: float = 16.0
    path: Path = Path("video")
    read: int = 0

    def chunks(self, size: int = 32, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Frames]]:
        for first in range(start, len(self.pixels) if stop is None else stop, size):
            frames = self.pixels[first : min(first + size, len(self.pixels) if stop is None else stop)]
            self.read += len(frames)
            yield first, frames

    def take(self, start: int = 0, stop: int | None = None, name: str = "video") -> Take:
        frames, height, width = self.pixels.shape[:3]
        facts = VideoFacts(name, frames, self.fps, height, width, (Span(0, frames, "a prompt"),))
        return Take(facts, start, frames if stop is None else stop)


def score(video: Video, protocol: Clips, scorers: Mapping[str, Scorer | Derived], *windows: Take):
    takes = windows or (video.take(),)
    found = {done.take: done.outcomes for done in protocol.score(video, takes, scorers, Runtime())}  # type: ignore[arg-type]
    assert found.keys() == set(takes)
    return [found[take] for take in takes]


# The reference: the steps of metrics.md, one after the other, on arrays.


def cut(frames: Frames, segment: int) -> list[Frames]:
    if len(frames) < segment:
        return [frames]
    count, remaining = divmod(len(frames), segment)
    pieces = [frames[i * segment : (i + 1) * segment] for i in range(count)]
    if remaining:
        begin = count * segment - (segment - remaining)
        pieces.append(frames[begin:])
    return pieces


def flickering(frames: Frames) -> float:
    wide = frames.astype(np.float64)
    return float(np.mean([1 - np.abs(b - a).mean() / 255 for a, b in pairwise(wide)]))


def features(frames: Frames) -> np.ndarray:
    return frames.reshape(len(frames), -1)[:, ::5].astype(np.float64) - 100


def consistency(frames: Frames) -> float:
    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return max(0.0, float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))

    rows = features(frames)
    return float(np.mean([(cosine(rows[i - 1], rows[i]) + cosine(rows[0], rows[i])) / 2 for i in range(1, len(rows))]))


@dataclass(frozen=True)
class Consistency(Scorer):
    """The formula on pixels; remembers which takes it was opened for."""

    family = "vbench"
    opened: list[Take] = field(default_factory=list, compare=False)

    def open(self, take: Take, runtime: Runtime):
        self.opened.append(take)
        return _Consistency(take.frames)


class _Consistency:
    def __init__(self, frames: int) -> None:
        self.terms = ConsistencyTerms(frames)

    def push(self, part: Part) -> None:
        self.terms.push(part.rows("pixels", features))

    def close(self) -> Measurement:
        return self.terms.close()


@given(
    frames=st.integers(1, 120),
    start=st.integers(0, 20),
    fps=st.sampled_from([2.0, 7.99, 16.0, 23.976]),
    seconds=st.sampled_from([0.5, 1.0, 2.0]),
)
@settings(max_examples=80, deadline=None)
def test_every_window_is_cut_scored_and_averaged_as_the_official_tool_does(frames, start, fps, seconds):
    video = Video(noise(140), fps)
    protocol = Clips(seconds=seconds)
    (outcomes,) = score(video, protocol, FLICKER, video.take(start, start + frames))
    outcome = outcomes["temporal_flickering"]
    segment = int(int(fps) * seconds)
    pieces = cut(video.pixels[start : start + frames], segment)
    if min(map(len, pieces)) < 2:
        assert isinstance(outcome, Skip)
        return
    assert outcome.value == pytest.approx(np.mean([flickering(piece) for piece in pieces]), abs=1e-12)
    assert outcome.extra["clips"] == len(pieces)
    assert outcome.terms == sum(len(piece) - 1 for piece in pieces)


def test_clips_by_hand():
    """70 frames at 16 fps: two clips of 32 frames and a third that starts 26 frames before the second one ends."""
    video = Video(noise(70))
    scorer = Consistency()
    score(video, Clips(features="same"), {"other": scorer})
    assert [(take.start, take.stop) for take in scorer.opened] == [(0, 32), (32, 64), (38, 70)]


def test_windows_share_clips_and_one_pass():
    video = Video(noise(200))
    scorer = Consistency()
    windows = [video.take(0, 70), video.take(0, 128), video.take(), video.take(0, 10)]
    found = score(video, Clips(), {"other": scorer}, *windows)
    assert video.read == 200
    assert len(scorer.opened) == len(set(scorer.opened)) == 6 + 1 + 1 + 1  # of 200 frames, 70's and 200's last, 10
    for window, outcomes in zip(windows, found, strict=True):
        pieces = cut(video.pixels[: window.stop], 32)
        assert outcomes["other"].value == pytest.approx(np.mean([consistency(piece) for piece in pieces]), abs=1e-12)


def test_a_window_is_given_out_as_soon_as_its_last_frame_was_read():
    video = Video(noise(320))
    found = Clips().score(video, [video.take(), video.take(0, 64)], FLICKER, Runtime())  # type: ignore[arg-type]
    assert next(found).take.stop == 64
    assert video.read <= 96


@pytest.mark.parametrize("mapping", [True, False])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("frames", [20, 32, 33, 64, 150])
@pytest.mark.parametrize("name", ["subject_consistency", "background_consistency"])
def test_the_first_frames_of_the_clips_are_a_video_of_their_own(name, frames, weight, mapping):
    pixels = noise(frames, seed=1) // 2 + noise(1, seed=2) // 2  # frames alike, but not the same
    video = Video(pixels)
    protocol = Clips(features="same", clip_to_clip=weight, mapping=mapping)
    (outcomes,) = score(video, protocol, {name: Consistency()}, video.take(name="a_blue ball_x-0"))
    found = outcomes[name]
    pieces = cut(pixels, 32)
    inclip = np.mean([consistency(piece) for piece in pieces])
    assert found.extra["inclip"] == pytest.approx(inclip, abs=1e-12)
    if len(pieces) == 1:
        assert found.value == pytest.approx(inclip, abs=1e-12)
        assert "clip2clip" not in found.extra
        return
    between = consistency(np.stack([piece[0] for piece in pieces]))
    low, high = int(between * 100), int(between * 100) + 1
    table = yaml.safe_load((Path(vbench_long.__file__).parent / "mapping_table.yaml").read_text())[name]
    by_table = table[low] + (table[high] - table[low]) * (between * 100 - low)
    assert found.extra["clip2clip"] == pytest.approx(between, abs=1e-12)
    assert found.extra["mapped_clip2clip"] == pytest.approx(by_table, abs=1e-9)
    expected = (1 - weight) * inclip + weight * (by_table if mapping else between)
    assert found.value == pytest.approx(expected, abs=1e-9)


def test_fusion_in_worked_numbers():
    """Two clips in which nothing moves, .8 and .6 alike by construction: in-clip 1, clip to clip cos = .6."""
    clip = np.zeros((64, 1, 5, 3), np.uint8) + 100  # features take every fifth value and subtract 100
    clip[:, 0, 0, 0] = 110
    clip[32:, 0, 0, 0], clip[32:, 0, 1, 2] = 106, 108  # (10, 0, 0) and (6, 8, 0)
    video = Video(clip)
    (plain,) = score(video, Clips(features="same", mapping=False), {"subject_consistency": Consistency()})
    assert plain["subject_consistency"].extra["clip2clip"] == pytest.approx(0.6)
    assert plain["subject_consistency"].value == pytest.approx(0.8)
    (official,) = score(video, Clips(features="same"), {"subject_consistency": Consistency()})
    assert official["subject_consistency"].value == pytest.approx((1 + 0.951897174598649) / 2)
    clip[32:, 0, 0, 0], clip[32:, 0, 1, 2] = 100, 110  # at right angles
    (quirk,) = score(video, Clips(features="same"), {"subject_consistency": Consistency()})
    assert quirk["subject_consistency"].value == 1.0  # the official tool takes 0 for "has no fast score"
    (honest,) = score(video, Clips(features="same", mapping=False), {"subject_consistency": Consistency()})
    assert honest["subject_consistency"].value == 0.5


def test_first_frames_stay_in_order_of_time_beyond_a_thousand_clips():
    """The official tool sorts clips by file name, where _1000 comes before _101."""
    pixels = np.cumsum(np.random.default_rng(0).integers(-2, 3, (2102, 2, 5, 3)), 0).clip(-80, 80) + 128
    video = Video(pixels.astype(np.uint8), fps=2.0)
    (outcomes,) = score(video, Clips(seconds=1.0, features="same"), {"subject_consistency": Consistency()})
    assert outcomes["subject_consistency"].extra["clips"] == 1051
    assert outcomes["subject_consistency"].extra["clip2clip"] == pytest.approx(consistency(video.pixels[::2]), abs=1e-9)


def test_tables_are_the_official_ones():
    points = {
        "subject_consistency": {0: 0, 0.5: 0.93267, 0.8: 0.97950, 0.9: 0.98871, 1: 1},
        "background_consistency": {0: 0, 0.5: 0.94606, 0.8: 0.96416, 0.9: 0.97172, 1: 1},
    }
    assert tables().keys() == points.keys()
    for name, known in points.items():
        assert len(tables()[name]) == 101
        assert (np.diff(tables()[name]) > 0).all()
        for similarity, value in known.items():
            assert mapped(name, similarity) == pytest.approx(value, abs=5e-6)
        assert mapped(name, 0.805) == pytest.approx((mapped(name, 0.80) + mapped(name, 0.81)) / 2, abs=1e-12)
        assert mapped(name, 1.0000001) == 1


def test_the_curve_is_the_score_of_the_first_clip_that_holds_a_frame():
    video = Video(noise(70))
    (outcomes,) = score(video, Clips(), FLICKER)
    a, b, c = (flickering(piece) for piece in cut(video.pixels, 32))
    assert np.allclose(outcomes["temporal_flickering"].curve, np.repeat([a, b, c], [32, 32, 6]), atol=1e-12, rtol=0)


@dataclass(frozen=True)
class Dark(Scorer):
    """Brightness of a clip; clips that are bright from the start have none."""

    family = "long"

    def open(self, take: Take, runtime: Runtime):
        return _Dark()


class _Dark:
    def __init__(self) -> None:
        self.means: list[float] = []

    def push(self, part: Part) -> None:
        self.means += [float(frame.mean()) for frame in part.frames]
        if self.means[0] > 200:
            raise Skip("it is bright")

    def close(self) -> Measurement:
        return Measurement(float(np.mean(self.means)), len(self.means), extra={"frames": float(len(self.means))})


@dataclass(frozen=True)
class Twice(Derived):
    @property
    def of(self) -> Sequence[str]:
        return ("dark",)

    def derive(self, take: Take, found: Mapping[str, Measurement]) -> Measurement:
        return Measurement(2 * found["dark"].value, take.frames)


def test_clips_without_a_value_are_told_and_derived_scores_are_of_the_window():
    pixels = np.concatenate([np.full((32, 2, 2, 3), level, np.uint8) for level in (10, 250, 30)])
    video = Video(pixels)
    (outcomes,) = score(video, Clips(), {"twice": Twice(), "dark": Dark()})
    assert list(outcomes) == ["twice", "dark"]
    dark = outcomes["dark"]
    assert (dark.value, dark.terms, dark.extra) == (20.0, 64, {"clips": 2.0, "frames": 32.0})
    assert dark.notes == ("1 of 3 clips have no value: it is bright",)
    assert np.isnan(dark.curve).sum() == 32
    (bright,) = score(video, Clips(), {"dark": Dark(), "twice": Twice()}, video.take(32, 64))
    assert str(bright["dark"]) == "it is bright"
    assert isinstance(bright["twice"], Skip)
    assert (outcomes["twice"].value, outcomes["twice"].terms) == (40.0, 96)


# Scenes


def test_each_scene_is_a_long_video_of_its_own(monkeypatch):
    asked = []
    monkeypatch.setattr(vbench_long, "scene_cuts", lambda path, threshold: asked.append((path, threshold)) or [50, 60])
    monkeypatch.setattr(Clips, "unavailable", lambda self, name: None)
    video = Video(noise(140, seed=3) // 2 + 64)
    protocol = Clips(features="same", mapping=False, scenes=35)
    whole, prefix = score(video, protocol, {"subject_consistency": Consistency()}, video.take(), video.take(0, 40))
    assert asked == [(Path("video"), 35)]
    values, inclip = [], []
    for scene in (video.pixels[:50], video.pixels[50:60], video.pixels[60:]):
        pieces = cut(scene, 32)
        slow = [consistency(piece) for piece in pieces]
        fast = consistency(np.stack([piece[0] for piece in pieces])) if len(pieces) > 1 else None
        values += [s if fast is None else (s + fast) / 2 for s in slow]
        inclip += [(len(piece) - 1, s) for piece, s in zip(pieces, slow, strict=True)]
    found = whole["subject_consistency"]
    assert found.value == pytest.approx(np.mean(values), abs=1e-12)
    assert found.extra["inclip"] == pytest.approx(sum(n * s for n, s in inclip) / sum(n for n, _ in inclip), abs=1e-12)
    assert found.extra["clips"] == 6
    pieces = cut(video.pixels[:40], 32)
    expected = np.mean([consistency(p) for p in pieces]) + consistency(np.stack([p[0] for p in pieces]))
    assert prefix["subject_consistency"].value == pytest.approx(expected / 2, abs=1e-12)


def test_a_hard_cut_is_found_where_the_detector_is_installed(tmp_path):
    pytest.importorskip("scenedetect")
    shots = [np.full((40, 64, 96, 3), colour, np.uint8) for colour in ([200, 30, 30], [20, 40, 210])]
    with VideoWriter(tmp_path / "two_shots.mp4", fps=16) as writer:
        writer.write(np.concatenate(shots))
        writer.finish()
    assert vbench_long.scene_cuts(tmp_path / "two_shots.mp4", 35) == [40]


def test_without_the_detector_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(vbench_long.importlib.util, "find_spec", lambda name: None)
    (outcomes,) = score(Video(noise(40)), Clips(scenes=35), FLICKER)
    assert "pip install scenedetect-headless" in str(outcomes["temporal_flickering"])


# Lossy copies


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
    windows = [video.take(), video.take(0, 40)]  # which overlap, and begin with the same clip
    found = score(video, protocol, {"subject_consistency": Consistency()}, *windows)[0]["subject_consistency"]
    assert found.extra["clip2clip"] == pytest.approx(between, abs=1e-12)
    assert found.extra["inclip"] == pytest.approx(np.mean([consistency(p) for p in pieces]), abs=1e-12)
    assert list(temporary.iterdir()) == []


def test_copies_are_the_same_every_time_and_leave_nothing_behind(temporary):
    video, seen = Video(pan(100)), []
    takes = [video.take(0, 32), video.take(32, 64), video.take(64, 96), video.take(68, 100)]
    for _ in range(3):
        for clip, chunks in copies(video.chunks(7), takes, "crf23"):
            frames = [(start, frames) for start, frames in chunks]
            assert [start for start, _ in frames] == [clip.start]
            seen.append(np.concatenate([f for _, f in frames]))
            assert len(seen[-1]) == clip.frames
            assert list(temporary.iterdir()) == []
    assert all((first == second).all() for first, second in zip(seen[:8], seen[4:], strict=True))
    begun = copies(video.chunks(7), takes, "crf23")
    next(begun)
    begun.close()
    assert list(temporary.iterdir()) == []


def test_what_cannot_be_encoded_is_skipped_or_told(monkeypatch):
    odd = Video(noise(40, 5, 8))
    (outcomes,) = score(odd, Clips(reencode="crf23"), FLICKER)
    assert "even sides, not 8x5" in str(outcomes["temporal_flickering"])
    with pytest.raises(VideoError, match="8x5"), Reencoded("crf23", 16) as copy:
        copy.write(odd.pixels)
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(VideoError, match="TMPDIR"):
        Reencoded("crf23", 16)


# The official networks of the fast branch, which no package brings

needs_torchvision = pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def test_missing_networks_are_named_and_cost_the_fast_dimensions_only(home):
    video = Video(noise(70))
    scorers = {"subject_consistency": Consistency(), "background_consistency": Consistency(), **FLICKER}
    (outcomes,) = score(video, Clips(), scorers)
    assert isinstance(outcomes["temporal_flickering"], Measurement)
    assert "facebookresearch_dinov2_main" in str(outcomes["subject_consistency"])
    assert "dreamsim" in str(outcomes["background_consistency"])
    assert "features=same" in str(outcomes["background_consistency"])
    (plain,) = score(video, Clips(clip_to_clip=0.0), scorers)
    value = np.mean([consistency(piece) for piece in cut(video.pixels, 32)])
    assert plain["subject_consistency"].value == pytest.approx(value, abs=1e-12)
    assert "clip2clip" not in plain["subject_consistency"].extra
    assert Clips().unavailable("subject_consistency") == str(outcomes["subject_consistency"])
    assert Clips().unavailable("imaging_quality") is None


@needs_torchvision
def test_dinov2_is_read_from_the_local_hub_with_its_own_pictures(home):
    hub = home / "torch" / "hub"
    (hub / "facebookresearch_dinov2_main").mkdir(parents=True)
    (hub / "checkpoints").mkdir()
    (hub / "facebookresearch_dinov2_main" / "hubconf.py").write_text(
        "import torch\ndef dinov2_vitb14():\n    return torch.nn.Flatten()\n"
    )
    scorer = ClipFeatures("dinov2_vitb14")
    assert "dinov2_vitb14_pretrain.pth" in str(scorer.unavailable())
    (hub / "checkpoints" / "dinov2_vitb14_pretrain.pth").write_bytes(b"weights")
    assert scorer.unavailable() is None
    assert len(scorer.identity()["dinov2_vitb14_pretrain.pth"]) == 64
    frames = noise(3, 256, 300)  # the short side is 256 already: nothing is resized, the middle 224x224 is taken
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    rows = ((frames[:, 16:240, 38:262] / 255 - mean) / std).reshape(3, -1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = np.mean([max(0, rows[i] @ rows[j]) for i, j in ((0, 1), (0, 1), (1, 2), (0, 2))])
    video = Video(np.repeat(frames, 2, 0), fps=2.0)
    protocol = Clips(seconds=1.0, clip_to_clip=1.0, mapping=False)
    (outcomes,) = score(video, protocol, {"subject_consistency": Consistency()})
    assert outcomes["subject_consistency"].value == pytest.approx(expected, abs=1e-5)
    assert protocol.identity("subject_consistency") == scorer.identity()


@needs_torchvision
def test_dreamsim_is_never_asked_to_download(home, monkeypatch):
    asked = {}

    class Network:
        def embed(self, pictures):
            assert pictures.shape[1:] == (3, 224, 224)
            assert (float(pictures.min()), float(pictures.max())) == pytest.approx((0, 1), abs=1e-3)
            return pictures.mean((2, 3)).squeeze()  # squeezes, as the package does

    fake = ModuleType("dreamsim")
    fake.__spec__ = ModuleSpec("dreamsim", None)
    fake.dreamsim = lambda **given: (asked.update(given) or Network(), None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dreamsim", fake)
    scorer = ClipFeatures("dreamsim_ensemble")
    assert "dino_vitb16_pretrain.pth" in str(scorer.unavailable())
    (home / ".cache" / "ensemble_lora").mkdir(parents=True)
    for name in ("dino_vitb16_pretrain.pth", "open_clip_vitb16_pretrain.pth.tar", "clip_vitb16_pretrain.pth.tar"):
        (home / ".cache" / name).touch()
    (home / ".cache" / "ensemble_lora" / "adapter_config.json").touch()
    assert scorer.unavailable() is None
    frames = np.zeros((4, 30, 40, 3), np.uint8)
    frames[:2, ..., 0], frames[2:, ..., 1] = 255, 255  # red, then green
    (outcomes,) = score(
        Video(frames, fps=2.0), Clips(seconds=1.0, mapping=False), {"background_consistency": Consistency()}
    )
    assert outcomes["background_consistency"].extra["clip2clip"] == pytest.approx(0, abs=1e-6)
    assert asked == {"pretrained": True, "device": "cpu", "cache_dir": str(home / ".cache")}


# Settings


def test_the_shipped_settings_are_the_documented_ones():
    shipped = yaml.safe_load((CONF / "protocol" / "vbench_long.yaml").read_text(encoding="utf-8"))
    assert shipped["kind"] == Clips.kind
    check_settings(Clips, shipped["settings"], "settings", ClipsError)
    protocol = Clips(**shipped["settings"])
    assert protocol == Clips()
    assert json.loads(json.dumps(protocol.record())) == protocol.record()
    assert Clips(reencode="crf23").record() != protocol.record()


@pytest.mark.parametrize(
    "values", [{"seconds": 0.0}, {"clip_to_clip": 1.5}, {"scenes": 0.0}, {"scenes": 35.0, "reencode": "crf23"}]
)
def test_settings_that_make_no_sense_are_refused(values):
    with pytest.raises(ClipsError, match=next(iter(values))):
        Clips(**values)


def test_a_rate_too_low_for_a_clip_is_told():
    (outcomes,) = score(Video(noise(40), fps=0.5), Clips(), FLICKER)
    assert "0.5 frames per second" in str(outcomes["temporal_flickering"])
