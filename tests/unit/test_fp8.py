"""FP8 linear layers: their error is that of e4m3 with a scale per row, and nothing else changes."""

import pytest
import torch

from irope import fp8
from irope.config import load
from irope.fp8_error import flow_errors
from irope.jobs import jobs_from
from irope.transformer import CausalWanTransformer
from tests.rollout_kit import CONFIG, Script, latents, make, model, rollout


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_every_row_has_a_scale_of_its_own() -> None:
    x = normal(5, 64) * 10.0 ** torch.arange(-3, 2)[:, None]
    values, scales = fp8.quantise(x)
    assert values.dtype == torch.float8_e4m3fn
    assert scales.shape == (5, 1)
    assert (values.float().abs().amax(1) == 448).all()
    # Three bits behind the leading one: half a place is a sixteenth; numbers below 2^-6 have a fixed place.
    assert ((values.float() * scales - x).abs() <= x.abs() / 16 + scales * 2**-10).all()
    assert torch.equal(fp8.quantise(torch.zeros(2, 8))[0].float(), torch.zeros(2, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_that_of_the_quantised_numbers(dtype: torch.dtype) -> None:
    x, weight, bias = normal(2, 3, 32).to(dtype), normal(16, 32, seed=1).to(dtype), normal(16, seed=2).to(dtype)
    made = fp8.linear(x, fp8.quantise(weight), bias)
    (a, a_scale), (b, b_scale) = fp8.quantise(x.flatten(0, 1)), fp8.quantise(weight)
    rows = (a.double() * a_scale) @ (b.double() * b_scale).T + bias.double()
    assert (made.shape, made.dtype) == ((2, 3, 16), dtype)
    torch.testing.assert_close(
        made.flatten(0, 1).double(), rows, rtol=2**-8 if dtype == torch.bfloat16 else 1e-5, atol=1e-4
    )
    exact = x.double() @ weight.double().T + bias.double()
    error = (made - exact).square().mean().sqrt() / exact.std()
    assert 0.01 < error < 0.05  # two factors of about 2.6 % each


def test_only_the_layers_of_attention_and_feed_forward_are_quantised_and_all_can_be_undone() -> None:
    plain = latents(rollout(make("infinity_rope"), Script(3)))
    names = list(model().state_dict())
    fp8.quantise_layers(model())
    try:
        linear = [(name, part) for name, part in model().named_modules() if isinstance(part, torch.nn.Linear)]
        quantised = [name for name, part in linear if getattr(part, "quantised", None) is not None]
        made = latents(rollout(make("infinity_rope"), Script(3)))
    finally:
        fp8.restore_layers(model())
    assert len(quantised) == CONFIG.num_layers * 10
    assert {name.split(".")[2] for name in quantised} == {"self_attn", "cross_attn", "ffn"}
    assert list(model().state_dict()) == names
    assert 0.005 < (made - plain).square().mean().sqrt() / plain.std() < 0.3
    assert torch.equal(latents(rollout(make("infinity_rope"), Script(3))), plain)


def test_q_k_and_v_side_by_side_are_the_three_of_them() -> None:
    made = CausalWanTransformer(CONFIG).eval()
    projections, x = made.blocks[0].self_attn, normal(2, 6, CONFIG.dim)
    fp8.quantise_layers(made)
    with torch.no_grad():
        together = projections.project(x)
        for number, part in enumerate((projections.q, projections.k, projections.v)):
            torch.testing.assert_close(together[:, :, number], part(x), rtol=0, atol=1e-5)
            values, scales = fp8.quantise(part.weight)
            assert torch.equal(part.quantised[0].float(), values.float())
            assert torch.equal(part.quantised[1], scales)
            assert part.quantised[0].untyped_storage().data_ptr() == projections.quantised[0].data_ptr()


def test_the_error_grows_slowly_with_depth_and_is_far_above_rounding() -> None:
    one, four = flow_errors((1, 4), dim=128)
    assert 0.01 < one.fp8 < 0.1
    assert one.fp8 < four.fp8 < 0.2
    assert one.bfloat16 < 0.3 * one.fp8


def test_it_is_part_of_the_key_and_its_absence_is_not() -> None:
    plain, asked, made = (
        jobs_from(load(["prompts=basic", "duration=5", *more]))[0]
        for more in ([], ["video.model.linear=bfloat16"], ["video.model.linear=fp8"])
    )
    assert plain.key == asked.key != made.key
    assert "linear" not in plain.record["model"]
    assert made.record["model"]["linear"] == "fp8"
