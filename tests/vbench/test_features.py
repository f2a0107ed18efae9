"""Subject and background consistency, aesthetic quality and flickering against the stock package."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eval.registry import make_scorer
from eval.scorer import Measurement, Runtime, Skip
from eval.scorers.consistency import ConsistencyTerms
from eval.scorers.vbench import temporal_flickering
from eval.vbench import networks, packages
from eval.vbench.stock import stock_scores
from tests.vbench.conftest import CLIPS, moving
from tests.vbench.kit import measured, outcomes

CONSISTENCY = ("subject_consistency", "background_consistency")


@pytest.mark.slow
def test_consistency_and_flickering_are_those_of_the_stock_package(weights, clip_paths):
    weights(*CONSISTENCY)
    names = (*CONSISTENCY, "temporal_flickering")
    stock = stock_scores(list(clip_paths.values()), names)
    for name in names:
        ours = {clip: measured(name, frames, chunk=2) for clip, frames in CLIPS.items()}
        for clip, path in clip_paths.items():
            assert ours[clip].value == pytest.approx(stock[name].videos[path], abs=1e-6), (name, clip)
        share = {clip: found.terms for clip, found in ours.items()}
        if make_scorer(name).pooled == "videos":
            share = dict.fromkeys(share, 1)
        pooled = sum(ours[clip].value * terms for clip, terms in share.items()) / sum(share.values())
        assert pooled == pytest.approx(stock[name].overall, abs=1e-6), name
        assert ours["static"].value == pytest.approx(1, abs=1e-6)
        assert len({round(found.value, 3) for found in ours.values()}) == len(CLIPS)  # the features tell clips apart


@pytest.mark.slow
def test_aesthetic_quality_is_that_of_the_stock_package(weights, clip_paths):
    weights("aesthetic_quality")
    few = ("odd", "two")
    stock = stock_scores([clip_paths[clip] for clip in few], ["aesthetic_quality"])["aesthetic_quality"]
    ours = {clip: measured("aesthetic_quality", CLIPS[clip], runtime=Runtime(batch=2)) for clip in few}
    for clip in few:
        assert ours[clip].value == pytest.approx(stock.videos[clip_paths[clip]], abs=1e-6), clip
        assert ours[clip].value == pytest.approx(ours[clip].curve.mean())
        assert ours[clip].terms == len(CLIPS[clip])
    assert np.mean([found.value for found in ours.values()]) == pytest.approx(stock.overall, abs=1e-6)
    assert np.ptp(np.concatenate([found.curve for found in ours.values()])) > 1e-3  # frames differ


@pytest.mark.parametrize("name", CONSISTENCY)
def test_neither_chunks_nor_batches_nor_windows_change_a_number(weights, name):
    weights(name)
    clip = CLIPS["portrait"]
    whole, start = outcomes(name, clip, [(0, 3), (0, 4)], chunk=3, runtime=Runtime(batch=2))[::-1]
    assert isinstance(whole, Measurement)
    assert isinstance(start, Measurement)
    assert measured(name, clip, chunk=4).curve == pytest.approx(whole.curve, abs=1e-6, nan_ok=True)
    assert measured(name, clip[:3], chunk=1).value == pytest.approx(start.value, abs=1e-6)
    assert start.curve == pytest.approx(whole.curve[:3], abs=1e-12, nan_ok=True)
    assert (start.terms, whole.terms) == (2, 3)
    assert whole.value == pytest.approx((whole.extra["to_previous"] + whole.extra["to_first"]) / 2)


def test_cores_share_the_batches_and_leave_the_threads_as_they_were(weights):
    weights("background_consistency")
    one = measured("background_consistency", CLIPS["landscape"], runtime=Runtime(batch=2))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        several = measured("background_consistency", CLIPS["landscape"], runtime=Runtime(batch=2))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert several.curve == pytest.approx(one.curve, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", CONSISTENCY)
def test_half_precision_is_near_and_not_the_default(weights, name):
    weights(name)
    exact = measured(name, CLIPS["two"])
    half = measured(name, CLIPS["two"], runtime=Runtime(precision="half"))
    assert 0 < abs(half.value - exact.value) < 5e-3


@pytest.mark.parametrize("name", [*CONSISTENCY, "temporal_flickering"])
def test_one_frame_is_skipped_with_the_reason(weights, name):
    weights(*CONSISTENCY)
    (outcome,) = outcomes(name, CLIPS["two"][:1])
    assert isinstance(outcome, Skip)
    assert "one frame" in str(outcome)


def test_scorers_share_the_features_of_a_frame(weights, monkeypatch):
    weights("background_consistency")
    seen: list[int] = []
    run = networks.in_batches

    def counting(*arguments):
        seen.append(len(arguments[1]))
        return run(*arguments)

    monkeypatch.setattr(networks, "in_batches", counting)
    outcomes("background_consistency", CLIPS["landscape"], [(0, 3), (0, 5), (2, 5)], chunk=4)
    assert seen == [4, 1]


def test_the_fast_forward_pass_serves_only_networks_it_agrees_with(weights):
    weights("subject_consistency")
    fast = networks.dino(str(packages.cache_dir()), "cpu")
    network = fast.network
    pictures = torch.from_numpy(moving(1, 64, 96)).permute(0, 3, 1, 2).float() / 64 - 2
    with torch.inference_mode():
        slow = network(pictures)
        assert torch.allclose(fast(pictures), slow, rtol=1e-5, atol=1e-5)
    assert networks._agrees(network, "cpu")
    network.blocks[3].attn.num_heads = 6  # the fast pass reads it, the stand-in's own pass does not
    try:
        assert not networks._agrees(network, "cpu")
    finally:
        network.blocks[3].attn.num_heads = 12
    assert not networks._agrees(torch.nn.Identity(), "cpu")


def test_a_scorer_knows_what_its_numbers_depend_on(weights):
    weights("subject_consistency")
    found = make_scorer("subject_consistency").identity()
    assert len(found["dino_model/dino_vitbase16_pretrain.pth"]) == 64
    assert found["vbench"]
    assert "dino_vitbase16_pretrain.pth" not in found  # the stock package's second copy decides nothing here


def test_a_damaged_file_is_named(weights, monkeypatch, tmp_path):
    weights("background_consistency")
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    for name in ("ViT-B-32.pt", "dino_vitbase16_pretrain.pth"):
        place = networks.find(name).path
        place.parent.mkdir(parents=True)
        place.write_bytes(b"<html>not found</html>")
        with pytest.raises(packages.VBenchError, match=f"{name} cannot be read .*weights --digest"):
            networks.read_state(name)


Rows = NDArray[np.float64]


def by_the_book(features: Rows) -> tuple[float, list[float]]:
    """The formula, frame by frame, with torch's own cosine."""
    rows = [torch.from_numpy(row) for row in features]
    terms = []
    for before, here in itertools.pairwise(rows):
        pair = [max(0.0, torch.cosine_similarity(other, here, dim=0).item()) for other in (before, rows[0])]
        terms.append(sum(pair) / 2)
    return sum(terms) / len(terms), terms


