"""How many videos a worker claims at once, told from claims and files alone: nothing is rolled out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from irope.claims import Claim, Claims
from irope.cli.experiments import experiment_of
from irope.cli.local import _start
from irope.cli.worker import Task, Worker
from irope.errors import UserError
from irope.finished import write_failure
from irope.jobs import VideoJob
from irope.launcher import WORKERS

Make = Callable[..., list[Worker]]


@pytest.fixture
def workers(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Workers that share an experiment of two cells; none of them works by itself."""
    monkeypatch.chdir(tmp_path)

    def make(count: int, batch: int, prompts: int, seconds: float = 1.5) -> list[Worker]:
        monkeypatch.setenv(WORKERS, str(count))
        Path("small.yaml").write_text(
            "description: two windows\nset: [prompts=basic, method=infinity_rope]\n"
            "sweep: {video.method.policy.window: '6,9'}\n"
            f"tiers: {{quick: {{prompts: {prompts}, seconds: [{seconds}]}}}}\n"
        )
        words = ["small.yaml", f"video.model.weights={weights}", "score.scorers=[flicker]", f"sys.batch={batch}"]
        experiment = experiment_of(words)
        return [Worker(experiment) for _ in range(count)]

    return make


def tasks_of(worker: Worker) -> list[Task]:
    experiment = worker.experiment
    return [Task(cell, job) for cell in experiment.cells for job in experiment.jobs(cell)]


def pick(worker: Worker) -> list[tuple[Task, Claim]]:
    """What a worker takes next."""
    todo = tasks_of(worker)
    for task in todo:
        if not task.job.done and (claim := worker.claims.take(task.job.key)) is not None:
            return [(task, claim), *worker._company(task, [other for other in todo if other is not task], set())]
    return []


def finish(job: VideoJob) -> None:
    """A video is there, as far as its files tell."""
    job.stem.parent.mkdir(parents=True, exist_ok=True)
    job.video.write_bytes(b"m")
    facts = {"key": job.key, "files": {"mp4": job.video.name}, "bytes": {"mp4": 1}, "record": {}}
    job.sidecar.write_text(json.dumps(facts, indent=1) + "\n")


def test_while_there_is_enough_a_worker_takes_whole_batches(workers: Make) -> None:
    parties = [pick(worker) for worker in workers(2, 2, 4)]  # 8 videos, 4 of a kind
    assert [len(party) for party in parties] == [2, 2]
    assert len({task.job.key for party in parties for task, _ in party}) == 4
    assert all(len({task.cell.label for task, _ in party}) == 1 for party in parties), "of one kind"


def test_a_worker_leaves_their_part_to_the_others(workers: Make) -> None:
    four = workers(4, 8, 4)
    assert [len(pick(worker)) for worker in four] == [2, 2, 1, 1], "of 8, 6, 4 and 3 that are left"
    assert [len(pick(worker)) for worker in four] == [1, 1, 0, 0]


def test_nobody_idles_where_one_batch_would_hold_all(workers: Make) -> None:
    assert [len(pick(worker)) for worker in workers(2, 8, 1)] == [1, 1], "two kinds of one video"


def test_what_is_left_of_other_kinds_counts_as_well(workers: Make) -> None:
    assert [len(pick(worker)) for worker in workers(3, 8, 2)] == [2, 1, 1]


def test_shorter_videos_are_another_matter(workers: Make) -> None:
    """They come later, and fill the gaps."""
    short = tasks_of(workers(1, 8, 4)[0])
    one, *_ = workers(4, 8, 4, seconds=3)
    first, *rest = tasks_of(one)
    claim = one.claims.take(first.job.key)
    assert claim is not None
    assert len(one._company(first, [*rest, *short], set())) == 1, "8 long ones for four workers"


def test_made_failed_and_released_videos(workers: Make) -> None:
    one, two = workers(2, 8, 4)
    _, *rest = tasks_of(one)
    for task in rest[4:]:
        finish(task.job)
    write_failure(rest[0].job.stem, ValueError("no"))
    party = pick(one)
    assert len(party) == 2, "of 4: the first of the other kind and three of this one"
    assert {rest[0].name, *(task.name for task in rest[4:])}.isdisjoint(task.name for task, _ in party)
    for _, claim in party:
        claim.release(done=False)
    assert len(pick(two)) == 2, "what was given back is nobody's"


def test_a_dead_worker_has_no_part(workers: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = workers(2, 8, 4)
    pick(one)
    monkeypatch.setattr(Claims, "_gone", lambda *_: True)
    assert len(pick(two)) == 4


def test_a_worker_that_was_told_nothing_takes_what_it_can(workers: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = workers(1, 8, 4)
    assert len(pick(one)) == 4
    monkeypatch.delenv(WORKERS)
    assert Worker(one.experiment)._workers == 1


@pytest.mark.parametrize("told", ["0", "-2", "many"])
def test_a_wrong_number_is_named(workers: Make, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    (one,) = workers(1, 8, 1)
    monkeypatch.setenv(WORKERS, told)
    with pytest.raises(UserError, match=f"{WORKERS}={told}: expected a whole number"):
        Worker(one.experiment)


def test_a_worker_of_this_machine_is_told_how_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "worker"
    script.write_text(f"#!/bin/sh\necho told ${WORKERS}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    worker, log = _start(["table1"], 1, 3, tmp_path, 0)
    assert worker.wait() == 0
    assert log.read_text() == "told 3\n"
