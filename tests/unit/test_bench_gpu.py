"""The GPU benchmark rehearsed on the CPU: it runs on a bare image, writes as it goes and says what it leaves out."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, _cur_sdpa_kernel_backends
from torch.torch_version import TorchVersion

from irope import bench_gpu, bench_gpu_parts, bench_vae
from irope.bench_gpu import measure
from irope.bench_gpu_parts import Bench, Series, Skipped, filling, interleaved, streamed
from irope.bench_gpu_report import as_markdown
from irope.bench_rollout import SMALL, Geometry, random_model, random_rollout
from irope.cache import KVArena
from irope.models.wan.vae import WanCodec
from irope.op_counter import OpCounter
from irope.roofline import Roof, measure_attention
from irope.transformer import CausalWanTransformer, attention_backends
from tests.rollout_kit import FakeCodec

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def test_rehearsal_on_a_bare_image(tmp_path: Path) -> None:
    """A GPU image may have torch, numpy and safetensors alone, so every other package is refused."""
    out = tmp_path / "bench.json"
    code = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"hydra", "omegaconf", "pandas", "rich", "av", "PIL", "yaml", "jinja2", "matplotlib",
                                   "scipy", "cv2", "diffusers", "transformers"}}:
            raise ImportError(f"{{name}} is refused")

sys.meta_path.insert(0, Refuse())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "diffusers" else found(name, package)
from irope.bench_gpu import main
sys.exit(main(["--device", "cpu", "--small", "--out", {str(out)!r}, "--parts",
               "roof", "denoise", "switch", "vae", "long", "fp8", "batch"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["parts"]["vae"]["skipped"] == "diffusers is not installed"
    assert not [name for name, part in report["parts"].items() if "failed" in part]
    for window in ("6", "21"):
        for mode in ("reference", "fast"):
            speed = report["parts"]["denoise"][window][mode]
            assert speed["blocks"] == 4
            assert 0 < speed["block_ms"]["p10"] <= speed["block_ms"]["median"] <= speed["block_ms"]["p90"]
            assert speed["fps"] == pytest.approx(12e3 / speed["block_ms"]["median"])
            assert speed["warm_up_s"] > 0
            assert 0 < speed["roof_share"] < 1
    assert 0 < report["parts"]["fp8"]["relative_error"] < 0.2
    assert report["parts"]["roof"]["attention"]["6"]["flash"] > 0
    assert {row["method"] for row in report["parts"]["switch"]["rows"]} == {"flush", "recache"}
    assert [row["bytes_written"] for row in report["parts"]["switch"]["rows"] if row["method"] == "flush"] == [0] * 4
    text = out.with_suffix(".md").read_text()
    assert done.stdout == text
    assert "A rehearsal with a tiny model" in text
    assert "left out: diffusers is not installed" in text
    assert "| 21 | fast |" in text


def test_it_says_that_there_is_no_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench_gpu.main([]) == 2
    assert "rehearse with --device cpu --small" in capsys.readouterr().err


def small() -> Bench:
    return Bench(CPU, torch.float32, SMALL, blocks=2, long=4, matrix=64, windows=(6,), recached=(3, 6), batch=2)


def test_a_failed_or_late_part_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(bench: Bench) -> dict[str, Any]:
        raise torch.OutOfMemoryError("no memory\nleft")

    def left_out(bench: Bench) -> dict[str, Any]:
        raise Skipped("why")

    monkeypatch.setitem(bench_gpu.PARTS, "denoise", fails)
    monkeypatch.setitem(bench_gpu.PARTS, "switch", left_out)
    seen = []
    for report in measure(small(), ["denoise", "switch", "roof"], minutes=1):
        seen.append(list(report["parts"]))
        as_markdown(report)
    assert seen == [["denoise"], ["denoise", "switch"], ["denoise", "switch", "roof"]]
    assert report["parts"]["denoise"]["failed"] == "OutOfMemoryError: no memory"
    assert "Traceback" in capsys.readouterr().err
    assert report["parts"]["switch"]["skipped"] == "why"
    assert report["parts"]["roof"]["matmul"] > 0
    (report,) = measure(small(), ["roof"], minutes=0)
    assert report["parts"]["roof"]["skipped"] == "0 minutes were over"


class OddError(Exception):
    """Triton's, a linker's, those of packages of another version: errors of every kind come without a message, too."""


@pytest.mark.parametrize(
    ("answer", "words"),
    [(OddError(), "OddError: without a message"), (float("nan"), "ValueError: Out of range float values")],
)
def test_whatever_a_part_does_the_report_is_written(
    answer: Any, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def part(bench: Bench) -> dict[str, Any]:
        if isinstance(answer, Exception):
            raise answer
        return {"relative_error": answer}

    monkeypatch.setitem(bench_gpu.PARTS, "roof", part)
    out = tmp_path / "bench.json"
    assert bench_gpu.main(["--device", "cpu", "--small", "--parts", "roof", "--out", str(out), "--commit", "abc"]) == 1
    report = json.loads(out.read_text())
    assert report["parts"]["roof"]["failed"].startswith(words)
    assert report["commit"] == "abc"


def test_without_a_compiler_that_works_the_parts_run_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_layers = CausalWanTransformer.compile_layers

    def fails(graph: Any, inputs: Any) -> Any:
        raise OddError

    monkeypatch.setattr(
        CausalWanTransformer, "compile_layers", lambda self, frames: compile_layers(self, frames, fails)
    )
    bench = small()
    bench.compiled = True
    (report,) = measure(bench, ["denoise"], minutes=1)
    torch.compiler.reset()
    assert "failed" not in report["parts"]["denoise"]
    assert not report["compiled"]
    assert "not compiled, as the compiler failed with BackendCompilerFailed" in as_markdown(report)


def test_fast_and_reference_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is fast because it is wrong shows."""
    (report,) = measure(small(), ["denoise"], minutes=1)
    assert 0 < report["parts"]["denoise"]["difference"] < 1e-5
    assert "(relative norm): rounding." in as_markdown(report)
    turn = KVArena.store_projected
    monkeypatch.setattr(KVArena, "store_projected", lambda *arguments: turn(*arguments).flip(1))
    (report,) = measure(small(), ["denoise"], minutes=1)
    assert report["parts"]["denoise"]["difference"] > 0.05
    assert "fast is wrong here" in as_markdown(report)


