"""Self-rollout distillation of the embedded model: an optional stage after ``stable``, meant for a GPU.

Three nets start from one weights file: the student, a frozen teacher, and the fake score, which keeps learning what the
student makes. Every step rolls the student out and trains the fake score on its clips; every few steps the student
moves along the difference of the two scores (`irope.models.tiny.self_forcing`).

Every random draw of a step comes from (seed, step), so a run that was stopped and resumed gives the same weights.

Shapes: B clips, N latent frames, C latent channels, h w latent cells.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from irope.identity import file_digest
from irope.models.tiny.data import OPEN_BACKGROUND_SHARE
from irope.models.tiny.model import load_tiny, save_tiny
from irope.models.tiny.muon import MuonAdam
from irope.models.tiny.net import TinyNet
from irope.models.tiny.run_state import load_state, save_state
from irope.models.tiny.self_forcing import constant_past, denoise, matching_gradient, self_roll_out, subject_cells
from irope.models.tiny.stages import Stage
from irope.models.tiny.teacher_forcing import BLOCK_FRAMES, TeacherForcing, Window
from irope.models.tiny.train import SHIFT, matmul_attention
from irope.sampler import Sampler
from irope.world import sample_scene

NAME = "distilled"
STAGE = Stage(NAME, 3000, batch=128, frames=21, rate_end=0.1, window_share=0.9)


@dataclass(frozen=True)
class DistillConfig:
    """A distillation. Everything but ``out``, ``device`` and the intervals decides the weights.

    Args:
        start: weights file of the student, the teacher and the fake score.
        stage: every step rolls out and trains the fake score; windows are drawn as in the other stages.
        fake_steps: the student moves once in so many steps.
        head_start: first steps, in which the fake score learns alone.
        muon_lr, adam_lr: of the student; the fake score's are ``fake_rate`` times that.
        subject_weight: extra weight of cells on the subject, as in the teacher's own training.
    """

    start: Path
    out: Path
    stage: Stage = STAGE
    seed: int = 0
    fake_steps: int = 5
    head_start: int = 200
    muon_lr: float = 1e-3
    adam_lr: float = 1e-4
    fake_rate: float = 1.0
    ema: float = 0.99
    subject_weight: float = 4.0
    compute: str = "bfloat16"
    device: str = "cpu"
    checkpoint_every: int = 200
    report_every: int = 25

    def recipe(self) -> dict[str, object]:
        """What decides the weights, as JSON values; the start file by its SHA-256."""
        values = json.loads(json.dumps(asdict(self), default=str))
        idle = ("start", "out", "device", "checkpoint_every", "report_every")
        return {"start_sha256": file_digest(self.start)} | {k: v for k, v in values.items() if k not in idle}


@dataclass(frozen=True)
class DistillProgress:
    """A report on the last ``report_every`` steps.

    ``fake_loss`` is per element. ``gap`` is the mean difference of the two scores over the teacher's distance from the
    clip: 0 when the teacher cannot tell the student's clips from its own; NaN while the student has not moved.
    """

    step: int
    steps: int
    fake_loss: float
    gap: float
    frames_per_second: float


class Learner:
    """A net in training: float32 master weights, the net itself in the compute dtype, the optimizer."""

    def __init__(self, net: TinyNet, config: DistillConfig, rate: float = 1.0) -> None:
        self.master = {name: w.detach().float().clone() for name, w in net.named_parameters()}
        self.net = net.to(dtype=getattr(torch, config.compute)).requires_grad_(True)
        self.optimizer = MuonAdam(self.master, rate * config.muon_lr, rate * config.adam_lr)

    @torch.no_grad()
    def load_compute(self) -> None:
        for name, weight in self.net.named_parameters():
            weight.copy_(self.master[name])

    def update(self, loss: Tensor, count: int, multiplier: float) -> None:
        """Step ``count`` (from 1) down the gradient of ``loss``; the first twenty warm up."""
        loss.backward()
        grads = {}
        for name, weight in self.net.named_parameters():
            grads[name] = torch.zeros_like(self.master[name]) if weight.grad is None else weight.grad.float()
            weight.grad = None
        self.optimizer.step(grads, count, multiplier * min(1.0, count / 20))
        self.load_compute()


def draw_prompts(rng: np.random.Generator, count: int) -> list[str]:
    """Prompts of the training world; held-out ones never occur."""
    scenes = [sample_scene(rng) for _ in range(count)]
    return [(s.without_background() if rng.random() < OPEN_BACKGROUND_SHARE else s).prompt for s in scenes]


class Distiller:
    """One run: student, its average, fake score, teacher, and the step. Draws of a step come from (seed, step)."""

    def __init__(self, config: DistillConfig) -> None:
        """Raises FileNotFoundError or `irope.errors.WeightsError` for a bad ``start``."""
        self.config = config
        self.device = torch.device(config.device)
        model = load_tiny(config.start, self.device)
        self.codec, self.geometry, self.info = model.codec, model.transformer.config, model.info
        self.sampler = Sampler.from_nominal(model.info.sampler_steps, model.info.sampler_shift)
        net = TinyNet(self.geometry)
        net.text, net.wan = model.text_encoder, model.transformer
        self.student = Learner(deepcopy(net), config)
        self.fake = Learner(deepcopy(net), config, config.fake_rate)
        self.teacher = net.to(dtype=getattr(torch, config.compute))
        self.average = {name: w.clone() for name, w in self.student.master.items()}
        self.step = 0

    def advance(self) -> tuple[float, float]:
        """One step; returns the fake score's loss and the gap (NaN where the student did not move)."""
        config, stage = self.config, self.config.stage
        rng = np.random.default_rng([config.seed, self.step, 1 << 23])
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        prompts = draw_prompts(rng, stage.batch)
        window = replace(stage.draw_window(rng), leak=False)  # nothing is flushed within a clip
        steps = int(rng.integers(self.sampler.steps)) + 1
        sampler = Sampler(self.sampler.timesteps[:steps], self.sampler.sigmas[:steps])

        def draw(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=generator, device=self.device)

        shape = (stage.frames, self.geometry.in_dim, self.info.height, self.info.width)
        clean, noisy = self_roll_out(self.student.net, prompts, window, sampler, shape, draw)
        rate = stage.rate(self.step / stage.steps)
        gap = math.nan
        with matmul_attention(self.device):
            loss = self.fake_loss(clean, prompts, generator)
            self.fake.update(loss, self.step + 1, rate)
            self.step += 1
            moved, last = divmod(self.step - config.head_start, config.fake_steps)
            if moved > 0 and not last:
                sigma = torch.full(clean.shape[:2], sampler.sigmas[-1], device=self.device)
                attend = constant_past(self._attend(window))
                _, x0 = denoise(self.student.net, clean, noisy, sigma, prompts, attend)
                gradient, gap = self.matching(x0.detach(), clean, prompts, generator)
                self.student.update((x0 * gradient).sum() / x0.numel(), moved, rate)
                decay = min(config.ema, (1 + moved) / (10 + moved))
                for name, average in self.average.items():
                    average.lerp_(self.student.master[name], 1 - decay)
        return loss.item(), gap

    def _attend(self, window: Window) -> TeacherForcing:
        grid = self.geometry.grid(self.info.height, self.info.width)
        return TeacherForcing(self.config.stage.frames, grid, self.geometry.rope_dims, window, self.device)

    def _noised(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(noise, sigma [B, N], noisy clip): a level per block, uniform within .02 to .98 and warped by the shift."""
        noise = torch.randn(clean.shape, generator=generator, device=self.device)
        size = (len(clean), clean.shape[1] // BLOCK_FRAMES)
        uniform = 0.02 + 0.96 * torch.rand(size, generator=generator, device=self.device)
        sigma = (SHIFT * uniform / (1 + (SHIFT - 1) * uniform)).repeat_interleave(BLOCK_FRAMES, dim=1)
        level = sigma[:, :, None, None, None]
        return noise, sigma, (1 - level) * clean + level * noise

    def fake_loss(self, clean: Tensor, prompts: list[str], generator: torch.Generator) -> Tensor:
        """Flow matching on the student's clips, weighted as the teacher's training was: else the two would differ."""
        noise, sigma, noisy = self._noised(clean, generator)
        flow, _ = denoise(self.fake.net, clean, noisy, sigma, prompts, self._attend(Window()))
        weight = 1 + self.config.subject_weight * subject_cells(self.codec, clean)
        return ((flow - (noise - clean)).square() * weight).mean()

    @torch.no_grad()
    def matching(
        self, x0: Tensor, clean: Tensor, prompts: list[str], generator: torch.Generator
    ) -> tuple[Tensor, float]:
        """The gradient at ``x0`` (its past is ``clean``) and the gap."""
        _, sigma, noisy = self._noised(x0, generator)
        attend = self._attend(Window())  # the scores see the whole past, whatever the student's window
        _, fake = denoise(self.fake.net, clean, noisy, sigma, prompts, attend)
        _, real = denoise(self.teacher, clean, noisy, sigma, prompts, attend)
        gradient, gap = matching_gradient(x0, fake, real)
        return gradient, gap.item()

    @property
    def parts(self) -> dict[str, dict[str, Tensor]]:
        """The whole state of the run."""
        student, fake = self.student, self.fake
        return {
            "average": self.average,
            "student": student.master,
            "student_optimizer": student.optimizer.state,
            "fake": fake.master,
            "fake_optimizer": fake.optimizer.state,
        }

    def save(self, path: Path) -> None:
        save_state(path, self.parts, self.step, self.config.recipe())

    def load(self, path: Path) -> None:
        """Continue a run from its state; raises ValueError when that was a run of another recipe."""
        self.step = load_state(path, self.parts, self.config.recipe())
        self.student.load_compute()
        self.fake.load_compute()

    def export(self) -> Path:
        """Write the student's averaged weights as a model file ``<out>/distilled.safetensors``."""
        recipe = self.config.recipe()
        digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
        info = replace(self.info, checkpoint=NAME, recipe=recipe, recipe_hash=digest, trained_steps=self.step)
        path = self.config.out / f"{NAME}.safetensors"
        save_tiny(path, self.average, self.codec, self.geometry, info)
        return path


def distill(
    config: DistillConfig,
    report: Callable[[DistillProgress], None] | None = None,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Run the distillation to its end; return ``<out>/distilled.safetensors``, ready for `load_tiny`.

    State, ``resume`` and ``stop`` are as in `irope.models.tiny.train.train`, in ``<out>/distilled-state.safetensors``.

    Raises:
        FileExistsError: ``out`` holds a distillation already and ``resume`` is False.
        FloatingPointError: a loss is not finite.
    """
    state = config.out / f"{NAME}-state.safetensors"
    if state.exists() and not resume:
        raise FileExistsError(f"{state} exists; resume it or choose another output folder")
    run = Distiller(config)
    if state.exists():
        run.load(state)
    losses: list[tuple[float, float]] = []
    began, stage = time.monotonic(), config.stage
    while run.step < stage.steps:
        if stop():
            run.save(state)
            raise KeyboardInterrupt(f"stopped before step {run.step + 1}")
        losses.append(run.advance())
        if not math.isfinite(losses[-1][0]) or math.isinf(losses[-1][1]):
            raise FloatingPointError(f"the loss is not finite at step {run.step}")
        if report and run.step % config.report_every == 0:
            fake = float(np.mean([one for one, _ in losses]))
            gaps = [gap for _, gap in losses if not math.isnan(gap)]
            speed = len(losses) * stage.batch * stage.frames / (time.monotonic() - began)
            report(DistillProgress(run.step, stage.steps, fake, float(np.mean(gaps)) if gaps else math.nan, speed))
            losses, began = [], time.monotonic()
        if run.step % config.checkpoint_every == 0 or run.step == stage.steps:
            run.save(state)
    return run.export()
