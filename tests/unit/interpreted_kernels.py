"""The Triton kernels, interpreted on the CPU, against plain torch: same numbers, same roundings.

In a process of its own, which `test_kernels` starts: Triton decides when a kernel is made whether it is interpreted.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from irope import fp8, kernels, rope
from irope.pointwise import layer_norm, modulate, rms_norm
from tests.rollout_kit import SWITCH, Script, latents, make, rollout

EPS = 1e-6
Rounding = Callable[[Tensor], Tensor]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def unrounded(x: Tensor) -> Tensor:
    return x


def nearest(x: Tensor) -> Tensor:
    """As hardware rounds to bfloat16."""
    return x.bfloat16().float()


def cut(x: Tensor) -> Tensor:
    """As Triton's interpreter does: it drops the lower bits."""
    return (x.view(torch.int32) & -(2**16)).view(torch.float32)


def norm_turn(x: Tensor, weight: Tensor, phase: Tensor, rounded: Rounding) -> Tensor:
    """RMSNorm and rotation of [B, L, D], in float32 with the roundings written out."""
    wide = x.float()
    normed = rounded(wide * (wide.square().mean(-1, keepdim=True) + EPS).rsqrt())
    return rounded(rope.turn(rounded(normed * weight.float()).unflatten(-1, (-1, 2 * phase.shape[-1])), phase))


def norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, wide: bool, rounded: Rounding) -> Tensor:
    """LayerNorm and modulation, in float32 with the roundings written out."""
    centred = x.float() - x.float().mean(-1, keepdim=True)
    normed = rounded(centred * (centred.square().mean(-1, keepdim=True) + EPS).rsqrt())
    return rounded((normed * scale.float() if wide else rounded(normed * scale.float())) + shift.float())


def gated_sum(x: Tensor, y: Tensor, gate: Tensor, rounded: Rounding) -> Tensor:
    return rounded(x.float() + rounded(y.float() * gate.float()))


def same(made: Tensor, wanted: Tensor) -> None:
    """Up to the order of sums: in float32 an error of it, in bfloat16 one element in a hundred one place away."""
    if made.dtype == torch.float32:
        torch.testing.assert_close(made, wanted, rtol=0, atol=4e-6)
    else:
        assert (made.float() != wanted).float().mean() < 0.01
        torch.testing.assert_close(made.float(), wanted, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_roundings_written_out_are_those_of_plain_torch(dtype: torch.dtype) -> None:
    rounded = unrounded if dtype == torch.float32 else nearest
    x, y, weight = normal(2, 12, 60, dtype=dtype), normal(2, 12, 60, dtype=dtype, seed=1), normal(60, dtype=dtype)
    phase = torch.polar(torch.ones(12, 1, 10), normal(12, 1, 10))
    plain = rope.turn(rms_norm(x, weight, EPS).unflatten(-1, (3, 20)), phase)
    same(plain, norm_turn(x, weight, phase, rounded))
    for wide in (False, True):
        shift, scale, gate = (normal(1, 1, 60, dtype=torch.float32 if wide else dtype, seed=seed) for seed in (2, 3, 4))
        same(modulate(layer_norm(x, EPS), shift, scale), norm_modulate(x, shift, scale, wide, rounded))
        same(x + (y * gate).type_as(x), gated_sum(x, y, gate, rounded))


@DTYPES
@pytest.mark.parametrize("phase_heads", [1, 3])
def test_norm_turn_store(dtype: torch.dtype, phase_heads: int) -> None:
    rounded = unrounded if dtype == torch.float32 else cut
    batch, frames, tokens, heads, size = 2, 3, 4, 3, 20
    length, width = frames * tokens, heads * size
    y = normal(batch, length, 3, width, dtype=dtype)
    norms = 1 + 0.3 * normal(2, width, dtype=dtype, seed=1)
    angles = normal(length, phase_heads, size // 2, seed=2) * 3
    phase = torch.polar(torch.ones_like(angles), angles)
    keys, values = (normal(batch, 7 * tokens, heads, size, dtype=dtype, seed=seed) for seed in (3, 4))
    wanted_keys, wanted_values = keys.float(), values.clone()
    q, k = (norm_turn(x, norm, phase, rounded) for x, norm in zip(y.unbind(2), norms, strict=False))
    slots = [5, -1, 2]
    for frame, slot in enumerate(slots):
        if slot >= 0:
            source, target = (slice(at * tokens, (at + 1) * tokens) for at in (frame, slot))
            wanted_keys[:, target] = k[:, source]
            wanted_values[:, target] = y[:, source, 2].unflatten(-1, (heads, size))
    queries = kernels.norm_turn_store(y, norms, EPS, phase, torch.tensor(slots, dtype=torch.int32), keys, values)
    same(queries, q)
    same(keys, wanted_keys)
    assert torch.equal(values, wanted_values)


@DTYPES
@pytest.mark.parametrize(("rows", "wide"), [((1, 1), False), ((1, 3), True), ((2, 3), False)])
def test_modulation(dtype: torch.dtype, rows: tuple[int, int], wide: bool) -> None:
    rounded = unrounded if dtype == torch.float32 else cut
    x, y = (normal(2, 3, 4, 60, dtype=dtype, seed=seed) for seed in (0, 1))
    shift, scale, gate = (normal(*rows, 1, 60, dtype=torch.float32 if wide else dtype, seed=seed) for seed in (2, 3, 4))
    same(kernels.norm_modulate(x, shift, scale, EPS), norm_modulate(x, shift, scale, wide, rounded))
    same(kernels.gated_sum(x, y, gate), gated_sum(x, y, gate, rounded))


@DTYPES
@pytest.mark.parametrize("width", [60, 512])
def test_rows_in_e4m3(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, width: int) -> None:
    """As near as plain torch's, but for numbers that round up to a power of two: there the interpreter forgets the
    exponent. A tie it rounds up, hardware and plain torch to the even neighbour."""
    x = normal(7, width, dtype=dtype) * 10.0 ** torch.arange(-4, 3, dtype=dtype)[:, None]
    x[3] = 0
    values, scales = fp8.quantise(x)
    assert kernels.usable(x.device, dtype)
    monkeypatch.setattr(kernels, "usable", lambda *_: False)
    plain, plain_scales = fp8.quantise(x)
    assert torch.equal(scales, plain_scales)
    assert (values.dtype, values.shape) == (plain.dtype, plain.shape)
    exact, made, wanted = x.float() / scales, values.float(), plain.float()
    carried = (torch.frexp(wanted)[0].abs() == 0.5) & (exact.abs() < wanted.abs())
    assert (((made - exact).abs() == (wanted - exact).abs()) | carried).all()
    assert carried.float().mean() < 0.1
    assert (values[3].float() == 0).all()


def test_a_roll_out_with_kernels_is_the_same_video(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sink, flush, recache and a window that slides, on a whole transformer."""
    for name, settings in (("infinity_rope", {"window": 9}), ("kv_recache", {"window": 6, "sink": 1})):
        videos = []
        for use in (False, True):
            monkeypatch.setattr(kernels, "usable", lambda *_, use=use: use)
            videos.append(latents(rollout(make(name, **settings), Script(5, {4: SWITCH}), steps=(1000,))))
        torch.testing.assert_close(*videos, rtol=0, atol=1e-4)
        assert not torch.equal(*videos)  # the kernels ran
