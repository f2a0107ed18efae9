"""Rotary embedding: Wan's layout, exactness far away, and what makes relative indices possible."""

from __future__ import annotations

import math

import pytest
import torch

from irope import rope
from tests.diffusers_kit import import_diffusers

DIMS = (44, 42, 42)
GRID = (3, 4)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def by_hand(x: torch.Tensor, index: list[float], grid: tuple[int, int], dims: tuple[int, int, int]) -> torch.Tensor:
    """complex128, token by token and pair by pair; x [L, D]."""
    out = torch.empty_like(x, dtype=torch.float64)
    tokens = [(t, row, column) for t in index for row in range(grid[0]) for column in range(grid[1])]
    for token, place in enumerate(tokens):
        pair = 0
        for position, dim in zip(place, dims, strict=True):
            for j in range(dim // 2):
                angle = position * 10000 ** (-2 * j / dim)
                z = complex(*x[token, 2 * pair : 2 * pair + 2].tolist()) * complex(math.cos(angle), math.sin(angle))
                out[token, 2 * pair], out[token, 2 * pair + 1] = z.real, z.imag
                pair += 1
    return out


@pytest.mark.parametrize(("head_dim", "dims"), [(128, DIMS), (32, (12, 10, 10)), (24, (8, 8, 8)), (6, (2, 2, 2))])
def test_channels_of_a_head(head_dim, dims):
    assert rope.split_head_dim(head_dim) == dims


@pytest.mark.parametrize("head_dim", [4, 33, 0])
def test_impossible_heads_are_refused(head_dim):
    with pytest.raises(ValueError, match=f"got {head_dim}"):
        rope.split_head_dim(head_dim)


@pytest.mark.parametrize("index", [[0, 1, 2], [0, 4, 5], [45, 46, 47], [0, 0, 959]])
def test_against_complex_numbers_one_by_one(index):
    x = random(3 * 12, 128)
    got = rope.rotate(x[None, :, None], *rope.rope_cos_sin(index, GRID, DIMS))[0, :, 0]
    torch.testing.assert_close(got.double(), by_hand(x.double(), index, GRID, DIMS), rtol=0, atol=2e-6)


@pytest.mark.parametrize("head_dim", [128, 32])
def test_against_diffusers(head_dim):
    wan = import_diffusers("diffusers.models.transformers.transformer_wan")
    cos, sin = wan.WanRotaryPosEmbed(head_dim, (1, 2, 2), 1024)(torch.zeros(1, 4, 7, 6, 8))
    ours = rope.rope_cos_sin(range(7), GRID, rope.split_head_dim(head_dim))
    assert ours[0].dtype == ours[1].dtype == torch.float32
    torch.testing.assert_close(ours[0], cos[0, :, :, ::2], rtol=0, atol=1e-7)
    torch.testing.assert_close(ours[1], sin[0, :, :, 1::2], rtol=0, atol=1e-7)


@pytest.mark.parametrize(("shift", "tolerance"), [(15, 1e-13), (1000, 1e-11), (10**6, 1e-8)])
def test_only_index_differences_matter(shift, tolerance):
    """Logits of queries at 3 4 5 against keys at 0..5, everything moved by ``shift``, in float64."""
    q, k = random(3, 44, dtype=torch.float64), random(6, 44, seed=1, dtype=torch.float64)

    def turned(x, index):
        angles = rope.temporal_angles(index, 44)[:, 0]
        return torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.exp(1j * angles)

    def logits(by):
        keys = turned(k, [i + by for i in range(6)])
        return (turned(q, [i + by for i in (3, 4, 5)]) @ keys.conj().T).real / math.sqrt(128)

    assert (logits(0) - logits(shift)).abs().max() < tolerance
    moved_sink = [0 + 15, 1, 2, 3, 4, 5]
    other = (turned(q, [3, 4, 5]) @ turned(k, moved_sink).conj().T).real / math.sqrt(128)
    assert (other - logits(0))[:, 0].abs().max() > 0.05
    assert (other - logits(0))[:, 1:].abs().max() < tolerance


def test_whole_attention_is_unmoved_by_a_shift():
    def out(by):
        q, k = random(1, 36, 2, 128), random(1, 72, 2, 128, seed=1)
        q = rope.rotate(q, *rope.rope_cos_sin([by + i for i in (3, 4, 5)], GRID, DIMS))
        k = rope.rotate(k, *rope.rope_cos_sin([by + i for i in range(6)], GRID, DIMS))
        return torch.einsum("blhd,bmhd->bhlm", q, k).div(128**0.5).softmax(-1)

    torch.testing.assert_close(out(0), out(10**5), rtol=0, atol=2e-6)


def test_rotating_when_read_equals_rotating_when_stored_bit_for_bit():
    """The reason why raw keys may be stored: a frame met later, elsewhere and among others gets the same bits."""
    keys = random(1, 6 * 12, 2, 128, dtype=torch.bfloat16)
    stored = rope.rotate(keys, *rope.rope_cos_sin(range(6), GRID, DIMS)).unflatten(1, (6, -1))
    order = [0, 4, 2, 5]
    raw = keys.unflatten(1, (6, -1))[:, order].flatten(1, 2)
    read = rope.rotate(raw, *rope.rope_cos_sin(order, GRID, DIMS)).unflatten(1, (4, -1))
    assert stored.dtype == read.dtype == torch.bfloat16
    assert torch.equal(read, stored[:, order])


def test_one_rounding_to_bfloat16():
    keys = random(1, 12, 1, 128, dtype=torch.bfloat16)
    exact = by_hand(keys[0, :, 0].double(), [45], GRID, DIMS)
    got = rope.rotate(keys, *rope.rope_cos_sin([45], GRID, DIMS))[0, :, 0]
    assert (got != exact.bfloat16()).float().mean() < 1e-3  # float32 products against float64 at a tie


def test_angles_are_exact_far_away():
    """A float32 index would miss 2^24 + 1, a float32 angle would be off by .025 at a million."""
    far = 2**24 + 1
    angles = rope.temporal_angles([far, 10**6], 44)[:, 0]
    assert angles.dtype == torch.float64
    expected = [[n * 10000 ** (-2 * j / 44) for j in range(22)] for n in (far, 10**6)]
    torch.testing.assert_close(angles, torch.tensor(expected, dtype=torch.float64), rtol=1e-15, atol=0)


def test_every_head_may_have_a_base_of_its_own():
    x = random(1, 2 * 12, 3, 128)
    cos, sin = rope.rope_cos_sin([5, 9], GRID, DIMS, head_theta=[10000.0, 10000.0, 500.0])
    plain = rope.rotate(x, *rope.rope_cos_sin([5, 9], GRID, DIMS))
    got = rope.rotate(x, cos, sin)
    assert torch.equal(got[:, :, :2], plain[:, :, :2])
    assert not torch.equal(got[:, :, 2, :44], plain[:, :, 2, :44])
    assert torch.equal(got[:, :, 2, 44:], plain[:, :, 2, 44:])  # rows and columns keep theirs
    assert math.isclose(cos[0, 2, 1].item(), math.cos(5 * 500 ** (-2 / 44)), rel_tol=1e-6)


@pytest.mark.parametrize("theta", [None, [1e4, 2e4, 5e3]])
def test_phases_are_the_cosines_and_sines_to_the_bit(theta: list[float] | None) -> None:
    temporal, spatial = rope.temporal_angles([3, 2**24 + 1], 12, theta), rope.spatial_angles((2, 5), (12, 10, 10))
    several = torch.stack([spatial, spatial.flip(0)])
    for place in (spatial, several):
        cos, sin = rope.join_angles(temporal, place)
        found = rope.join_phases(rope.unit(temporal, torch.complex64), rope.unit(place, torch.complex64))
        assert torch.equal(found, torch.complex(cos, sin))
