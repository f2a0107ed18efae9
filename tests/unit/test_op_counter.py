"""Counts against worked numbers; what the reference mode and the fast one ask of a device at the size of the 1.3B."""

import pytest
import torch
from torch import nn

from irope.bench_rollout import SMALL, PassCount, count_passes, random_model, random_rollout
from irope.op_counter import OpCounter, attention_flops

BF16, F32 = 2, 4


def test_a_linear_layer_and_what_follows() -> None:
    layer, x = nn.Linear(8, 16), torch.ones(2, 3, 8)
    with OpCounter() as counter:
        with counter.region("linear"):
            y = layer(x)
        with counter.region("rest"):
            y.view(6, 16).t()[1:].unsqueeze(0)  # views only
            y.add_(1)
            y.to(torch.bfloat16).contiguous()
    assert counter["linear"].flops == 2 * 6 * 8 * 16
    assert (counter["linear"].operations, counter["linear"].elementwise) == (1, 0)
    rest = counter["rest"]
    assert (rest.operations, rest.reads, rest.flops) == (2, 0, 0)
    assert rest.elementwise == 96 * (F32 + F32) + 96 * (F32 + BF16)
    assert (rest.moved, rest.largest_move) == (96 * BF16, 96 * BF16)
    assert counter.total.operations == 3


def test_attention_and_rms_norm_are_one_operation_each() -> None:
    q, k = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 7, 8)
    with OpCounter() as counter:
        nn.functional.scaled_dot_product_attention(q, k, k)
        nn.functional.rms_norm(q, (8,))
    assert counter.total.operations == 2
    assert counter.total.flops == attention_flops(q, k) == 2 * 2 * (2 * 5 * 7 * 8)
    assert counter.total.elementwise == 2 * q.nbytes + 10 * F32  # the norm's scale of every row is kept


def test_reads_of_the_device_and_writes_into_buffers() -> None:
    buffer, rows = torch.zeros(10, 4), torch.ones(2, 4)
    with OpCounter() as counter:
        assert torch.tensor([3]).item() == 3
        buffer[2:4] = rows
        buffer.index_copy_(0, torch.tensor([1, 5]), rows)
        buffer.index_select(0, torch.tensor([1, 5]))
        buffer[:2].fill_(1)
    assert (counter.total.operations, counter.total.reads) == (5, 1)
    assert counter.total.elementwise == 2 * 32 + 2 * 32 + 2 * 32 + 32  # never the whole buffer
    assert counter.total.largest_move == 32


def test_uploads_are_seen_without_another_device() -> None:
    with OpCounter() as counter:
        torch.ones(4).to("meta")
    assert (counter.total.uploads, counter.total.reads) == (1, 0)


def test_layers_and_regions_nest() -> None:
    layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 8)])
    with OpCounter() as counter, counter.layers(layers), counter.region("pass"):
        for layer in layers[:1]:
            layer(torch.ones(1, 4))
        layers[1](torch.ones(1, 4))
    assert [counter[f"pass/layer {n}"].flops for n in (0, 1)] == [32, 64]
    assert counter["pass"].flops == counter.total.flops == 96
    layers[0](torch.ones(1, 4))  # the hooks are gone
    assert counter.total.flops == 96


def test_counts_are_the_same_on_the_cpu_and_on_meta() -> None:
    found = []
    for device in ("cpu", "meta"):
        model = random_model(SMALL.config, torch.device(device), torch.float32)
        rollout = random_rollout(model, SMALL, 6, 2, "reference", steps=(1000.0,))
        with OpCounter() as counter, counter.layers(rollout._network.blocks):
            for _ in rollout:
                pass
        found.append([counter[f"layer {n}"] for n in (0, 1)])
    assert found[0] == found[1]


# --- the 1.3B model ---------------------------------------------------------------------------------------------------

LAYERS, GB = 30, 1e9
WINDOWS = (6, 21)
TRAFFIC = {6: (88.5, 2.3), 21: (165.0, 20.0)}
"""GB of elementwise work in a pass of the official code, and what the evicting pass adds: counted on that code by the
author of performance.md, section 3."""


@pytest.fixture(scope="module", params=WINDOWS)
def reference(request: pytest.FixtureRequest) -> tuple[int, PassCount]:
    return request.param, count_passes("reference", request.param)


def test_the_reference_mode_is_honest(reference: tuple[int, PassCount]) -> None:
    window, count = reference
    assert count.ordinary.operations == pytest.approx(82, rel=0.05)
    assert count.evicting.operations == pytest.approx(89, rel=0.05)
    assert (count.ordinary.reads, count.evicting.reads) == (3, 6)
    traffic, evicting = TRAFFIC[window]
    assert LAYERS * count.ordinary.elementwise / GB == pytest.approx(traffic, rel=0.05)
    added = count.evicting.elementwise - count.ordinary.elementwise
    assert LAYERS * added / GB == pytest.approx(evicting, rel=0.05)


def test_both_modes_do_the_arithmetic_of_the_formula(reference: tuple[int, PassCount]) -> None:
    """Projections (q k v o, cross q o, feed-forward), self-attention over the window, cross-attention over the text."""
    window, count = reference
    n, d, ffn, text = 3 * 1560, 1536, 8960, 512
    expected = 2 * n * (6 * d * d + 2 * d * ffn) + 4 * n * (window * 1560) * d + 4 * n * text * d
    assert count.ordinary.flops == expected


@pytest.mark.parametrize("window", WINDOWS)
def test_the_fast_mode_is_lean(window: int) -> None:
    count = count_passes("fast", window)
    assert count.ordinary.operations <= 45
    assert (count.ordinary.reads, count.ordinary.uploads) == (0, 0)
    assert (count.evicting.reads, count.evicting.uploads) == (0, 0)
    block = 3 * 1560 * 1536
    # Queries and keys of the block in float32, whatever the window; tests/unit/test_cache.py looks at a small window.
    assert max(count.ordinary.largest_move, count.evicting.largest_move) == 2 * block * F32
    assert count.evicting.operations == count.ordinary.operations
    assert LAYERS * count.ordinary.elementwise / GB < 45