def test_attention_falls_back_to_flash_where_cudnn_fails() -> None:
    def first() -> SDPBackend:
        with attention_backends(torch.device("cuda")):
            return _cur_sdpa_kernel_backends(with_priority=True)[0]

    assert first() == SDPBackend.CUDNN_ATTENTION
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        assert first() == SDPBackend.FLASH_ATTENTION
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)


def test_attention_that_is_wrong_has_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    size = SMALL.tokens
    assert measure_attention(CPU, torch.float32, SMALL.config, 3 * size, 6 * size)["flash"]
    plain = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: plain(q, k[:, :, 1:], v[:, :, 1:]))
    assert measure_attention(CPU, torch.float32, SMALL.config, 3 * size, 6 * size)["flash"] is None


def test_a_torch_too_old_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.5.1+cu121"))
    assert bench_gpu.main([]) == 2
    assert "torch 2.5.1+cu121 is too old; install torch 2.6 or newer" in capsys.readouterr().err


def test_modes_take_turns_and_the_warm_up_is_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    model, order = random_model(SMALL.config, CPU, torch.float32), []
    rollouts = {name: random_rollout(model, SMALL, 6, 5, steps=(1000.0,)) for name in "ab"}
    for name, rollout in rollouts.items():
        forward = rollout._denoise
        monkeypatch.setattr(rollout, "_denoise", lambda op, n=name, f=forward: (order.append(n), f(op)))
    made = interleaved(rollouts, CPU, warm_up=2)
    assert order == list("ab" * 5)
    assert all(len(series.seconds) == 3 and series.warm_up > 0 for series in made.values())


def test_speed_is_frames_over_the_median() -> None:
    speed = Series(1.0, np.array([0.1, 0.2, 0.9])).speed(videos=2)
    assert speed["block_ms"]["median"] == pytest.approx(100)
    assert speed["fps"] == pytest.approx(120)  # 12 frames of each of two videos in 0.2 s
    assert filling(21) == 9


