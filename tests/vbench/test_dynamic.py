"""Dynamic degree: the rule and its early decision against a slow reference, flow and verdicts against the package."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eval.scorer import Runtime, Skip
from eval.vbench import raft
from eval.vbench.raft import MovingPairs
from eval.vbench.stock import stock_scores
from eval.vbench.weights import find
from tests.vbench.conftest import moving, static, write_mp4
from tests.vbench.kit import measured, outcomes


def stock_verdict(moves: list[bool]) -> bool:
    """VBench's rule, all pairs known; ``moves`` of n frames has n - 1 of them."""
    needed, counted = round(4 * ((len(moves) + 1) / 16.0)), 0
    for pair in moves:
        counted += pair
        if counted >= needed:
            return True
    return False


@given(st.lists(st.booleans(), max_size=70))
def test_an_early_verdict_is_the_final_one_and_comes_as_early_as_possible(moves):
    rule, final = MovingPairs(len(moves) + 1), stock_verdict(moves)
    for seen in range(len(moves) + 1):
        endings = {stock_verdict(moves[:seen] + [end] * (len(moves) - seen)) for end in (False, True)}
        assert rule.verdict == (endings.pop() if len(endings) == 1 else None)
        if rule.verdict is not None:
            assert rule.verdict == final
            assert rule.unavoidable == 0
        else:
            sure = rule.unavoidable  # any fewer cannot decide, whatever they show
            assert 1 <= sure <= len(moves) - seen
            for ending in ([True] * (sure - 1), [False] * (sure - 1)):
                rest = len(moves) - seen - len(ending)
                assert len({stock_verdict(moves[:seen] + ending + [end] * rest) for end in (False, True)}) == 2
        if seen < len(moves):
            rule.add(moves[seen])


class MadeUp:
    """In place of RAFT: the length of a pair is written into the first pixel of its first frame."""

    def __init__(self) -> None:
        self.computed = 0

    def motion(self, frames, most):
        self.computed += len(frames) - 1
        assert len(frames) - 1 <= 8 * most
        return [float(frame[0, 0, 0]) for frame in frames[:-1]]

    def motion_as_stock(self, frames):
        raise AssertionError("no pair is near the threshold")


@pytest.fixture
def made_up(monkeypatch):
    network = MadeUp()
    monkeypatch.setattr(raft, "load", lambda *_: network)
    monkeypatch.setattr("eval.scorers.vbench.dynamic_degree.DynamicDegree.unavailable", lambda _: None)
    return network


def clip_of(moves: list[bool]) -> np.ndarray:
    frames = np.zeros((len(moves) + 1, 121, 121, 3), np.uint8)
    frames[:-1, 0, 0, 0] = np.where(moves, 10, 1)
    return frames


@pytest.mark.parametrize("seed", range(12))
def test_the_verdict_of_any_clip_is_that_of_all_its_pairs(made_up, seed):
    rng = np.random.default_rng(seed)
    moves = (rng.random(rng.integers(0, 90)) < rng.choice([0.05, 0.2, 0.25, 0.3, 0.9])).tolist()
    frames = clip_of(moves)
    early = measured("dynamic_degree", frames, fps=8, chunk=int(rng.integers(1, 40)))
    computed = made_up.computed
    assert early.extra["pairs_computed"] == computed <= early.extra["pairs"] == len(moves)
    full = measured("dynamic_degree", frames, fps=8, early=False, chunk=int(rng.integers(1, 40)))
    assert made_up.computed - computed == len(moves)
    assert early.value == full.value == float(stock_verdict(moves))
    known = ~np.isnan(early.curve)
    assert known.sum() == computed
    np.testing.assert_array_equal(early.curve[known], full.curve[known])
    np.testing.assert_array_equal(full.curve[1:], np.where(moves, 10.0, 1.0))
    if moves:
        assert full.extra["motion"] == pytest.approx(full.curve[1:].mean())


def test_how_many_pairs_an_early_decision_saves(made_up):
    """A moving clip needs a quarter of its pairs, a static one three quarters; the gain does not fade with length."""
    for frames, moving_pairs, static_pairs in ((16, 4, 12), (40, 10, 30), (1920, 480, 1440)):
        for moves, pairs in ((True, moving_pairs), (False, static_pairs)):
            found = measured("dynamic_degree", clip_of([moves] * (frames - 1)), fps=8, chunk=16)
            assert found.extra["pairs_computed"] == pairs
            assert found.value == moves


