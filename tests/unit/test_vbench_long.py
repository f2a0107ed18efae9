"""VBench-Long as a protocol: cutting, both branches, fusion, scenes; each against the slow reference."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import vbench_long
from eval.mapping import mapped, tables
from eval.scorer import Derived, Measurement, Part, Runtime, Scorer, Skip, Take
from eval.vbench_long import Clips, ClipsError
from irope.settings import check_settings
from irope.video import VideoWriter
from tests.vbench_long_kit import FLICKER, Consistency, Video, consistency, cut, flickering, noise, score

CONF = Path(__file__).resolve().parents[2] / "conf"


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
    """Two clips in which nothing moves, so in-clip is 1; features (10, 0) and (6, 8), so clip to clip is .6."""
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
