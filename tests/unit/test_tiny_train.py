"""Training of a micro model: it learns, it repeats itself, and a stopped run ends where an unbroken one does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from irope.models.tiny.data import make_batch
from irope.models.tiny.model import load_tiny
from irope.models.tiny.muon import MuonAdam, orthogonalize
from irope.models.tiny.stages import Stage
from irope.models.tiny.train import Progress, TrainConfig, Trainer, train
from irope.transformer import WanConfig
from irope.world.scene import parse_prompt

MICRO = WanConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=2, in_dim=8, out_dim=8, text_len=12, text_dim=16)
STAGES = (Stage("first", 4, 2, 6), Stage("last", 2, 2, 6, rate_end=0.0, window_share=1.0, resample_share=1.0))


def config(out: Path, seed: int = 0, **changes: object) -> TrainConfig:
    values = {"stages": STAGES, "geometry": MICRO, "codec_clips": 4, "checkpoint_every": 3, "report_every": 2}
    return TrainConfig(out=out, seed=seed, **{**values, **changes})  # type: ignore[arg-type]


class StopError(Exception):
    pass


def test_a_stopped_and_resumed_run_equals_an_unbroken_one_to_the_bit(tmp_path: Path) -> None:
    whole = train(config(tmp_path / "whole"))

    def stop(progress: Progress) -> None:
        if progress.step == 4:  # one step after the state was saved: that step has to be done again
            raise StopError

    with pytest.raises(StopError):
        train(config(tmp_path / "broken"), stop)
    reports: list[Progress] = []
    resumed = train(config(tmp_path / "broken"), reports.append, resume=True)
    assert [r.step for r in reports] == [4, 6]
    for name in ("state", "first", "last"):
        one, other = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "broken"))
        assert all(torch.equal(one[key], other[key]) for key in one), name
    assert whole.name == resumed.name == "last.safetensors"


def test_a_run_stopped_between_two_steps_loses_none(tmp_path: Path) -> None:
    whole = train(config(tmp_path / "whole", checkpoint_every=100))
    asked = iter([False] * 5 + [True])
    with pytest.raises(KeyboardInterrupt, match="before step 6"):
        train(config(tmp_path / "broken", checkpoint_every=100), stop=lambda: next(asked))
    reports: list[Progress] = []
    broken = train(config(tmp_path / "broken", checkpoint_every=100, report_every=1), reports.append, resume=True)
    assert [r.step for r in reports] == [6]
    one, other = load_file(whole), load_file(broken)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_last_stage_may_be_an_earlier_one(tmp_path: Path) -> None:
    first = train(config(tmp_path), last_stage="first")
    assert first.name == "first.safetensors"
    assert not (tmp_path / "last.safetensors").exists()
    assert train(config(tmp_path), resume=True).name == "last.safetensors"


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    short = (Stage("only", 2, 2, 6),)
    runs = [load_file(train(config(tmp_path / str(i), seed, stages=short))) for i, seed in enumerate((0, 0, 1))]
    key = "wan.blocks.0.ffn.0.weight"
    assert torch.equal(runs[0][key], runs[1][key])
    assert not torch.equal(runs[0][key], runs[2][key])


def test_the_loss_of_one_batch_falls_when_it_is_repeated(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, stages=(Stage("only", 100, 2, 6),)))
    losses = []
    for _ in range(20):
        trainer.step = 60  # the same batch, noise and levels, past the warm-up
        losses.append(trainer.advance()[1])
    assert losses[-1] < 0.5 * losses[0]


def test_a_run_is_not_overwritten_nor_continued_with_other_settings(tmp_path: Path) -> None:
    short = (Stage("only", 1, 2, 6),)
    train(config(tmp_path, stages=short))
    with pytest.raises(FileExistsError, match="resume"):
        train(config(tmp_path, stages=short))
    with pytest.raises(ValueError, match="muon_lr"):
        train(config(tmp_path, stages=short, muon_lr=0.5), resume=True)


def test_the_weights_file_says_how_it_was_made(tmp_path: Path) -> None:
    model = load_tiny(train(config(tmp_path, seed=5)))
    assert model.info.checkpoint == "last"
    assert model.info.trained_steps == 6
    assert model.info.recipe["seed"] == 5
    assert "out" not in model.info.recipe
    assert model.transformer.config == MICRO
    assert not any(weight.requires_grad for weight in model.transformer.parameters())


def test_batches_come_from_seed_and_step_and_hold_no_held_out_prompt(tmp_path: Path) -> None:
    codec = Trainer(config(tmp_path)).codec
    one, same, next_one = (make_batch(codec, 4, 3, 0, step) for step in (7, 7, 8))
    assert torch.equal(one.latents, same.latents)
    assert one.prompts == same.prompts
    assert not torch.equal(one.latents, next_one.latents)
    prompts = [prompt for step in range(12) for prompt in make_batch(codec, 8, 1, 0, step).prompts]
    assert not any(parse_prompt(prompt).held_out for prompt in prompts)
    assert 0.1 < np.mean([parse_prompt(prompt).background is None for prompt in prompts]) < 0.4


def test_a_stage_of_half_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="whole blocks"):
        Stage("odd", 1, 1, 7)


@pytest.mark.parametrize("shape", [(2, 16, 48), (3, 48, 16), (1, 32, 32)])
def test_muon_pushes_singular_values_towards_one(shape: tuple[int, int, int]) -> None:
    update = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    pushed = orthogonalize(update)
    values = torch.linalg.svdvals(pushed)
    assert values.min() > 0.3
    assert values.max() < 1.3
    u, _, vh = torch.linalg.svd(update, full_matrices=False)
    torch.testing.assert_close(pushed, u @ vh, rtol=0, atol=0.35)


def test_adam_part_agrees_with_torch() -> None:
    weight = torch.randn(5, generator=torch.Generator().manual_seed(0))
    theirs = torch.nn.Parameter(weight.clone())
    reference = torch.optim.Adam([theirs], lr=1e-2, betas=(0.9, 0.98), eps=1e-8)
    ours = MuonAdam({"bias": weight}, muon_lr=0.0, adam_lr=1e-2)
    for step in range(1, 6):
        theirs.grad = torch.sin(theirs.detach() * step)
        ours.step({"bias": theirs.grad.clone()}, step, 1.0)
        reference.step()
    torch.testing.assert_close(weight, theirs.detach(), rtol=1e-5, atol=1e-6)
