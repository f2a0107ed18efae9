"""Overall consistency: the sampling and the core on a small ViCLIP against the package."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eval.scorer import Chunk, Pairs, Part, Runtime, Skip, Take, VideoFacts
from eval.vbench import packages, viclip
from eval.vbench.random_weights import random_state
from eval.vbench.weights import copy_vocabulary, find
from tests.vbench.conftest import moving, noise, static, write_mp4
from tests.vbench.kit import measured, outcomes

SCORER = "eval.scorers.vbench.overall_consistency.OverallConsistency.unavailable"
PROMPT = "A red disc crosses a wall, it's slow & bright"
CLIPS = {
    "long": moving(21, 72, 96),
    "portrait": moving(8, 240, 130, seed=1),
    "odd": moving(11, 51, 73, seed=2, step=5),
    "two": moving(2, 64, 64, seed=3, step=9),
    "one": noise(1, 64, 64),
    "static": static(9, 64, 64),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory, weights):
    """Path of the weights of a ViCLIP of two narrow layers, which the package builds in place of its own."""
    weights()
    cache = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBENCH_CACHE_DIR", str(cache))
        patch.setattr(SCORER, lambda _: None)
        copy_vocabulary()
        packages.load("vbench.utils")
        package = packages.load("vbench.third_party.ViCLIP.viclip")
        vision = packages.load("vbench.third_party.ViCLIP.viclip_vision").VisionTransformer
        text = packages.load("vbench.third_party.ViCLIP.viclip_text").CLIP_TEXT
        patch.setattr(package, "clip_joint_l14", lambda **_: vision(224, 14, 64, 2, 4, 48, drop_path=0.1).eval())
        patch.setattr(package, "clip_text_l14", lambda **_: text(48, 32, 49408, 32, 4, 2, 0).eval())
        path = find("ViClip-InternVid-10M-FLT.pth").path
        with torch.random.fork_rng():
            torch.save({"model": random_state(package.ViCLIP(pretrain=None).state_dict(), seed=8, gain=2.0)}, path)
        yield path


@pytest.fixture
def stock(small, tmp_path):
    """The package's own function, on frames: it reads an mp4 without loss."""
    tokenizer = packages.load("vbench.third_party.ViCLIP.simple_tokenizer").SimpleTokenizer()
    network = packages.load("vbench.third_party.ViCLIP.viclip").ViCLIP(tokenizer, str(small))
    score = packages.load("vbench.overall_consistency").overall_consistency

    def of(frames: np.ndarray, prompt: str) -> float:
        path = write_mp4(tmp_path / "clip.mp4", frames)
        return float(score(network, [{"prompt": prompt, "video_list": [str(path)]}], tokenizer, "cpu")[0])

    yield of
    import decord

    decord.bridge.set_bridge("native")  # the package leaves it at torch


@pytest.mark.skipif(packages.missing() is not None, reason=f"vbench: {packages.missing()}")
def test_the_frames_sampled_are_those_of_the_package():
    stock = packages.load("vbench.utils").get_frame_indices
    for frames in range(1, 400):
        assert viclip.middle_frames(frames) == [int(i) for i in stock(8, frames, sample="middle")]


@pytest.mark.parametrize("name", CLIPS)
def test_the_same_numbers_as_the_package(stock, name):
    ours = measured("overall_consistency", CLIPS[name], prompts=[PROMPT])
    assert ours.value == pytest.approx(stock(CLIPS[name], PROMPT), abs=1e-6)


def test_prompts_and_videos_tell_apart_and_chunks_do_not(stock):
    clip = CLIPS["long"]
    texts = [PROMPT, "rain", "a very " + "long " * 80 + "prompt, cut off"]
    values = [measured("overall_consistency", clip, prompts=[text], chunk=3).value for text in texts]
    assert values == pytest.approx([stock(clip, text) for text in texts], abs=1e-6)
    assert len({round(value, 3) for value in values}) == 3
    for chunk in (1, 21):
        assert measured("overall_consistency", clip, prompts=[PROMPT], chunk=chunk).value == values[0]
    assert measured("overall_consistency", CLIPS["static"], prompts=[PROMPT]).value != pytest.approx(values[0])


def test_windows_and_segments_are_scored_as_a_cut_video(small):
    clip = moving(20, 64, 80, seed=7)
    windows = [(0, 10), (0, 20), (5, 17)]
    for (start, stop), inside in zip(
        windows, outcomes("overall_consistency", clip, windows, prompts=[PROMPT], chunk=7), strict=True
    ):
        alone = measured("overall_consistency", clip[start:stop], prompts=[PROMPT], chunk=7)
        assert inside.value == alone.value
    take = Take(VideoFacts("clip", 20, 16, 64, 80), 0, 20)
    segment = viclip.Sample(5, 17)
    for at in range(0, 20, 6):
        segment.push(Part(Chunk(at, clip[at : at + 6]), take, Pairs()))
    assert viclip.load(Runtime()).similarity(segment.tensor(), PROMPT) == alone.value


def test_one_prompt_is_needed(small):
    clip = CLIPS["one"]
    (none,) = outcomes("overall_consistency", clip)
    (empty,) = outcomes("overall_consistency", clip, prompts=[" "])
    assert isinstance(none, Skip)
    assert isinstance(empty, Skip)
    two = outcomes("overall_consistency", CLIPS["long"], [(0, 21), (0, 10)], prompts=["walks", "runs"])
    assert isinstance(two[0], Skip)
    assert "2 prompts" in str(two[0])
    assert two[1].value == measured("overall_consistency", CLIPS["long"][:10], prompts=["walks"]).value
    assert measured("overall_consistency", CLIPS["long"], prompts=["walks", "walks"]).value


def test_a_text_is_encoded_once(small, monkeypatch):
    network, encoded = viclip.load(Runtime()), []
    encode = network.network.encode_text
    monkeypatch.setattr(network.network, "encode_text", lambda text: encoded.append(text) or encode(text))
    for _ in range(3):
        measured("overall_consistency", CLIPS["one"], prompts=["asked three times"])
    assert encoded == ["asked three times"]


def test_half_precision_stays_close(small):
    exact = measured("overall_consistency", CLIPS["odd"], prompts=[PROMPT]).value
    half = measured("overall_consistency", CLIPS["odd"], prompts=[PROMPT], runtime=Runtime(precision="half")).value
    assert half != exact
    assert half == pytest.approx(exact, abs=0.01)
