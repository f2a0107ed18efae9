"""Imaging quality against the stock package, in every preprocessing mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eval.registry import ScorerError, make_scorer
from eval.scorer import Runtime
from eval.vbench import musiq, packages
from eval.vbench.stock import stock_scores
from tests.vbench.conftest import moving, noise, static, write_mp4
from tests.vbench.kit import measured, outcomes

CLIPS = {
    "wide": moving(2, 72, 128),
    "portrait": moving(2, 130, 66, seed=1),
    "odd": moving(2, 51, 73, seed=2, step=5),
    "one": noise(1, 64, 64),
    "static": static(2, 64, 64),
    "large": moving(1, 520, 400),
}


@pytest.fixture(scope="module", autouse=True)
def _weights(weights):
    weights("imaging_quality")


@pytest.mark.slow
def test_the_same_numbers_as_the_stock_package(tmp_path):
    paths = {name: write_mp4(tmp_path / f"{name}.mp4", clip) for name, clip in CLIPS.items()}
    stock = stock_scores(list(paths.values()), ["imaging_quality"])["imaging_quality"]
    ours = {name: measured("imaging_quality", clip) for name, clip in CLIPS.items()}
    for name, path in paths.items():
        assert ours[name].value == pytest.approx(stock.videos[path] / 100, abs=1e-7), name
        assert ours[name].value == ours[name].curve.mean()
        assert ours[name].terms == len(CLIPS[name])
    assert np.mean([found.value for found in ours.values()]) == pytest.approx(stock.overall, abs=1e-7)
    assert len({round(value, 4) for value in stock.videos.values()}) == len(CLIPS)


@pytest.mark.parametrize("mode", ["longer", "shorter", "shorter_centercrop", "None"])
def test_every_preprocessing_is_the_one_of_the_package(mode):
    clip = moving(1, 524, 530, seed=3)
    pixels = torch.from_numpy(clip).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        stock = float(musiq.load(Runtime()).network(packages.load("vbench.imaging_quality").transform(pixels, mode)))
    assert measured("imaging_quality", clip, preprocessing=mode).value == pytest.approx(stock / 100, abs=1e-7)


def test_an_unknown_preprocessing_is_refused_with_the_choices():
    with pytest.raises(ScorerError, match="shorter_centercrop"):
        make_scorer("imaging_quality", {"preprocessing": "short"})


def test_neither_chunks_nor_batches_nor_windows_matter():
    clip = moving(4, 48, 64, seed=4, step=9)
    whole = measured("imaging_quality", clip, chunk=4)
    apart = measured("imaging_quality", clip, chunk=1)
    np.testing.assert_allclose(apart.curve, whole.curve, rtol=0, atol=1e-7)
    np.testing.assert_allclose(musiq.load(Runtime()).scores(clip, "longer", 3) / 100, whole.curve, rtol=0, atol=1e-7)
    inner, prefix = outcomes("imaging_quality", clip, [(1, 3), (0, 2)], chunk=3)
    np.testing.assert_allclose(inner.curve, whole.curve[1:3], rtol=0, atol=1e-7)
    np.testing.assert_allclose(prefix.curve, whole.curve[:2], rtol=0, atol=1e-7)


def test_half_precision_stays_close():
    clip = CLIPS["wide"]
    exact = measured("imaging_quality", clip)
    half = measured("imaging_quality", clip, runtime=Runtime(precision="half"))
    assert half.value != exact.value
    assert half.value == pytest.approx(exact.value, abs=1e-3)