def test_windows_share_pairs_and_judge_for_themselves(made_up):
    moves = [True] * 8 + [False] * 40
    windows = [(0, 17), (0, 33), (0, 49), (20, 49)]
    found = outcomes("dynamic_degree", clip_of(moves), windows, chunk=16, fps=8)
    assert [outcome.value for outcome in found] == [1.0, 1.0, 0.0, 0.0]
    assert made_up.computed <= 48
    for (start, stop), outcome in zip(windows, found, strict=True):
        alone = measured("dynamic_degree", clip_of(moves)[start:stop], fps=8, chunk=5)
        assert alone.value == outcome.value
        np.testing.assert_array_equal(alone.curve, outcome.curve)


@pytest.mark.parametrize(("fps", "step"), [(8, 1), (4, 1), (12, 2), (16, 2), (20, 2), (24, 3), (28, 4), (30, 4)])
def test_eight_frames_a_second_are_sampled_rounded_half_to_even(made_up, fps, step):
    found = measured("dynamic_degree", clip_of([False] * 20), fps=fps, chunk=3, early=False)
    assert found.extra["pairs"] == -(-21 // step) - 1
    assert np.flatnonzero(~np.isnan(found.curve)).tolist() == list(range(step, 21, step))


@pytest.fixture(scope="module")
def quiet_weights(weights, tmp_path_factory):
    """Random weights whose flow is about as long as the threshold of a picture of 160 pixels."""
    weights("dynamic_degree")
    state = torch.load(find("raft-things.pth").path)
    state["module.update_block.flow_head.conv2.weight"] /= 60
    state["module.update_block.flow_head.conv2.bias"] *= 0
    cache = tmp_path_factory.mktemp("quiet")
    path = cache / find("raft-things.pth").below
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBENCH_CACHE_DIR", str(cache))
        yield cache


CLIPS = {
    "moving": moving(6, 128, 144),
    "portrait": moving(3, 144, 121, seed=1),
    "odd": moving(3, 123, 131, seed=2, step=5),
    "static": static(3, 128, 128),
    "near": moving(3, 176, 184, seed=3, step=9),  # its second pair moves, its first does not
    "large": moving(3, 200, 208, seed=3, step=9),
    "two": moving(2, 176, 176, seed=3, step=9),
    "one": static(1, 128, 128),
}


@pytest.mark.slow
def test_the_same_verdicts_as_the_stock_package(quiet_weights, tmp_path):
    paths = {name: write_mp4(tmp_path / f"{name}.mp4", clip, fps=8) for name, clip in CLIPS.items()}
    stock = stock_scores(list(paths.values()), ["dynamic_degree"], cache=quiet_weights)["dynamic_degree"].videos
    ours = {name: measured("dynamic_degree", clip, fps=8) for name, clip in CLIPS.items()}
    assert {name: found.value for name, found in ours.items()} == {name: stock[path] for name, path in paths.items()}
    assert [name for name, found in ours.items() if not found.value] == ["large", "one"]
    assert ours["near"].extra["pairs_moving"] == 1
    assert ours["near"].extra["pairs_computed"] == 2
    assert ours["moving"].extra["pairs_computed"] < ours["moving"].extra["pairs"]
    assert ours["two"].extra["pairs_computed"] == 0
    assert ours["one"].notes
    assert ours["two"].notes


@pytest.mark.parametrize("name", ["odd", "portrait"])
def test_the_flow_of_a_run_is_that_of_its_pairs_in_the_package(quiet_weights, name):
    network, clip = raft.load(Runtime()), CLIPS[name]
    stock = [network.motion_as_stock(clip[i : i + 2]) for i in range(2)]
    for most in (1, 2):
        np.testing.assert_allclose(network.motion(clip, most), stock, rtol=1e-6)
    half = raft.load(Runtime(precision="half")).motion(clip)
    np.testing.assert_allclose(half, stock, rtol=0.02)
    assert half != stock


def test_a_pair_near_the_threshold_is_computed_as_the_package_does(made_up, monkeypatch):
    threshold = raft.threshold(121, 121)
    exact = iter([threshold * 1.00001, threshold * 0.99999])
    monkeypatch.setattr(MadeUp, "motion", lambda self, frames, most: [threshold * 1.005] * (len(frames) - 1))
    monkeypatch.setattr(MadeUp, "motion_as_stock", lambda self, frames: next(exact))
    found = measured("dynamic_degree", clip_of([True] * 2), fps=8, early=False)
    assert found.extra["pairs_moving"] == 1


def test_pictures_too_small_for_the_network_are_skipped(quiet_weights):
    (outcome,) = outcomes("dynamic_degree", static(4, 120, 208), runtime=Runtime())
    assert isinstance(outcome, Skip)
    network = raft.load(Runtime())
    assert np.isfinite(network.motion(moving(2, raft.LEAST_SIDE, raft.LEAST_SIDE))).all()
    assert np.isnan(network.motion(moving(2, 120, 128))).all()
