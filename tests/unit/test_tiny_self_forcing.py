"""Self-rollout distillation in small: the clip, the one step that learns from it, its direction, and the run."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from irope.cache import ArenaShape, KVArena
from irope.cli.main import main
from irope.errors import WeightsError
from irope.models.tiny.codec import pixel_frames
from irope.models.tiny.data import covered_cells, fit_codec, to_video
from irope.models.tiny.distill import DistillConfig, Distiller, DistillProgress, distill, draw_prompts
from irope.models.tiny.info import TinyInfo
from irope.models.tiny.model import TinyModel, load_tiny, save_tiny
from irope.models.tiny.net import TinyNet, initialize
from irope.models.tiny.sample import roll_out
from irope.models.tiny.self_forcing import (
    constant_past,
    denoise,
    matching_gradient,
    rollout_policy,
    self_roll_out,
    subject_cells,
)
from irope.models.tiny.stages import Stage
from irope.models.tiny.teacher_forcing import TeacherForcing, Window
from irope.noise import KeyedNoise
from irope.policy import CacheView, Page
from irope.sampler import Sampler
from irope.transformer import WanConfig
from irope.world import render, sample_staging
from irope.world.scene import parse_prompt

MICRO = WanConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=2, in_dim=8, out_dim=8, text_len=12, text_dim=16)
FRAMES = 15
SHAPE = (FRAMES, 8, 8, 8)
CPU = torch.device("cpu")
PROMPTS = ["a red circle bouncing", "a blue cross moving up over a navy striped background"]
SAMPLER = Sampler.from_nominal((1000, 750, 500, 250), 3.0)
WINDOWS = [
    Window(),
    Window(past=4),
    Window(past=4, sink=1),
    Window(past=2, sink=1, near_sink=True),
    Window(past=5, sink=3, near_sink=True),
]


def lively_net(seed: int = 1) -> TinyNet:
    """A net whose output depends on all its inputs (a fresh one is silent)."""
    net = TinyNet(MICRO)
    initialize(net, 0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return net


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "stable.safetensors"
    net = lively_net()
    info = TinyInfo("stable", {"seed": 0}, "0" * 16, 1)
    save_tiny(path, dict(net.named_parameters()), fit_codec(MICRO.in_dim, 0, 4), MICRO, info)
    return path


def config(start: Path, out: Path, **changes: object) -> DistillConfig:
    stage = Stage("distilled", 8, 2, 6, window_share=0.9)
    values = {"stage": stage, "fake_steps": 2, "head_start": 2, "checkpoint_every": 3, "report_every": 2}
    return DistillConfig(start, out, **{"compute": "float32", **values, **changes})  # type: ignore[arg-type]


def draws(seed: int) -> Callable[[tuple[int, ...]], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator)


def attend(window: Window, frames: int = FRAMES) -> TeacherForcing:
    return TeacherForcing(frames, (4, 4), MICRO.rope_dims, window, CPU)


def last_step(net: TinyNet, clean: Tensor, noisy: Tensor, sigma: float, window: Window) -> Tensor:
    levels = torch.full(clean.shape[:2], sigma)
    return denoise(net, clean, noisy, levels, PROMPTS, constant_past(attend(window, clean.shape[1])))[1]


# --- the clip -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("steps", [1, 4])
def test_the_step_with_gradients_repeats_the_roll_out(window: Window, steps: int) -> None:
    net = lively_net()
    sampler = Sampler(SAMPLER.timesteps[:steps], SAMPLER.sigmas[:steps])
    clean, noisy = self_roll_out(net, PROMPTS, window, sampler, SHAPE, draws(0))
    x0 = last_step(net, clean, noisy, sampler.sigmas[-1], window)
    assert x0.requires_grad
    torch.testing.assert_close(x0.detach(), clean, rtol=1e-4, atol=1e-4)
    other = Window(past=1) if window.past != 1 else Window()
    assert (last_step(net, clean, noisy, sampler.sigmas[-1], other) - clean).abs().max() > 1e-3


@pytest.mark.parametrize(("window", "size", "sink"), [(Window(), None, 0), (Window(2, 1, near_sink=True), 6, 1)])
def test_all_steps_give_the_clip_that_the_model_shows_its_users(window: Window, size: int | None, sink: int) -> None:
    net = lively_net()
    noise = KeyedNoise(3, PROMPTS, (3, *SHAPE[1:]))
    calls = iter([noise(block, step) for block in range(FRAMES // 3) for step in range(4)])
    clean, _ = self_roll_out(net, PROMPTS, window, SAMPLER, SHAPE, lambda shape: next(calls))
    model = TinyModel(net.wan, net.text, fit_codec(8, 0, 1), TinyInfo("stable", {}, "", 0))
    torch.testing.assert_close(clean, roll_out(model, PROMPTS, FRAMES, 3, size, sink), rtol=0, atol=0)


# --- the gradient ---------------------------------------------------------------------------------------------------


def test_the_past_takes_no_gradient() -> None:
    net, window = lively_net(), Window(past=2, sink=1, near_sink=True)
    clean, noisy = (torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    past = clean.clone().requires_grad_()
    last_step(net, past, noisy, 0.75, window).square().sum().backward()
    assert past.grad is None or not past.grad.any()
    denoise(net, past, noisy, torch.full((2, FRAMES), 0.75), PROMPTS, attend(window))[1].square().sum().backward()
    assert past.grad is not None  # it would take some, without `constant_past`
    assert past.grad.any()


def test_the_gradient_is_that_of_the_last_call_with_the_cache_left_alone() -> None:
    """Against finite differences of a call through the roll-out's own cache, filled once and for all."""
    net, window, sigma = lively_net(), Window(past=2, sink=1, near_sink=True), 0.75
    clean, noisy, direction = (
        torch.randn(2, 9, *SHAPE[1:], generator=torch.Generator().manual_seed(i)) for i in range(3)
    )
    direction[:, :6] = 0  # the third block alone: the sink and two frames before it
    (last_step(net, clean, noisy, sigma, window) * direction).sum().backward()
    weights = [net.wan.blocks[0].self_attn.k.weight, net.wan.blocks[1].self_attn.v.weight, net.wan.head.head.weight]

    arena = KVArena(MICRO, ArenaShape(9, (4, 4), 2), torch.float32, CPU)
    policy, pages = rollout_policy(window, 9), ()
    with torch.inference_mode():
        text = net.wan.text_kv(net.text(PROMPTS))
        for block in range(3):
            frames = tuple(range(3 * block, 3 * block + 3))
            plan = policy.plan(CacheView(pages, frames))
            arena.execute(plan, 0)
            if block < 2:
                arena.writing(frames, 0)
                net.wan(clean[:, frames[0] : frames[-1] + 1], torch.zeros(2, 3), text, arena)
                pages = (*(page for page in pages if page.id in plan.read), *(Page(frame) for frame in frames))

    @torch.inference_mode()
    def value() -> float:
        x = noisy[:, 6:]
        text = net.wan.text_kv(net.text(PROMPTS))
        flow = net.wan(x, torch.full((2, 3), 1000 * sigma), text, arena)
        return ((x - sigma * flow).double() * direction[:, 6:].double()).sum().item()

    for number, weight in enumerate(weights):
        step = torch.randn(weight.shape, generator=torch.Generator().manual_seed(10 + number))
        ends = []
        for size in (2e-3, -2e-3):
            with torch.no_grad():
                weight.add_(step, alpha=size)
                ends.append(value())
                weight.sub_(step, alpha=size)
        assert (weight.grad * step).sum().item() == pytest.approx((ends[0] - ends[1]) / 4e-3, rel=0.02)


