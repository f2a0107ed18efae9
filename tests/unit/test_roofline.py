"""The FLOP model against the numbers printed in performance.md, section 2, and against the dispatcher's count."""

import pytest
import torch

from irope.bench_rollout import SMALL, random_model, random_rollout
from irope.op_counter import OpCounter
from irope.roofline import (
    Roof,
    block_flops,
    frame_bytes,
    frames_per_second,
    measure_roof,
    pass_flops,
    recache_flops,
    text_flops,
    weight_bytes,
)
from irope.transformer import WanConfig

WAN, TOKENS, TERA = WanConfig(), 1560, 1e12
H100 = Roof(matmul=798 * TERA, copy=3.0 * TERA)


@pytest.mark.parametrize(
    ("window", "one_pass", "block", "milliseconds", "fps"),
    [(6, 20.2, 101, 127, 95), (9, 24.3, 121, 152, 79), (12, 28.3, 141, 177, 68), (21, 40.4, 202, 253, 47),
     (24, 44.4, 222, 278, 43)],
)  # fmt: skip
def test_the_printed_roof(window: int, one_pass: float, block: float, milliseconds: float, fps: float) -> None:
    assert pass_flops(WAN, TOKENS, 3, window).total / TERA == pytest.approx(one_pass, abs=0.05)
    assert block_flops(WAN, TOKENS, 3, window) / TERA == pytest.approx(block, abs=0.5)
    seconds = H100.block_seconds(WAN, TOKENS, 3, window)
    assert 1e3 * seconds == pytest.approx(milliseconds, abs=0.5)
    assert frames_per_second(seconds) == pytest.approx(fps, abs=0.5)
    assert H100.share(2 * seconds, WAN, TOKENS, 3, window) == pytest.approx(0.5)


def test_the_printed_parts() -> None:
    parts = pass_flops(WAN, TOKENS, 3, 6)
    assert parts.linear / TERA == pytest.approx(11.71, abs=0.005)
    assert parts.cross / TERA == pytest.approx(0.44, abs=0.005)
    assert parts.attention / 6 / TERA == pytest.approx(1.346, abs=0.0005)
    assert text_flops(WAN) / TERA == pytest.approx(0.154, abs=0.0005)
    assert frame_bytes(WAN, TOKENS) / 1e6 == pytest.approx(287.5, abs=0.05)
    assert weight_bytes(WAN) / 1e9 == pytest.approx(2.5, abs=0.05)


@pytest.mark.parametrize(("frames", "teraflops"), [(6, 41), (9, 73), (12, 113), (21, 283), (24, 356)])
def test_the_printed_recache(frames: int, teraflops: float) -> None:
    assert recache_flops(WAN, TOKENS, frames) / TERA == pytest.approx(teraflops, abs=0.5)
    law = 3.90 * frames + 0.449 * frames**2 + 0.15  # as printed; it leaves the cross-attention out
    cross = pass_flops(WAN, TOKENS, frames, frames).cross
    assert (recache_flops(WAN, TOKENS, frames) - cross) / TERA == pytest.approx(law, rel=0.005)


def test_a_block_does_what_the_formula_says() -> None:
    """Counted in a roll-out, besides the time embedding (which the formula leaves out) and the prompt's keys."""
    model = random_model(SMALL.config, torch.device("cpu"), torch.float32)
    rollout = random_rollout(model, SMALL, 6, 4, "reference")
    with OpCounter() as counter:
        sums = [counter.total.flops for _ in rollout]
    config, d = SMALL.config, SMALL.config.dim
    embedding = 2 * 3 * (config.freq_dim * d + d * d + 6 * d * d)
    expected = block_flops(config, SMALL.tokens, 3, 6) + 5 * embedding
    assert sums[3] - sums[2] == pytest.approx(expected)


def test_the_roof_is_measured() -> None:
    roof = measure_roof(torch.device("cpu"), torch.float32, size=128)
    assert roof.matmul > 1e8
    assert roof.copy > 1e7
