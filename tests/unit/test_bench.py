"""The statistics of the benchmark against numpy and SciPy, and that it runs; no test asserts how fast."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from irope import bench
from irope.bench import bench_cpu, resident_bytes
from irope.bench_statistics import Curve, Flatness, Spread, decile_ratio, theil_sen
from irope.generator import Generator
from irope.models.tiny.codec import TinyCodec
from irope.registry import make_policy
from irope.script import Clock
from irope.transformer import CausalWanTransformer, WanConfig


@pytest.mark.parametrize("size", [2, 3, 50, 333])
def test_theil_sen_is_scipys(size: int) -> None:
    values = np.random.default_rng(size).gamma(2.0, size=size) + 0.01 * np.arange(size)
    assert theil_sen(values) == pytest.approx(stats.theilslopes(values).slope, rel=1e-12)


def test_theil_sen_of_a_long_series_is_close_to_exact() -> None:
    values = np.random.default_rng(1).normal(10, 1, 4800) + 0.002 * np.arange(4800)
    values[::97] += 500  # a machine that pauses now and then
    assert theil_sen(values) == pytest.approx(0.002, rel=0.02)
    assert theil_sen(values[:1]) == 0


def test_decile_ratio_and_spread() -> None:
    values = np.concatenate([np.full(10, 2.0), np.full(80, 5.0), np.full(10, 3.0)])
    assert decile_ratio(values) == 1.5
    assert decile_ratio([1.0, 2.0]) == 2.0
    sample = np.random.default_rng(0).random(101)
    spread = Spread.of(sample)
    assert spread.median == pytest.approx(1e3 * np.median(sample))
    assert (spread.p10, spread.p90) == pytest.approx(tuple(1e3 * np.quantile(sample, (0.1, 0.9))))


def test_flatness_takes_the_best_repeat_and_skips_the_warm_up() -> None:
    flat, rising = np.full(104, 0.02), 0.02 + 0.0001 * np.arange(104)
    flat[:4] = rising[:4] = 9.0
    made = Flatness.of(60, 4, [rising, flat], [2 * rising, 2 * flat])
    assert made.blocks == 100
    assert made.cpu == Spread.of(flat[4:])
    assert made.wall.median == pytest.approx(40)
    assert made.slope == 0
    assert made.ratio == 1
    assert made.slopes[0] == pytest.approx(100 * 0.0001 * 100 / np.median(rising[4:]))
    assert made.total_cpu == pytest.approx(36 + 2)


def test_flatness_looks_through_a_disturbed_repeat() -> None:
    """Each repeat was slowed down during another half; no block was slow in both."""
    first, second = np.full(100, 0.02), np.full(100, 0.02)
    first[50:] = second[:50] = 0.05
    made = Flatness.of(60, 0, [first, second], [first, second])
    assert made.ratios == pytest.approx((2.5, 0.4))
    assert (made.slope, made.ratio) == (0, 1)


def test_the_curve_is_of_medians_of_the_smallest() -> None:
    first, second = np.arange(1000.0), np.full(1000, 500.0)
    curve = Curve.of([first, second], [second, second], per_block=0.75, most=100)
    assert len(curve.seconds) == len(curve.cpu_ms) == len(curve.resident) == 100
    assert curve.seconds[:2] == (3.75, 11.25)  # the middle of ten blocks
    assert curve.cpu_ms[:2] == (4500, 14500)
    assert curve.cpu_ms[-1] == 500_000
    assert set(curve.resident) == {500.0}
    assert len(Curve.of([first[:7]], [first[:7]], 0.75).seconds) == 7


def test_resident_bytes_is_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resident_bytes()
    assert 10 * bench.MIB < before < 2**40
    kept = np.ones(64 * bench.MIB, dtype=np.uint8)
    assert resident_bytes() - before > 32 * bench.MIB
    assert kept.nbytes == 64 * bench.MIB

    class Nowhere:
        def __init__(self, path: str) -> None:
            pass

        def read_text(self, encoding: str) -> str:
            raise FileNotFoundError

    monkeypatch.setattr(bench, "Path", Nowhere)
    assert resident_bytes() > 32 * bench.MIB


def generator() -> Generator:
    """A random model with the geometry of the embedded one, smaller."""
    torch.manual_seed(0)
    config = WanConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=1, in_dim=8, out_dim=8, text_len=3, text_dim=8)

    def encode(prompt: str) -> Tensor:
        return torch.ones(1, 3, 8)

    return Generator(
        name="random",
        transformer=CausalWanTransformer(config).eval().requires_grad_(False),
        codec=TinyCodec(8),  # type: ignore[arg-type]
        encode_text=encode,
        check_prompt=lambda prompt: None,
        steps=(1000, 500),
        shift=5.0,
        frame_shape=(8, 4, 4),
        clock=Clock(),
        horizon=21,
        digest="0" * 64,
    )


def test_bench_runs() -> None:
    threads = torch.get_num_threads()
    report = bench_cpu(generator(), "a red ball", seconds=(15, 9), repeats=2)
    assert torch.get_num_threads() == threads
    assert [length.seconds for length in report.lengths] == [9, 15]
    assert [length.blocks for length in report.lengths] == [12 - 3, 20 - 3]
    assert all(len(length.slopes) == len(length.ratios) == 2 for length in report.lengths)
    assert report.page_bytes == 2 * 1 * 6 * 4 * 48 * 4
    assert report.stage_bytes == report.page_bytes // 6 // 2  # the un-rotated keys of the sink
    assert report.latents_per_second > 0
    assert report.denoise_only > 0
    assert report.environment["device"]["threads"] == 1
    assert len(report.curve.cpu_ms) == 20
    assert report.aged is not None
    assert report.aged.n == 2 * 60
    assert 0 < report.aged.p10 <= report.aged.median <= report.aged.p90
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["model"] == "random"
    table = report.to_table()
    assert all(len(row) == 3 for row in table)
    assert {"model", "machine", "15 s of video", "resident memory", "cache", "warm-up"} <= {row[0] for row in table}


def test_old_blocks_take_turns_with_those_of_videos_just_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that takes as many seconds as its number says how old both were."""
    monkeypatch.setattr(bench, "_cpu_seconds", lambda blocks: float(next(blocks).index))
    made = generator()
    found = bench.measure(made, make_policy("infinity_rope", {"window": 6}), "a red ball", 12, made.codec, paired=45)
    assert found.aged.tolist() == [(12 + turn) / (3 + turn % 20) for turn in range(45)]
    assert len(found.cpu) == 12


@pytest.mark.parametrize("policy", ["causvid", "rolling_forcing"])
def test_bench_runs_other_schedules(policy: str) -> None:
    settings = {"window": 9, "sink": 0} if policy == "causvid" else {"window": 12}
    made = replace(generator(), steps=(1000, 750, 500, 250)[: 4 if policy == "rolling_forcing" else 2])
    report = bench_cpu(made, "a red ball", make_policy(policy, settings), seconds=(12,), repeats=1)
    assert report.policy == policy
    assert report.lengths[0].blocks > 0


def test_bench_refuses_what_it_cannot_measure() -> None:
    for seconds, repeats in (((), 1), ((60,), 0), ((2,), 1)):
        with pytest.raises(ValueError, match="more than 4 blocks"):
            bench_cpu(generator(), "a red ball", seconds=seconds, repeats=repeats)


def test_a_busy_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "load_average", lambda: 64.0 * (bench.os.cpu_count() or 1))
    report = bench_cpu(generator(), "a red ball", seconds=(5,), repeats=1)
    assert "the machine was busy" in report.notes[0]
    assert ("note", report.notes[0], "") in report.to_table()