def test_distribution_matching_takes_samples_to_the_target_distribution() -> None:
    """Gaussians, whose scores are known: mean and deviation of the samples end at the target's."""
    generator = torch.Generator().manual_seed(0)
    mean, deviation = torch.tensor(-1.0), torch.tensor(1.5)
    target = (2.0, 0.5)

    def posterior(noisy: Tensor, sigma: float, mean: Tensor | float, deviation: Tensor | float) -> Tensor:
        """E[x0 | (1-sigma) x0 + sigma eps = noisy] of x0 ~ N(mean, deviation^2)."""
        keep = 1 - sigma
        gain = keep * deviation**2 / (keep**2 * deviation**2 + sigma**2)
        return mean + gain * (noisy - keep * mean)

    for _ in range(400):
        z, noise = (torch.randn(64, 3, 1, 4, 4, generator=generator) for _ in range(2))
        x0 = mean + deviation * z
        sigma = 0.02 + 0.96 * torch.rand((), generator=generator).item()
        noisy = (1 - sigma) * x0 + sigma * noise
        fake, real = posterior(noisy, sigma, mean, deviation), posterior(noisy, sigma, *target)
        gradient, gap = matching_gradient(x0, fake, real)
        mean, deviation = mean - 0.1 * gradient.mean(), deviation - 0.1 * (gradient * z).mean()
    assert mean.item() == pytest.approx(target[0], abs=0.1)
    assert deviation.item() == pytest.approx(target[1], abs=0.1)
    assert gap < 0.1


class Fixed(nn.Module):
    """A teacher that takes every block for the same picture."""

    def __init__(self, picture: Tensor) -> None:
        super().__init__()
        self.picture = picture

    def forward(self, both: Tensor, t: Tensor, prompts: list[str], attend: object) -> Tensor:
        sigma = (t / 1000)[:, :, None, None, None].clamp_min(1e-3)
        return (both - self.picture) / sigma


