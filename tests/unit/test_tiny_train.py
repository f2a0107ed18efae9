"""Training of a micro model: it learns, it repeats itself, and a stopped run ends where an unbroken one does."""

import csv
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from irope.cli.train import run
from irope.errors import UserError, WeightsError
from irope.models.tiny.data import fit_codec, make_batch
from irope.models.tiny.losses import COLUMNS, LossLog, Progress
from irope.models.tiny.model import load_tiny
from irope.models.tiny.muon import MuonAdam, orthogonalize
from irope.models.tiny.stages import SHIPPED_STAGES, Stage
from irope.models.tiny.train import TrainConfig, Trainer, train
from irope.models.tiny.train_codec import CodecProgress, DecoderConfig
from irope.transformer import WanConfig
from irope.world.scene import parse_prompt

MICRO = WanConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=2, in_dim=8, out_dim=8, text_len=12, text_dim=16)
DECODER = DecoderConfig(width=8, steps=2, clips=1, frames=2, warmup=1)
STAGES = (Stage("first", 4, 2, 6), Stage("last", 2, 2, 6, rate_end=0.0, window_share=1.0, resample_share=1.0))


def config(out: Path, seed: int = 0, **changes: object) -> TrainConfig:
    values = {"stages": STAGES, "geometry": MICRO, "codec_clips": 4, "checkpoint_every": 3, "report_every": 2}
    values["decoder"] = DECODER
    return TrainConfig(out=out, seed=seed, **{**values, **changes})  # type: ignore[arg-type]


class StopError(Exception):
    pass


def losses(out: Path) -> list[list[str]]:
    """Rows of losses.csv but for speed and time."""
    with (out / "losses.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == list(COLUMNS)
    return [row[:4] for row in rows]


def test_a_stopped_and_resumed_run_equals_an_unbroken_one_to_the_bit(tmp_path: Path) -> None:
    whole = train(config(tmp_path / "whole"))

    def stop(progress: Progress | CodecProgress) -> None:
        if progress.step == 4:  # one step after the state was saved: that step has to be done again
            raise StopError

    with pytest.raises(StopError):
        train(config(tmp_path / "broken"), stop)
    reports: list[Progress | CodecProgress] = []
    resumed = train(config(tmp_path / "broken"), reports.append, resume=True)
    assert [r.step for r in reports] == [4, 6]
    for name in ("state", "first", "last"):
        one, other = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "broken"))
        assert all(torch.equal(one[key], other[key]) for key in one), name
    assert whole.name == resumed.name == "last.safetensors"
    assert whole.read_bytes() == resumed.read_bytes()
    rows, others = losses(tmp_path / "whole"), losses(tmp_path / "broken")
    assert [row[:2] for row in others] == [["2", "first"], ["4", "first"], ["6", "last"]]
    assert (rows[0], rows[2]) == (others[0], others[2])  # the row of step 4 began with the resume, after step 3


def test_a_run_stopped_between_two_steps_loses_none(tmp_path: Path) -> None:
    whole = train(config(tmp_path / "whole", checkpoint_every=100))
    asked = iter([False] * (DECODER.steps + 5) + [True])
    with pytest.raises(KeyboardInterrupt, match="before step 6"):
        train(config(tmp_path / "broken", checkpoint_every=100), stop=lambda: next(asked))
    reports: list[Progress | CodecProgress] = []
    broken = train(config(tmp_path / "broken", checkpoint_every=100, report_every=1), reports.append, resume=True)
    assert [r.step for r in reports] == [6]
    one, other = load_file(whole), load_file(broken)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_last_stage_may_be_an_earlier_one(tmp_path: Path) -> None:
    first = train(config(tmp_path), last_stage="first")
    assert first.name == "first.safetensors"
    assert not (tmp_path / "last.safetensors").exists()
    assert train(config(tmp_path), resume=True).name == "last.safetensors"


def test_rows_of_steps_to_come_again_and_torn_rows_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    log = LossLog(path, 0)
    for step in (25, 50, 75):
        log.add(Progress(step, 100, "short", 1.5, 1 / step, 10.0))
    with path.open("a") as file:
        file.write("10")  # killed while it wrote step 100
    first = path.read_text().splitlines()[:3]
    again = LossLog(path, 60)
    assert path.read_text().splitlines() == first
    again.add(Progress(75, 100, "full", float("nan"), 0.5, 10.0))
    assert [row[:3] for row in losses(tmp_path)][-2:] == [["50", "short", "1.5"], ["75", "full", "nan"]]
    assert float(path.read_text().splitlines()[-1].rpartition(",")[2]) >= float(first[-1].rpartition(",")[2])
    LossLog(path, 0)
    assert losses(tmp_path) == []


def test_the_codec_is_a_stage_of_its_own(tmp_path: Path) -> None:
    codec = train(config(tmp_path), last_stage="codec")
    assert codec == tmp_path / "codec.safetensors"
    assert [path.name for path in tmp_path.iterdir()] == [codec.name]
    with pytest.raises(FileExistsError, match="resume"):
        train(config(tmp_path))
    before = codec.stat().st_mtime_ns
    found = load_tiny(train(config(tmp_path), resume=True)).codec.tensors()
    assert codec.stat().st_mtime_ns == before
    assert all(torch.equal(tensor, found[name]) for name, tensor in load_file(codec).items())


def test_a_stage_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the stages are codec, first, last"):
        train(config(tmp_path), last_stage="frist")
    with pytest.raises(UserError, match="did you mean 'windows'"):
        run(["tiny", "--stage", "window", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_the_stages_are_listed_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tiny", "--stages"]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["codec", *(stage.name for stage in SHIPPED_STAGES)]
    assert rows[1][1:3] == ["900", "16 x 9"]
    assert all(row[3] for row in rows)


def test_a_file_of_the_format_before_is_refused_with_what_to_run(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_file({"codec.mean": torch.zeros(1)}, str(path), {"format": "irope-tiny-1"})
    with pytest.raises(WeightsError, match="train anew with: irope train tiny"):
        load_tiny(path)


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    short = (Stage("only", 2, 2, 6),)
    runs = [load_file(train(config(tmp_path / str(i), seed, stages=short))) for i, seed in enumerate((0, 0, 1))]
    key = "wan.blocks.0.ffn.0.weight"
    assert torch.equal(runs[0][key], runs[1][key])
    assert not torch.equal(runs[0][key], runs[2][key])


def test_the_loss_of_one_batch_falls_when_it_is_repeated(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, stages=(Stage("only", 100, 2, 6),)), fit_codec(8, 0, 4))
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
    assert model.info.recipe["decoder"] == asdict(DECODER)
    assert model.transformer.config == MICRO
    assert not any(weight.requires_grad for weight in model.transformer.parameters())


def test_batches_come_from_seed_and_step_and_hold_no_held_out_prompt() -> None:
    codec = fit_codec(8, 0, 4)
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
