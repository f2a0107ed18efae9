"""Workers on this machine: one process for each GPU or core, watched until everything is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irope.cli.bar import Bar
from irope.cli.experiments import command_of
from irope.cli.survey import Survey, gpus, survey
from irope.cost import duration
from irope.errors import UserError
from irope.finished import failed
from irope.launcher import WORKERS

if TYPE_CHECKING:
    from irope.experiment import Experiment

LOGS = ".logs"
PARENT = "IROPE_PARENT"
"""Environment variable of a worker: the process that watches over it; without that process it stops."""

GRACE = 60.0
"""Seconds a worker has to reach its next block after it was asked to stop."""


class RunProgress(Bar):
    """Videos done of all, and the time left by what was done so far."""

    def __init__(self, total: int, done: int) -> None:
        super().__init__("{task.completed}/{task.total} videos")
        self.total, self.first, self.seen, self.began = total, done, done, time.monotonic()
        self.task = self.bar.add_task("made and scored", total=total, completed=done, rate="")

    def show(self, done: int, failures: int) -> None:
        spent, new = time.monotonic() - self.began, done - self.first
        left = f"ETA {duration(spent / new * (self.total - done))}" if new else ""
        rate = f"{left}  {failures} failed" if failures else left
        self.bar.update(self.task, completed=done, rate=rate)
        if done != self.seen:
            self.seen = done
            self.say(f"{done}/{self.total} videos  {rate}")


def run_local(experiment: Experiment, words: Sequence[str], before: Survey) -> int:
    """Run the workers of an experiment; returns the exit code.

    They are started also when nothing seems to be left: whether every file is whole, only they look.
    """
    out = Path(experiment.config["sys"]["out"])
    logs = out / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    count = min(before.workers, max(1, before.total.todo))
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    cards = gpus(experiment.config["sys"])
    workers = [_start(words, number, count, logs, cards) for number in range(count)]
    try:
        with RunProgress(before.total.videos, before.total.done) as progress:
            _watch(experiment, workers, progress)
    except KeyboardInterrupt:
        _stop(workers)
        raise
    ended = [(worker.wait(), log) for worker, log in workers]
    for code, log in ended:
        if code == 2:  # a setting, or a disk: its last line says what to do
            raise UserError(log.read_text(errors="replace").strip().splitlines()[-1].removeprefix("irope: error: "))
    return _report(experiment, words, survey(experiment), [log for code, log in ended if code not in (0, 1)])


def _interrupt(_signal: int, _frame: object) -> None:
    """The end of the terminal or of the job stops the workers as Ctrl-C does."""
    raise KeyboardInterrupt


def _start(
    words: Sequence[str], number: int, count: int, logs: Path, cards: int
) -> tuple[subprocess.Popen[bytes], Path]:
    """Worker ``number`` of ``count``, with its words in a log; on GPU ``number`` where there are any."""
    path = logs / f"{os.getpid()}-{number}.log"
    environment = os.environ | {PARENT: str(os.getpid()), WORKERS: str(count)}
    if cards:
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(cards)))).split(",")
        environment["CUDA_VISIBLE_DEVICES"] = listed[number % cards]
    command = [sys.executable, "-m", "irope", "run", *words, "sys.worker=true", "launcher=local"]
    with path.open("wb") as log:
        # A group of its own: Ctrl-C reaches this process, which asks the workers to stop at their next block.
        worker = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    return worker, path


def _watch(
    experiment: Experiment, workers: Sequence[tuple[subprocess.Popen[bytes], Path]], progress: RunProgress
) -> None:
    """Until the last worker has ended; looking takes at most a tenth of the time."""
    pause = 0.5
    while any(worker.poll() is None for worker, _ in workers):
        time.sleep(pause)
        start = time.monotonic()
        total = survey(experiment).total
        progress.show(total.done, total.failed)
        pause = max(0.5, 10 * (time.monotonic() - start))


def _stop(workers: Sequence[tuple[subprocess.Popen[bytes], Path]]) -> None:
    for worker, _ in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    limit = time.monotonic() + GRACE
    for worker, _ in workers:
        try:
            worker.wait(max(0.1, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()  # its last checkpoint stays


def _report(experiment: Experiment, words: Sequence[str], after: Survey, broken: Sequence[Path]) -> int:
    total = after.total
    if not total.todo:
        print(f"{after.summary()} in {experiment.config['sys']['out']}")
        plain = [word for word in words if not word.startswith("sys.stages=")]
        print(f"next: {command_of('table' if 'score' in after.stages else 'score', plain)}")
        return 0
    for cell in experiment.cells:
        for job in experiment.jobs(cell):
            if (failure := failed(job.stem)) is not None:
                what = f"{failure.get('error')}: {failure.get('message')}"
                print(f"failed: {cell.label}/{job.name}: {what}", file=sys.stderr)
    for log in broken:
        print(f"a worker ended early; its last words are in {log}", file=sys.stderr)
    print(f"{total.done} of {total.videos} videos are done; to try the rest again: {command_of('run', words)}")
    return 1
