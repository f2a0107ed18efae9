"""The arithmetic between matrix products, where it is another on a GPU: traced there, without one, on fake tensors."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from irope.pointwise import linear_gelu


def operations(dtype: torch.dtype, grad: bool) -> list[str]:
    """What `linear_gelu` asks a GPU to do."""
    with FakeTensorMode(), torch.set_grad_enabled(grad):
        tensors = (torch.empty(shape, dtype=dtype, device="cuda") for shape in ((2, 3, 16), (32, 16), (32,)))
        graph = make_fx(linear_gelu)(*tensors).graph
    return [node.target.overloadpacket.__name__ for node in graph.nodes if node.op == "call_function"]


def test_gelu_is_part_of_the_matrix_product_on_a_gpu() -> None:
    assert "_addmm_activation" in (made := operations(torch.bfloat16, grad=False))
    assert "gelu" not in made
    for dtype, grad in ((torch.float32, False), (torch.bfloat16, True)):
        assert "gelu" in (made := operations(dtype, grad))
        assert "_addmm_activation" not in made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_tanh_approximation(dtype: torch.dtype) -> None:
    """Which `_addmm_activation` is on a GPU alone."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((2, 3, 16), (32, 16), (32,)))
    y = F.linear(x, weight, bias).double()
    wanted = 0.5 * y * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (y + 0.044715 * y**3)))
    torch.testing.assert_close(
        linear_gelu(x, weight, bias).double(), wanted, rtol=2**-8, atol=1e-6 if dtype == torch.float32 else 1e-2
    )
    if dtype == torch.float32:
        exact = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True).double()
        assert (exact - wanted.flatten(0, -2)).abs().max() > 1e-4