def test_the_student_moves_to_what_the_teacher_takes_its_clips_for(start: Path, tmp_path: Path) -> None:
    """Fake score, student and roll-outs together; rates are high, so the mean is tested and not the spread."""
    stage = Stage("distilled", 1000, 2, 6, window_share=0.9)
    changes = {"stage": stage, "fake_steps": 1, "head_start": 10, "muon_lr": 0.01, "adam_lr": 0.005, "fake_rate": 2.0}
    run = Distiller(config(start, tmp_path, **changes))
    picture = torch.randn(8, 1, 1, generator=torch.Generator().manual_seed(0))
    run.teacher = Fixed(picture)  # type: ignore[assignment]

    def distance() -> float:
        clean, _ = self_roll_out(run.student.net, PROMPTS, Window(), SAMPLER, (6, 8, 8, 8), draws(0))
        return (clean.mean(dim=(0, 1, 3, 4)) - picture.flatten()).square().mean().item()

    before = distance()
    for _ in range(30):
        run.advance()
    assert distance() < 0.2 * before


# --- the fake score -------------------------------------------------------------------------------------------------


def test_the_fake_score_learns_a_fixed_set_of_clips(start: Path, tmp_path: Path) -> None:
    run = Distiller(config(start, tmp_path, muon_lr=0.02, adam_lr=2e-3))
    clips = torch.randn(2, 6, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    losses = []
    for step in range(40):
        loss = run.fake_loss(clips, PROMPTS, torch.Generator().manual_seed(0))
        losses.append(loss.item())
        run.fake.update(loss, step + 21, 1.0)
    assert losses[-1] < 0.5 * losses[0]


def test_subjects_are_found_in_latents() -> None:
    codec = fit_codec(24, 0, 8)
    scene = parse_prompt("a white square moving left over a navy plain background")
    frames, coverage = render(scene, sample_staging(np.random.default_rng(0)), pixel_frames(4))
    found = subject_cells(codec, codec.encode(to_video(frames)))[0, :, 0]
    torch.testing.assert_close(found, covered_cells(coverage), rtol=0, atol=0.25)
    assert found.mean() == pytest.approx(covered_cells(coverage).mean().item(), rel=0.1)


# --- the run --------------------------------------------------------------------------------------------------------


def test_a_stopped_and_resumed_run_equals_an_unbroken_one_to_the_bit(start: Path, tmp_path: Path) -> None:
    reports: list[DistillProgress] = []
    whole = distill(config(start, tmp_path / "whole"), reports.append)
    assert [r.step for r in reports] == [2, 4, 6, 8]
    assert all(r.fake_loss > 0 for r in reports)
    assert [r.gap > 0 for r in reports] == [False, True, True, True]  # the fake score has a head start

    asked = iter([False] * 4 + [True])
    with pytest.raises(KeyboardInterrupt, match="before step 5"):
        distill(config(start, tmp_path / "broken"), stop=lambda: next(asked))
    with pytest.raises(FileExistsError, match="resume"):
        distill(config(start, tmp_path / "broken"))
    distill(config(start, tmp_path / "broken"), resume=True)
    for name in ("distilled-state", "distilled"):
        one, other = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "broken"))
        assert all(torch.equal(one[key], other[key]) for key in one), name
    before = load_file(start)
    assert any(not torch.equal(before[key], one[key]) for key in one)
    with pytest.raises(ValueError, match="muon_lr"):
        distill(config(start, tmp_path / "whole", muon_lr=0.5), resume=True)
    assert whole.name == "distilled.safetensors"


def test_the_weights_file_says_what_it_was_distilled_from(start: Path, tmp_path: Path) -> None:
    model = load_tiny(distill(config(start, tmp_path, stage=Stage("distilled", 1, 2, 6), compute="bfloat16")))
    assert model.info.checkpoint == "distilled"
    assert model.info.trained_steps == 1
    assert model.info.recipe["start_sha256"] == hashlib.sha256(start.read_bytes()).hexdigest()
    assert not {"out", "start", "device"} & model.info.recipe.keys()


def test_a_start_that_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        distill(config(tmp_path / "none", tmp_path / "out"))
    (tmp_path / "bad").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="safetensors"):
        distill(config(tmp_path / "bad", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "distilled"], "go together"),
        (["--from", "some.safetensors"], "go together"),
        (["--stage", "distilled", "--from", "nowhere.safetensors"], "no such file"),
        (["--stage", "distilled", "--from", __file__], "safetensors"),
    ],
)
def test_the_command_says_what_it_needs(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "tiny", "--out", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_prompts_are_those_of_training() -> None:
    scenes = [parse_prompt(prompt) for prompt in draw_prompts(np.random.default_rng(0), 400)]
    assert not any(scene.held_out for scene in scenes)
    assert 0.15 < np.mean([scene.background is None for scene in scenes]) < 0.35
