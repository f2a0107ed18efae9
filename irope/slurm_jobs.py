"""What was submitted to Slurm for a results folder, and where it is now: from beside the results, and from Slurm."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from irope.errors import UserError

FOLDER = ".slurm"
"""Below the results folder: NAME.json (what was submitted), NAME.sh (the batch script), NAME_TASK.log."""
ANSWER_SECONDS = 30  # a controller that is down or busy must not hang `irope status`
UNKNOWN = "UNKNOWN"
FINAL = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
FINAL |= {"PREEMPTED", "TIMEOUT"}


States = dict[tuple[str, int], tuple[str, str]]
"""(job name, task) -> (state, detail)."""


class LauncherError(UserError):
    """The cluster cannot be used as the settings ask; the message says what to change."""


@dataclass(frozen=True)
class Submission:
    """An array that Slurm has taken.

    Attributes:
        name: its job name, unique; its files below ``folder`` begin with it.
        command: what every task runs.
        submitted: UTC, ISO 8601.
    """

    job_id: str
    name: str
    tasks: int
    folder: Path
    command: str
    submitted: str

    def log(self, task: int) -> Path:
        return self.folder / f"{self.name}_{task}.log"


@dataclass(frozen=True)
class TaskState:
    """One worker of an array.

    Attributes:
        state: Slurm's word (PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, ...), or UNKNOWN.
        detail: why it waits, where it runs, or the exit code; may be empty.
        log: there as soon as the task has started.
    """

    task: int
    state: str
    detail: str
    log: Path


@dataclass(frozen=True)
class ArrayState:
    """A submission and where its tasks are now."""

    submission: Submission
    tasks: tuple[TaskState, ...]

    @property
    def counts(self) -> dict[str, int]:
        """State -> tasks in it, the most frequent first."""
        return dict(Counter(task.state for task in self.tasks).most_common())

    @property
    def active(self) -> bool:
        """Slurm still has tasks that run or wait."""
        return any(task.state not in FINAL | {UNKNOWN} for task in self.tasks)


def jobs(folder: Path) -> list[ArrayState]:
    """What was submitted for a results folder and where it is now, the oldest first; asks Slurm twice at most.

    Without Slurm, or where it has forgotten a task, the last words of the task's log stand in.
    """
    known = _submissions(folder)
    if not known:
        return []
    states = _from_squeue(known)
    if any((s.name, task) not in states for s in known for task in range(s.tasks)):
        states = _from_sacct(known) | states
    return [ArrayState(s, tuple(_state(s, task, states) for task in range(s.tasks))) for s in known]


def cancel(folder: Path) -> list[str]:
    """Cancel every array of a results folder that still runs or waits; returns their job ids.

    Raises:
        LauncherError: scancel refuses.
    """
    ids = []
    for array in jobs(folder):
        if array.active:
            # The name as well: another cluster may have given the number to another job.
            done = ask(["scancel", f"--name={array.submission.name}", array.submission.job_id])
            if done is None or done.returncode != 0:
                words = "it did not answer" if done is None else done.stderr.strip()
                raise LauncherError(f"scancel {array.submission.job_id}: {words}")
            ids.append(array.submission.job_id)
    return ids


def _submissions(folder: Path) -> list[Submission]:
    place = folder.resolve() / FOLDER
    found = []
    for path in place.glob("*.json"):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            text = {key: str(facts[key]) for key in ("job_id", "name", "command", "submitted")}
            found.append(Submission(folder=place, tasks=int(facts["tasks"]), **text))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not ours, or damaged: the jobs run all the same
    return sorted(found, key=lambda submission: (submission.submitted, submission.name))


def _from_squeue(known: Sequence[Submission]) -> States:
    """What is queued, runs, or ended minutes ago."""
    names = ",".join(submission.name for submission in known)
    done = ask(["squeue", "--noheader", "--array", "--states=all", f"--name={names}", "--format=%j|%K|%T|%N|%r"])
    states = {}
    for line in done.stdout.splitlines() if done else ():
        name, task, state, node, reason = line.split("|", 4)
        if task.isdigit():
            states[name, int(task)] = (state, node if state == "RUNNING" else reason.replace("None", ""))
    return states


def _from_sacct(known: Sequence[Submission]) -> States:
    """The same from the accounting database, which many clusters have."""
    ids = ",".join(submission.job_id for submission in known)
    wanted = ["sacct", "--allocations", "--noheader", "--parsable2", f"--jobs={ids}"]
    done = ask([*wanted, "--format=JobName,JobID,State,ExitCode"])
    states = {}
    for line in done.stdout.splitlines() if done else ():
        name, job, state, code = (line.split("|") + [""] * 3)[:4]
        if (task := job.rpartition("_")[2]).isdigit() and "_" in job and state:
            states[name, int(task)] = (state.split()[0], f"exit code {code.partition(':')[0]}")
    return states


def _state(submission: Submission, task: int, states: States) -> TaskState:
    log = submission.log(task)
    state, detail = states.get((submission.name, task)) or _last_words(log)
    if state == "FAILED":  # the queue says no more than "NonZeroExitCode"
        detail = _last_words(log)[1] or detail
    return TaskState(task, state, detail, log)


def _last_words(log: Path) -> tuple[str, str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            text = file.read().decode(errors="replace")
    except OSError:
        return UNKNOWN, ""
    words = re.findall(r"^irope: task .*: (?:started|ended with exit code (\d+))", text, re.MULTILINE)
    if not words or not words[-1]:  # it runs, or was killed before it could say so
        return UNKNOWN, ""
    return {"0": "COMPLETED", "143": "CANCELLED"}.get(words[-1], "FAILED"), f"exit code {words[-1]}"


def ask(command: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """Run one of Slurm's commands; None where it is not there or does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