def test_the_share_is_of_the_measured_roof() -> None:
    bench = small()
    assert bench.share(1.0, 6) is None
    bench.roof = Roof(matmul=1e9, copy=1.0)
    least = bench.roof.block_seconds(SMALL.config, SMALL.tokens, 3, 6)
    assert bench.share(4 * least, 6) == pytest.approx(0.25)


def test_random_weights_are_not_zero() -> None:
    for name, weight in random_model(SMALL.config, CPU, torch.float32).named_parameters():
        assert 0.01 < weight.std() < 1, name


@pytest.mark.slow
def test_the_decoder_is_measured_and_joins_the_rollout() -> None:
    pytest.importorskip("diffusers")
    (report,) = measure(small(), ["vae"], minutes=1)
    part = report["parts"]["vae"]
    assert list(part["ladder"]) == [
        "one latent a call, channels first (as published)", "three latents a call, channels last",
        "three latents a call, channels last, cuDNN tries its kernels",
    ]  # fmt: skip
    assert part["end_to_end"]["fps"] > 0
    assert all(rung["difference"] < 0.5 for rung in part["ladder"].values())
    assert "End to end, window 6" in as_markdown(report)


class WithoutConcatenations(OpCounter):
    def _count(self, tally: Any, func: Any, packet: Any, *rest: Any) -> None:
        if packet is not torch.ops.aten.cat:
            super()._count(tally, func, packet, *rest)


@pytest.mark.slow
def test_the_published_decoder_asks_for_what_was_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """349 operations and 66 GB a latent frame were counted on the published code; what they are made of is listed with
    them, and concatenations are not in the list."""
    pytest.importorskip("diffusers")
    whole = bench_vae.count_decoder(Geometry(), published=True)
    monkeypatch.setattr(bench_vae, "OpCounter", WithoutConcatenations)
    found = bench_vae.count_decoder(Geometry(), published=True)
    assert found.operations == pytest.approx(349, rel=0.05)
    assert found.elementwise == pytest.approx(66e9, rel=0.05)
    assert found.flops == pytest.approx(13.55e12, rel=0.01)
    assert (whole.operations, whole.reads) == (386, 0)
    assert bench_vae.count_decoder(Geometry(), published=False).elementwise > 1.4 * found.elementwise


@pytest.mark.slow
def test_the_published_decoder_is_the_same_decoder() -> None:
    pytest.importorskip("diffusers")
    latents = torch.randn(1, 3, 16, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = bench_vae.random_vae(CPU, torch.float32, small=True)
    plain = WanCodec(vae).decoder()(latents)
    bench_vae.as_published(vae)
    assert torch.equal(WanCodec(vae).decoder()(latents), plain)
    rounded = WanCodec(vae.bfloat16()).decoder()(latents)
    assert 0 < (rounded.int() - plain.int()).abs().float().mean() < 4


@pytest.mark.slow
def test_a_rung_that_fails_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")

    def fails(z: torch.Tensor) -> torch.Tensor:
        raise OddError

    monkeypatch.setattr(bench_vae, "as_published", lambda vae: setattr(vae.post_quant_conv, "forward", fails))
    (report,) = measure(small(), ["vae"], minutes=1)
    first, second, *_ = report["parts"]["vae"]["ladder"].values()
    assert first == {"failed": "OddError"}
    assert second["latent_ms"] > 0
    assert "| failed: OddError | – | – | – |" in as_markdown(report)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_block_that_began_before_the_count_does_not_count(ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that ticks once a block: with a decoder beside the next block one more has begun when the count does."""
    ticks = [0]

    class FakeLane:
        def __call__(self, decode: Any, latents: torch.Tensor) -> Any:
            ticks[0] += 1
            return lambda: torch.zeros(1, 1, 1, 1, 3, dtype=torch.uint8)

    lane: Any = FakeLane()
    lane.ahead = ahead
    monkeypatch.setattr(bench_gpu_parts, "now", lambda device: float(ticks[0]))
    monkeypatch.setattr(bench_gpu_parts, "lane_for", lambda device: lane)
    model = random_model(SMALL.config, CPU, torch.float32)
    rollout = random_rollout(model, SMALL, 6, 7, steps=(1000.0,), codec=FakeCodec(), lane=lane)
    assert streamed(rollout, CPU, 3) == (3 + ahead, 1.0, 4 - ahead)
