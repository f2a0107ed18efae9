"""One worker of an experiment: claims a video, makes it, scores it, goes on to the next, until nothing is left."""

from __future__ import annotations

import errno
import math
import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from eval.plan import plan_from
from eval.score import Outcome, Plan, ScoredCheck, score_video
from eval.videos import generated_video
from irope.claims import Claim, ClaimLost, Claims
from irope.cli.experiments import scores_folder_of, scores_of
from irope.cli.generate import say_warm_up
from irope.cli.local import PARENT
from irope.cli.survey import STAGES, stages_of
from irope.config import Choice, patched
from irope.errors import UserError
from irope.experiment import Cell, Experiment
from irope.finished import clear_failure, failed, finished, write_failure
from irope.generate import Order, company, generate, generate_together
from irope.generator import Generator, device_from, load_generator
from irope.history import History, Made, Scored
from irope.jobs import VideoJob, in_step
from irope.launcher import WORKERS
from irope.provenance import device_record
from irope.systems import Interrupted

FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What the next video would meet as well."""

TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Task:
    """One video of an experiment, to make and to score."""

    cell: Cell
    job: VideoJob

    @property
    def name(self) -> str:
        return f"{self.cell.label}/{self.job.name}"


@dataclass
class Tally:
    """What this worker did, and which videos failed, here or elsewhere, since it began."""

    made: int = 0
    scored: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    terminated: bool = False

    @property
    def exit_code(self) -> int:
        return TERMINATED if self.terminated else int(bool(self.failed))


class Worker:
    """Works on an experiment beside any number of others, on this host or another.

    A video that failed before is tried once more; one that fails while this runs is left for the next run.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        sys = experiment.config["sys"]
        self.out = Path(sys["out"])
        self.makes, self.scores = (stage in stages_of(experiment.config) for stage in STAGES)
        self.patient = Choice(experiment.config, "sys.wait").flag()
        self.batch = Choice(experiment.config, "sys.batch").integer(1)
        self.claims, self.history, self.tally = Claims(self.out), History(self.out), Tally()
        self._plans: dict[tuple[float, ...], tuple[Plan, ScoredCheck]] = {}
        self._stop = threading.Event()
        self._parent = int(os.environ.get(PARENT, 0))
        self._workers = _workers()

    def work(self) -> Tally:
        """Until every video is made and scored, or has failed; or until SIGTERM, which leaves a checkpoint.

        Raises:
            UserError, OSError: what every video would meet, such as a full disk.
        """
        tasks = [Task(cell, job) for cell in self.experiment.cells for job in self.experiment.jobs(cell)]
        # The longest first, so that no long one is left to the end; those of a model in a row, as it is loaded once;
        # workers begin at different places.
        random.Random(self.claims.worker).shuffle(tasks)
        todo = deque(sorted(tasks, key=lambda task: (-task.job.timeline.latents, task.job.model)))
        earlier = {task.name for task in todo if failed(task.job.stem) is not None}
        refused = 0
        left = set(self.claims.leftovers())
        with self._terminated():
            while todo and not self._stopped():
                task = todo.popleft()
                if self._complete(task):
                    if task.job.key in left and (claim := self.claims.take(task.job.key, task.name)) is not None:
                        claim.release(done=True)  # of a worker that was killed between the last file and this
                    continue
                if task.name not in earlier and (failure := failed(task.job.stem)) is not None:
                    self.tally.failed[task.name] = str(failure.get("message"))
                    continue
                claim = self.claims.take(task.job.key, task.name)
                if claim is None:
                    refused += 1
                    if self.patient:
                        todo.append(task)
                    if refused > len(todo):  # all that is left is somebody else's
                        time.sleep(1.0)
                        refused = 0
                    continue
                refused = 0
                party = [(task, claim), *self._company(task, todo, earlier)]
                members = {member.name for member, _ in party}
                earlier -= members
                if len(party) > 1:
                    todo = deque(other for other in todo if other.name not in members)
                todo.extend(self._lost(party))
        self.tally.terminated = self._stopped()
        return self.tally

    def _complete(self, task: Task) -> bool:
        if not task.job.done:
            return not self.makes
        return not self.scores or self._plan(task.cell)[1](scores_of(task.cell.config, task.job))

    def _company(self, task: Task, todo: Iterable[Task], earlier: Collection[str]) -> list[tuple[Task, Claim]]:
        """What of ``todo`` is made in lock step with a task, claimed."""
        if self.batch == 1 or task.job.done or not self.makes:
            return []

        def open_still(other: Task) -> bool:
            return other.name in earlier or failed(other.job.stem) is None

        latents = task.job.timeline.latents
        share = self._share(t.job for t in todo if t.job.timeline.latents == latents and open_still(t))
        others = (t.job for t in todo if in_step(task.job, t.job) and open_still(t))
        found = {one.stem: claim for one, claim in company(task.job, others, self.claims, share - 1)}
        return [(t, found[t.job.stem]) for t in todo if in_step(task.job, t.job) and t.job.stem in found]

    def _share(self, others: Iterable[VideoJob]) -> int:
        """How many videos to make at once, where ``others`` are as long as the one that is claimed: at most this
        worker's part of what nobody has made or claimed (guided self-scheduling, Polychronopoulos and Kuck 1987)."""
        if self._workers == 1:
            return self.batch
        claimed = {held.key for held in self.claims.held()}
        left = (job for job in others if job.key not in claimed and not finished(job.stem, job.key, quick=True))
        enough = (self.batch - 1) * self._workers  # with the claimed one: a whole batch for this worker
        return math.ceil((1 + sum(1 for _ in islice(left, enough))) / self._workers)

    def _lost(self, party: Sequence[tuple[Task, Claim]]) -> list[Task]:
        """Make and score videos; those that another worker took away meanwhile."""
        lost, held = [], [claim for _, claim in party]
        try:
            problems = self._make(party)
            for (task, claim), problem in zip(party, problems, strict=True):
                done = False
                try:
                    if problem is not None:
                        raise problem
                    self._score(task)
                    clear_failure(task.job.stem)
                    done = True
                except ClaimLost as gone:
                    print(f"{task.name}: {gone}", flush=True)
                    lost.append(task)
                except Interrupted:
                    pass
                except Exception as error:
                    if isinstance(error, OSError) and error.errno in FATAL:
                        raise
                    write_failure(task.job.stem, error)
                    self.tally.failed[task.name] = f"{type(error).__name__}: {error}"
                    print(f"{task.name}: failed, {type(error).__name__}: {error}", flush=True)
                finally:
                    held.remove(claim)
                    claim.release(done)
        finally:
            for claim in held:
                claim.release(done=False)
        return lost

    def _make(self, party: Sequence[tuple[Task, Claim]]) -> list[Exception | None]:
        """Make videos that are not there, several in lock step; what went wrong with each."""
        task, claim = party[0]
        if task.job.done:
            return [None]
        start = time.perf_counter()
        blocks = Choice(task.cell.config, "sys.checkpoint_blocks").integer(1)
        outcomes: Sequence[dict[str, Any] | Exception]
        try:
            generator = self._generator(task)
            if generator is None:
                outcomes = [generate(task.job, None, blocks, work=claim.work, check=claim.check, stop=self._stopped)]
            else:
                orders = [Order(member.job, claim.work, claim.check) for member, claim in party]
                outcomes = generate_together(orders, generator, blocks, stop=self._stopped)
        except Exception as error:
            outcomes = [error] * len(party)
        seconds = (time.perf_counter() - start) / len(party)
        for (member, _), outcome in zip(party, outcomes, strict=True):
            if not isinstance(outcome, Exception):
                self._note(member, outcome, seconds, len(party))
        return [outcome if isinstance(outcome, Exception) else None for outcome in outcomes]

    def _note(self, task: Task, sidecar: Mapping[str, Any], seconds: float, batch: int) -> None:
        """A video is made, in its share of the time of a batch."""
        self.tally.made += 1
        facts = (str(sidecar["model"]), task.cell.label, self._device, int(sidecar["latents"]))
        self.history.add(Made(*facts, round(seconds, 3), sum(sidecar["bytes"].values())))
        how = f", {batch} in lock step" if batch > 1 else ""
        print(f"{task.name}: made, {sidecar['pixel_frames']} frames in {seconds:.1f} s{how}", flush=True)

    def _score(self, task: Task) -> None:
        if not self.scores:
            return
        plan, scored = self._plan(task.cell)
        if scored(scores_of(task.cell.config, task.job)):
            return
        start = time.perf_counter()
        outcome = score_video(generated_video(task.job.video, self.out), plan, self._heed)
        seconds = time.perf_counter() - start
        if outcome.problem is not None:
            raise UserError(outcome.problem.message)
        self.tally.scored += 1
        self.history.add(Scored(task.job.model, plan.name, self._device, outcome.frames, round(seconds, 3)))
        print(f"{task.name}: scored, {outcome.scored} values in {seconds:.1f} s{_skips(outcome)}", flush=True)

    def _heed(self, _done: int, _total: int) -> None:
        if self._stopped():
            raise Interrupted

    def _stopped(self) -> bool:
        """Asked to stop, or the process that watches over its workers is gone."""
        return self._stop.is_set() or bool(self._parent and os.getppid() != self._parent)

    def _plan(self, cell: Cell) -> tuple[Plan, ScoredCheck]:
        if cell.seconds not in self._plans:
            config = patched(cell.config, "score.windows", list(cell.seconds) or None)
            plan = plan_from(config, scores_folder_of(config), str(device_from(config)))
            self._plans[cell.seconds] = plan, ScoredCheck(plan)
        return self._plans[cell.seconds]

    def _generator(self, task: Task) -> Generator | None:
        """One model at a time is loaded; a system loads its own."""
        if task.job.system is not None:
            return None
        wanted = task.cell.config["video"]["model"]
        if getattr(self, "_loaded", (None,))[0] != wanted:
            self._loaded: tuple[Any, Generator] = (wanted, load_generator(task.cell.config))
            say_warm_up(self._loaded[1], self.batch)
        return self._loaded[1]

    @cached_property
    def _device(self) -> str:
        return str(device_record(device_from(self.experiment.config))["name"])

    @contextmanager
    def _terminated(self) -> Iterator[None]:
        before = signal.signal(signal.SIGTERM, lambda *_: self._stop.set())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _workers() -> int:
    """How many workers share the work, as far as this one was told."""
    told = os.environ.get(WORKERS, "1")
    if not told.isdecimal() or int(told) < 1:
        raise UserError(f"{WORKERS}={told}: expected a whole number from 1 up, how many workers share the work")
    return int(told)


def _skips(outcome: Outcome) -> str:
    return f", {len(outcome.skipped)} skipped" if outcome.skipped else ""
