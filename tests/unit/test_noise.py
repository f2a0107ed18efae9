"""Noise is a function of (seed, prompt, block, step) and of nothing else."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch

from irope.noise import KeyedNoise

SHAPE = (3, 4, 6, 8)
PINNED = {(0, 0): [-1.0892438, -0.7958521, -0.655163], (5, 2): [1.531817, 0.7864861, -0.0582152]}


def test_pinned_values():
    """A changed library or a changed formula would change every video ever made."""
    noise = KeyedNoise(7, ["a corgi runs"], SHAPE)
    assert noise(0, 0).shape == (1, *SHAPE)
    assert noise(0, 0).dtype == torch.float32
    assert noise(0, 0).flatten()[:3].tolist() == pytest.approx(PINNED[0, 0], abs=1e-7)
    assert noise(5, 2).flatten()[-3:].tolist() == pytest.approx(PINNED[5, 2], abs=1e-7)


def philox4x64(key: tuple[int, int], counter: list[int]) -> list[int]:
    """Ten rounds, straight from the definition (Salmon et al. 2011)."""
    mask = 2**64 - 1
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * counter[0], 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * counter[2], 2**64)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = ((key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask)
    return counter


def test_first_value_from_the_definition():
    digest = hashlib.sha256(b"7\na corgi runs").digest()
    key = (int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little"))
    pairs = math.prod(SHAPE) // 2

    def uniform(number: int) -> float:
        word = philox4x64(key, [1 + number // 4, 0, 2, 5])[number % 4]
        return ((word >> 11) + 0.5) / 2**53

    radius, angle = math.sqrt(-2 * math.log(uniform(0))), 2 * math.pi * uniform(pairs)
    draw = KeyedNoise(7, ["a corgi runs"], SHAPE)(5, 2).flatten()
    assert draw[0].item() == pytest.approx(radius * math.cos(angle), abs=1e-6)
    assert draw[pairs].item() == pytest.approx(radius * math.sin(angle), abs=1e-6)


def test_a_batch_is_its_videos_one_by_one():
    prompts = ["a", "b", "c"]
    batch = KeyedNoise(1, prompts, SHAPE)(4, 1)
    for row, prompt in zip(batch, prompts, strict=True):
        assert torch.equal(row, KeyedNoise(1, [prompt], SHAPE)(4, 1)[0])
    assert torch.equal(batch.flip(0), KeyedNoise(1, prompts[::-1], SHAPE)(4, 1))


def test_order_and_number_of_draws_do_not_matter():
    used, fresh = KeyedNoise(1, ["a"], SHAPE), KeyedNoise(1, ["a"], SHAPE)
    for block in range(5):
        used(block, 0)
    torch.manual_seed(0)
    np.random.default_rng(0)
    assert torch.equal(used(9, 3), fresh(9, 3))


def test_every_key_gives_another_draw():
    draws = [
        KeyedNoise(seed, [prompt], SHAPE)(block, step)
        for seed in (0, 1)
        for prompt in ("a", "b")
        for block in (0, 1)
        for step in (0, 1, 2)
    ]
    flat = torch.stack([draw.flatten() for draw in draws])
    correlation = torch.corrcoef(flat) - torch.eye(len(draws))
    assert correlation.abs().max() < 5 / math.sqrt(flat.shape[1])


def test_standard_normal():
    draws = torch.cat([KeyedNoise(0, ["a"], (3, 16, 30, 52))(block, 0).flatten() for block in range(4)]).double()
    n = draws.numel()
    assert abs(draws.mean()) < 4 / math.sqrt(n)
    assert abs(draws.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs(draws.pow(3).mean()) < 4 * math.sqrt(15 / n)
    assert abs(draws.pow(4).mean() - 3) < 4 * math.sqrt(96 / n)
    for limit, share in ((1, 0.682689), (2, 0.954500), (3, 0.997300)):
        assert abs((draws.abs() < limit).double().mean() - share) < 4 * math.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 1, 1, 1), (1, 3, 5, 7)])
def test_odd_sizes(shape):
    assert KeyedNoise(0, ["a"], shape)(0, 0).shape == (1, *shape)
