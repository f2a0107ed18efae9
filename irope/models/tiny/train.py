"""Training of the embedded model: its codec, then flow matching with teacher forcing, in stages, resumable at any step.

Every random draw of a step comes from (seed, step), so a run that was stopped and resumed gives the same weights as
one that was not, on the same machine with the same number of threads.

Shapes: B clips, N latent frames, I blocks, C latent channels, h w latent cells.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from irope.models.tiny.codec import TinyCodec
from irope.models.tiny.data import Batch, make_batch
from irope.models.tiny.info import TinyInfo
from irope.models.tiny.losses import LossLog, Progress
from irope.models.tiny.model import save_tiny
from irope.models.tiny.muon import MuonAdam
from irope.models.tiny.net import TINY_WAN, TinyNet, initialize
from irope.models.tiny.run_state import load_state, save_state
from irope.models.tiny.stages import SHIPPED_STAGES, Stage
from irope.models.tiny.teacher_forcing import BLOCK_FRAMES, TeacherForcing
from irope.models.tiny.train_codec import CodecConfig, CodecProgress, DecoderConfig, full_recipe, prepare_codec
from irope.transformer import WanConfig

SAMPLER_SIGMAS = (1.0, 0.9, 0.75, 0.5)
"""Noise levels of the four sampler steps: 1000, 750, 500, 250 warped with shift 3."""

SHIFT = 3.0

CODEC_STAGE = "codec"
"""Comes before all others; see `irope.models.tiny.train_codec`."""


@contextmanager
def matmul_attention(device: torch.device) -> Iterator[None]:
    """On a CPU, let cross-attention run as plain products in the compute dtype: thrice the fused speed."""
    if device.type != "cpu":
        yield
        return
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Everything but ``out``, ``device`` and the intervals decides the weights."""

    out: Path
    stages: tuple[Stage, ...] = SHIPPED_STAGES
    geometry: WanConfig = TINY_WAN
    seed: int = 0
    muon_lr: float = 0.02
    adam_lr: float = 2e-3
    ema: float = 0.998
    subject_weight: float = 4.0
    sampler_share: float = 0.6
    codec_clips: int = 250
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    compute: str = "bfloat16"
    device: str = "cpu"
    checkpoint_every: int = 200
    report_every: int = 25

    @property
    def codec(self) -> CodecConfig:
        return CodecConfig(self.geometry.in_dim, self.seed, self.codec_clips, self.decoder)

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def recipe(self) -> dict[str, object]:
        """What decides the weights of the net, as JSON values; the decoder has no part in them."""
        values = json.loads(json.dumps(asdict(self), default=str))
        values["stages"] = [{key: value for key, value in one.items() if key != "adds"} for one in values["stages"]]
        idle = ("out", "device", "checkpoint_every", "report_every", "decoder")
        return {key: value for key, value in values.items() if key not in idle}

    def place(self, step: int) -> tuple[Stage, float]:
        """The stage that ``step`` (from 0) falls into and how much of it has passed, 0..1."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step / stage.steps
            step -= stage.steps
        raise ValueError(f"step is {step + 1} beyond the end of the run ({self.steps} steps)")


class Trainer:
    """One run: float32 master weights and their average, a copy in the compute dtype, the optimizer, the step."""

    def __init__(self, config: TrainConfig, codec: TinyCodec) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self.codec = codec
        net = TinyNet(config.geometry)
        initialize(net, config.seed)
        self.master = {name: w.detach().clone().to(self.device) for name, w in net.named_parameters()}
        self.average = {name: w.clone() for name, w in self.master.items()}
        self.net = net.to(self.device, getattr(torch, config.compute))
        self.optimizer = MuonAdam(self.master, config.muon_lr, config.adam_lr)
        self.step = 0
        self._load_compute()

    @torch.no_grad()
    def _load_compute(self) -> None:
        for name, weight in self.net.named_parameters():
            weight.copy_(self.master[name])

    def advance(self) -> tuple[float, float]:
        """One training step; returns the loss of first blocks and of later ones, per element."""
        config, step = self.config, self.step
        stage, passed = config.place(step)
        rng = np.random.default_rng([config.seed, step, 1 << 20])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        batch = make_batch(self.codec, stage.batch, stage.frames, config.seed, step, stage.spread)
        window = stage.draw_window(rng)
        clean = batch.latents.to(self.device)
        grid = config.geometry.grid(*clean.shape[-2:])
        attend = TeacherForcing(stage.frames, grid, config.geometry.rope_dims, window, self.device)
        context = clean
        if rng.random() < stage.resample_share:
            context = self._resampled(batch, attend, rng, generator)
        sigma = self._sigmas(stage, generator)
        noise = torch.randn(clean.shape, generator=generator).to(self.device)
        with matmul_attention(self.device):
            flow = self._flow(context, clean, noise, sigma, batch.prompts, attend)
        error = (flow - (noise - clean)).square() * (1 + config.subject_weight * batch.subject.to(self.device))
        first = error[~batch.rolled.to(self.device), :BLOCK_FRAMES]
        later = error[:, BLOCK_FRAMES:]
        kept = stage.first_weight * first.numel() + later.numel()
        ((stage.first_weight * first.sum() + later.sum()) / kept).backward()
        grads = {}
        for name, weight in self.net.named_parameters():
            grads[name] = torch.zeros_like(self.master[name]) if weight.grad is None else weight.grad.float()
            weight.grad = None
        warmup = min(1.0, (step + 1) / 50)
        self.optimizer.step(grads, step + 1, stage.rate(passed) * warmup)
        self._load_compute()
        decay = min(config.ema, (1 + step) / (10 + step))
        for name, average in self.average.items():
            average.lerp_(self.master[name], 1 - decay)
        self.step += 1
        return first.mean().item(), later.mean().item()

    def _flow(
        self,
        context: Tensor,
        clean: Tensor,
        noise: Tensor,
        sigma_BN: Tensor,
        prompts: list[str],
        attend: TeacherForcing,
    ) -> Tensor:
        """Predicted flow of the noisy copy given the clean copy, float32 [B, N, C, h, w]."""
        level = sigma_BN[:, :, None, None, None]
        noisy = (1 - level) * clean + level * noise
        t = torch.cat([torch.zeros_like(sigma_BN), 1000 * sigma_BN], dim=1)
        both = torch.cat([context, noisy], dim=1)
        return self.net(both, t, prompts, attend)[:, clean.shape[1] :].float()

    def _sigmas(self, stage: Stage, generator: torch.Generator) -> Tensor:
        """A noise level per block, [B, N]: a sampler step for most, else uniform warped by the shift."""
        shape = (stage.batch, stage.frames // BLOCK_FRAMES)
        uniform = torch.rand(shape, generator=generator)
        anywhere = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
        levels = torch.tensor(SAMPLER_SIGMAS)[torch.randint(len(SAMPLER_SIGMAS), shape, generator=generator)]
        sampled = torch.rand(shape, generator=generator) < self.config.sampler_share
        return torch.where(sampled, levels, anywhere).repeat_interleave(BLOCK_FRAMES, dim=1).to(self.device)

    @torch.no_grad()
    def _resampled(
        self, batch: Batch, attend: TeacherForcing, rng: np.random.Generator, generator: torch.Generator
    ) -> Tensor:
        """A context with the model's own faults: the clip noised, denoised once, its contrast and tint drifting.

        The first block, where a sink lies, stays clean in three clips of four.
        """
        clean = batch.latents.to(self.device)
        size, frames, channels = clean.shape[:3]
        sigma = torch.empty(size, 1).uniform_(0.25, 0.9, generator=generator).expand(-1, frames).to(self.device)
        noise = torch.randn(clean.shape, generator=generator).to(self.device)
        flow = self._flow(clean, clean, noise, sigma, batch.prompts, attend)
        context = clean + sigma[:, :, None, None, None] * (noise - clean - flow)
        ramp = torch.arange(frames)[None, :, None, None, None] / frames
        if rng.random() < 0.5:
            gain = 0.12 * torch.randn(size, 1, 1, 1, 1, generator=generator) * ramp
            spread = clean.cpu().std(dim=(0, 1, 3, 4))[None, None, :, None, None]
            tint = 0.3 * torch.randn(size, 1, channels, 1, 1, generator=generator) * spread * ramp
            context = context * (1 + gain).to(self.device) + tint.to(self.device)
        keep = (torch.rand(size, 1, generator=generator) < 0.75) & (torch.arange(frames) < BLOCK_FRAMES)
        return torch.where(keep[:, :, None, None, None].to(self.device), clean, context)

    @property
    def parts(self) -> dict[str, dict[str, Tensor]]:
        """The whole state of the run."""
        return {"master": self.master, "average": self.average, "optimizer": self.optimizer.state}

    def save(self, path: Path) -> None:
        save_state(path, self.parts, self.step, self.config.recipe())

    def load(self, path: Path) -> None:
        """Continue a run from its state; raises ValueError when that was a run of another recipe."""
        self.step = load_state(path, self.parts, self.config.recipe())
        self._load_compute()

    def export(self, name: str) -> Path:
        """Write the averaged weights as a model file ``<out>/<name>.safetensors``."""
        recipe, digest = full_recipe(self.config.recipe(), asdict(self.config.decoder))
        info = TinyInfo(name, recipe, digest, self.step)
        path = self.config.out / f"{name}.safetensors"
        save_tiny(path, self.average, self.codec, self.config.geometry, info)
        return path


def train(
    config: TrainConfig,
    report: Callable[[Progress | CodecProgress], None] = lambda progress: None,
    resume: bool = False,
    last_stage: str | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Run the training to its end or that of ``last_stage``; return its file, ``<out>/<stage>.safetensors``.

    `CODEC_STAGE` comes first; it begins anew when it was stopped. Then, every ``checkpoint_every`` steps, the state
    goes to ``<out>/state.safetensors``; after each stage the averaged weights go to ``<out>/<stage>.safetensors``,
    ready for `load_tiny`. Reports go to ``report``, those on losses also to ``<out>/losses.csv``; the first one after a
    resume means the steps since then. ``stop`` is asked between steps; once it says True the state is saved and
    KeyboardInterrupt raised.

    Raises:
        FileExistsError: ``out`` holds a run already and ``resume`` is False.
        ValueError: there is no ``last_stage``, or the run in ``out`` has other settings.
    """
    names = [CODEC_STAGE, *(stage.name for stage in config.stages)]
    if last_stage is not None and last_stage not in names:
        raise ValueError(f"unknown stage {last_stage!r}; the stages are {', '.join(names)}")
    state, codec_file = config.out / "state.safetensors", config.out / f"{CODEC_STAGE}.safetensors"
    for found in (state, codec_file):
        if found.exists() and not resume:
            raise FileExistsError(f"{found} exists; resume it or choose another output folder")
    codec = prepare_codec(codec_file, config.codec, report, stop)
    if last_stage == CODEC_STAGE:
        return codec_file
    trainer = Trainer(config, codec)
    if state.exists():
        trainer.load(state)
    ends = dict(zip(accumulate(stage.steps for stage in config.stages), config.stages, strict=True))
    final = next((stage for stage in config.stages if stage.name == last_stage), config.stages[-1])
    end = next(step for step, stage in ends.items() if stage is final)
    log = LossLog(config.out / "losses.csv", trainer.step)
    losses: list[tuple[float, float]] = []
    frames, began = 0, time.monotonic()
    while trainer.step < end:
        if stop():
            trainer.save(state)
            raise KeyboardInterrupt(f"stopped before step {trainer.step + 1}, all before it is saved")
        stage, _ = config.place(trainer.step)
        losses.append(trainer.advance())
        frames += stage.batch * stage.frames
        if not all(math.isfinite(value) for value in losses[-1][1:]):
            raise FloatingPointError(f"the loss is not finite at step {trainer.step}")
        if trainer.step % config.report_every == 0:
            first, later = np.nanmean(np.asarray(losses), axis=0)
            speed = frames / (time.monotonic() - began)
            report(log.add(Progress(trainer.step, config.steps, stage.name, float(first), float(later), speed)))
            losses, frames, began = [], 0, time.monotonic()
        if trainer.step % config.checkpoint_every == 0 or trainer.step == end:
            trainer.save(state)
        if trainer.step in ends:
            trainer.export(ends[trainer.step].name)
    return config.out / f"{final.name}.safetensors"