@pytest.mark.parametrize("cuts", [[], [1], [2, 3, 7]])
def test_consistency_terms_are_those_of_the_formula(cuts):
    features = np.random.default_rng(4).normal(0.4, 1, (9, 6)) * np.arange(1, 10)[:, None]
    terms = ConsistencyTerms(9)
    for piece in np.split(features, cuts):
        terms.push(piece.astype(np.float32))
    found, (value, curve) = terms.close(), by_the_book(features.astype(np.float32).astype(np.float64))
    assert found.value == pytest.approx(value, abs=1e-7)
    assert found.curve[1:] == pytest.approx(curve, abs=1e-7)
    assert np.isnan(found.curve[0])
    assert min(curve) < 0.1 < max(curve)  # cut off at zero, and not


def test_worked_numbers():
    terms = ConsistencyTerms(3)
    terms.push(np.array([[1, 0], [0.6, 0.8], [-1, 0]], np.float32))
    found = terms.close()
    assert found.curve[1:] == pytest.approx([0.6, 0])
    assert found.extra == pytest.approx({"to_previous": 0.3, "to_first": 0.3})


def test_flickering_without_opencv_is_the_same(monkeypatch):
    clip = np.random.default_rng(1).integers(0, 256, (4, 21, 33, 3), dtype=np.uint8)
    by_hand = 1 - np.abs(np.diff(clip.astype(np.float64), axis=0)).mean() / 255
    assert measured("temporal_flickering", clip, chunk=3).value == pytest.approx(by_hand, abs=1e-12)
    monkeypatch.setitem(sys.modules, "cv2", None)
    temporal_flickering._summed_difference.cache_clear()
    try:
        assert measured("temporal_flickering", clip[:, ::-1], chunk=3).value == pytest.approx(by_hand, abs=1e-12)
    finally:
        temporal_flickering._summed_difference.cache_clear()
