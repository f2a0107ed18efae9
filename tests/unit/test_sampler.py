"""The published timesteps and sigmas of every method, and the two formulas of a denoising step."""

from __future__ import annotations

import pytest
import torch

from irope.sampler import Sampler, clean, renoise, sigma_table

METHODS = {
    "self_forcing": ([1000, 750, 500, 250], 5, True, [1000, 937.5, 833.333, 625], [1, 0.9375, 0.833333, 0.625]),
    "rolling_forcing": (
        [1000, 800, 600, 400, 200],
        5,
        True,
        [1000, 952.381, 882.353, 769.231, 555.556],
        [1, 0.952381, 0.882353, 0.769231, 0.555556],
    ),
    "causvid_3": ([1000, 757, 522], 8, False, [1000, 757, 522], [1, 0.756757, 0.521739]),
    "causvid_4": ([1000, 750, 500, 250], 8, True, [1000, 960, 888.889, 727.273], [1, 0.96, 0.888889, 0.727273]),
}


@pytest.mark.parametrize("method", METHODS)
def test_published_steps(method):
    nominal, shift, warp, t, sigma = METHODS[method]
    sampler = Sampler.from_nominal(nominal, shift, warp)
    assert sampler.timesteps == pytest.approx(t, rel=1e-6)
    assert sampler.sigmas == pytest.approx(sigma, rel=2e-6)
    assert sampler.steps == len(nominal)


@pytest.mark.parametrize("shift", [1.0, 5.0, 8.0])
def test_table(shift):
    table = sigma_table(shift)
    assert table.shape == (1000,)
    assert table[0] == 1
    for i in (1, 250, 500, 999):
        u = 1 - i / 1000
        assert table[i].item() == pytest.approx(shift * u / (1 + (shift - 1) * u), rel=1e-6)


def test_recorded_timesteps_find_their_sigma():
    sampler = Sampler.from_timesteps([1000.0, 937.5, 833.3333, 625.0], 5.0)
    assert sampler.sigmas == Sampler.from_nominal([1000, 750, 500, 250], 5.0).sigmas


@pytest.mark.parametrize("steps", [[], [500, 1000], [1000, 1000], [1000, 0], [1001], [1000, -5]])
def test_impossible_steps_are_refused(steps):
    with pytest.raises(ValueError, match="must fall within"):
        Sampler.from_nominal(steps, 5.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_two_formulas(dtype):
    generator = torch.Generator().manual_seed(0)
    x, v, eps = (torch.randn(2, 3, 4, generator=generator).to(dtype) for _ in range(3))
    sigma = torch.tensor([1.0, 0.9375, 0.625])[:, None]
    x0 = clean(x, v, sigma)
    assert x0.dtype == dtype
    assert torch.equal(x0, (x.double() - sigma.double() * v.double()).to(dtype))
    noisy = renoise(x0, eps, 0.625)
    assert noisy.dtype == dtype
    assert torch.equal(noisy, (0.375 * x0.float() + 0.625 * eps.float()).to(dtype))


def test_the_true_flow_gives_the_clean_frame_at_every_noise_level():
    generator = torch.Generator().manual_seed(1)
    x0, noise = (torch.randn(5, dtype=torch.float64, generator=generator) for _ in range(2))
    for sigma in Sampler.from_nominal([1000, 750, 500, 250], 5.0).sigmas:
        x = (1 - sigma) * x0 + sigma * noise
        torch.testing.assert_close(clean(x, noise - x0, torch.tensor(sigma)), x0, rtol=0, atol=1e-12)
