"""Videos made in lock step: the frames of single runs, and each with its own files, claim and failures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from irope.cli.main import main
from irope.config import load
from irope.generate import Order, generate, generate_together
from irope.generator import Generator, load_generator
from irope.jobs import VideoJob, in_step, jobs_from
from irope.systems import Interrupted
from irope.video import read_frames

PROMPTS = ["prompts=basic", "video.prompts.limit=3", "duration=3"]


@pytest.fixture(scope="module")
def generator(weights: Path) -> Generator:
    return load_generator(load([f"video.model.weights={weights}"]))


@pytest.fixture
def jobs(weights: Path, tmp_path: Path) -> list[VideoJob]:
    return jobs_from(load([f"video.model.weights={weights}", *PROMPTS, f"sys.out={tmp_path / 'out'}"]))


@pytest.fixture
def orders(jobs: list[VideoJob], tmp_path: Path) -> list[Order]:
    folders = [tmp_path / str(number) for number in range(len(jobs))]
    for folder in folders:
        folder.mkdir()
    return [Order(job, folder) for job, folder in zip(jobs, folders, strict=True)]


def frames(job: VideoJob) -> np.ndarray:
    return np.concatenate(list(read_frames(job.stem.with_name(job.stem.name + ".mkv")))).astype(int)


def near(jobs: Sequence[VideoJob], generator: Generator, folder: Path) -> None:
    """The videos are those that each would be alone, but for the rounding of 8-bit colours."""
    for job in jobs:
        alone = job._replace(folder=str(folder / "alone" / "x"))
        generate(alone, generator)
        difference = np.abs(frames(alone) - frames(job))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3


def test_what_can_be_made_in_lock_step(weights: Path) -> None:
    def first(*words: str) -> VideoJob:
        return jobs_from(load([f"video.model.weights={weights}", "duration=3", *words]))[0]

    one = first("prompt=a red circle moving left")
    assert in_step(one, first("prompt=a blue square moving up", "seed=3", "sys.out=elsewhere"))
    others = (
        ["duration=6"],
        ["method=rolling"],
        ["video.method.policy.window=9"],
        ["video.method.steps=[1000,500]"],
        ["prompt=a red circle moving left[1.5s] | a red circle moving up"],
        ["video.model.dtype=bfloat16"],
    )
    assert not [words for words in others if in_step(one, first("prompt=a red circle moving left", *words))]
    cut = first("prompt=a red circle moving left[1.5s] | a red circle moving up[1.5s#]")
    assert not in_step(cut, first("prompt=a red circle moving left[1.5s] | a red circle moving up[1.5s]"))


def test_videos_of_a_batch_are_those_of_single_runs(orders: list[Order], generator: Generator, tmp_path: Path) -> None:
    made = generate_together(orders, generator)
    assert all(isinstance(sidecar, dict) for sidecar in made)
    assert [sidecar["environment"]["batch"] for sidecar in made] == [3, 3, 3]
    assert len({sidecar["frames_sha256_chain"] for sidecar in made}) == 3
    assert all(order.job.done for order in orders)
    near([order.job for order in orders], generator, tmp_path)


class LostError(RuntimeError):
    pass


def test_a_lost_claim_ends_one_video_and_a_stop_leaves_the_others_at_checkpoints(
    orders: list[Order], generator: Generator, tmp_path: Path
) -> None:
    calls = iter(range(100))

    def check() -> None:
        if next(calls) == 1:
            raise LostError

    asked = iter([False, False, True])
    outcomes = generate_together(
        [orders[0], orders[1]._replace(check=check), orders[2]], generator, stop=lambda: next(asked)
    )
    assert [type(outcome) for outcome in outcomes] == [Interrupted, LostError, Interrupted]
    assert not (orders[1].work / "state.safetensors").exists()
    resumed: dict[str, set[int]] = {}
    outcomes = generate_together(
        orders, generator, report=lambda told: resumed.setdefault(told.job.name, set()).add(told.resumed)
    )
    assert [resumed[order.job.name] for order in orders] == [{3}, {0}, {3}], "those after the same block go together"
    assert [outcome["environment"].get("batch") for outcome in outcomes] == [2, None, 2]
    near([order.job for order in orders], generator, tmp_path)


def test_one_prompt_that_cannot_be_made_harms_no_other(orders: list[Order], generator: Generator) -> None:
    bad = orders[1].job.timeline.segments[0].prompt

    def encode(prompt: str) -> object:
        if prompt == bad:
            raise ValueError("no such word")
        return generator.encode_text(prompt)

    with pytest.warns(UserWarning, match="3 videos in lock step: ValueError: no such word; now one by one"):
        outcomes = generate_together(orders, replace(generator, encode_text=encode))
    assert [isinstance(outcome, dict) for outcome in outcomes] == [True, False, True]
    assert str(outcomes[1]) == "no such word"


def test_files_in_the_way_of_one_video_harm_no_other(orders: list[Order], generator: Generator) -> None:
    for order in orders[:1]:
        (order.job.stem.parent / f"{order.job.stem.name}.mkv").mkdir(parents=True)
    outcomes = generate_together(orders, generator)
    assert [isinstance(outcome, dict) for outcome in outcomes] == [False, True, True]
    assert ".mkv" in str(outcomes[0])


@pytest.mark.parametrize("verb", ["generate", "run"])
def test_the_command_line(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"video.model.weights={weights}", *PROMPTS, "sys.batch=2"]
    own = ["method=rolling", "score.scorers=[flicker]", "sys.worker=true"]
    assert main([verb, *words, *(own if verb == "run" else [])]) == 0
    sidecars = [json.loads(path.read_text()) for path in Path("results/runs").glob("[!.s]*/*.json")]
    assert sorted(sidecar["environment"].get("batch", 1) for sidecar in sidecars) == [1, 2, 2]
    assert not Path("results/runs/.work").exists()
    said = capsys.readouterr().out
    assert said.count("2 in lock step" if verb == "run" else "ms/block") == (2 if verb == "run" else 3)


def test_a_batch_is_a_whole_number(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make: Callable[[list[str]], int] = main
    assert make(["generate", f"video.model.weights={weights}", *PROMPTS, "sys.batch=0"]) == 2
    assert "sys.batch=0: expected a whole number from 1 up" in capsys.readouterr().err
