"""Motion, freezes and loops of known length and lag."""

import io
from itertools import pairwise

import av
import numpy as np
import pytest

from eval.scorer import Measurement, Span
from eval.scorers.long.thumbnails import cells
from irope.world import Staging, render, sample_scene, sample_staging
from irope.world.scene import ACTIONS
from tests.long_measures_kit import FPS, Frames, clip, score, score_all, skipped, wander

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
