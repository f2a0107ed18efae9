"""Spread the work of an experiment over a Slurm cluster: an array of equal workers that share the results folder.

A plain batch script, because a worker must meet Slurm's signals itself: submitit keeps SIGTERM from it, so that a
cancelled worker would be killed with its claim. The keys keep the names of hydra-submitit-launcher. Nothing has to
stay alive on the login node; what was submitted is remembered beside the results.
"""

from __future__ import annotations

import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from irope.provenance import write_json_atomic
from irope.settings import check_settings, hint
from irope.slurm_jobs import FOLDER, ArrayState, LauncherError, Submission, TaskState, ask, cancel, jobs

__all__ = ["ArrayState", "LauncherError", "Slurm", "Submission", "TaskState", "cancel", "jobs", "submit"]

WORKERS = "IROPE_WORKERS"
"""Environment variable of a worker: how many share the work; it knows of no other unless this is set."""

# Settings that sbatch knows under another name; all others are spelt as sbatch does, with dashes.
OWN = {"name", "workers", "array_parallelism", "setup", "additional_parameters", "signal_delay_s", "max_num_timeout"}
RENAMED = {"timeout_min": "time", "mem_gb": "mem"}


@dataclass(frozen=True)
class Slurm:
    """Settings of ``launcher=slurm``, with the names and defaults of hydra-submitit-launcher where it has them.

    Attributes:
        workers: tasks of the array, each one worker on one GPU (or on CPUs).
        array_parallelism: how many of them run at once at most.
        timeout_min: time limit of a task; `signal_delay_s` before it the worker is asked to stop at its next block.
        max_num_timeout: how often a task goes back to the queue and continues. Theirs is 0; work here always continues.
        setup: shell lines before the worker, for example ``module load cuda``.
        additional_parameters: any other option of sbatch: ``{"mail-type": "END", "exclusive": true}``.
    """

    workers: int = 4
    array_parallelism: int = 256
    name: str = "irope"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    comment: str | None = None
    gres: str | None = None
    gpus_per_node: int | str | None = None
    gpus_per_task: int | str | None = None
    cpus_per_task: int | None = None
    cpus_per_gpu: int | None = None
    mem_gb: float | None = None
    mem_per_gpu: str | None = None
    mem_per_cpu: str | None = None
    timeout_min: int = 60
    signal_delay_s: int = 120
    max_num_timeout: int = 20
    setup: tuple[str, ...] = ()
    additional_parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Slurm:
        """Settings from the plain values of ``sys.launcher``, ``kind`` among them or not.

        Raises:
            LauncherError: an unknown key or a value that does not fit, named as ``sys.launcher.KEY``.
        """
        given = {key: value for key, value in values.items() if key != "kind"}
        lines, more = given.pop("setup", None) or (), given.pop("additional_parameters", None) or {}
        check_settings(cls, given, "sys.launcher", LauncherError)
        if isinstance(lines, str) or not all(isinstance(line, str) for line in lines):
            raise LauncherError(f"sys.launcher.setup={lines}: expected a list of shell lines, ['module load cuda']")
        if not isinstance(more, Mapping):
            raise LauncherError(f"sys.launcher.additional_parameters={more}: expected {{option: value}} of sbatch")
        for key, least in {"workers": 1, "array_parallelism": 1, "timeout_min": 1, "max_num_timeout": 0}.items():
            if key in given and given[key] < least:
                raise LauncherError(f"sys.launcher.{key}={given[key]}: expected a whole number from {least} up")
        if not re.fullmatch(r"[\w.-]+", str(given.get("name", "irope"))):
            raise LauncherError(f"sys.launcher.name={given['name']}: expected letters, digits, '.', '_' and '-'")
        settings = cls(**given, setup=tuple(lines), additional_parameters=dict(more))
        if not 0 < settings.signal_delay_s < settings.timeout_min * 60:
            raise LauncherError(
                f"sys.launcher.signal_delay_s={settings.signal_delay_s}: expected seconds "
                f"above 0 and below the time limit (sys.launcher.timeout_min={settings.timeout_min})"
            )
        return settings

    def options(self) -> dict[str, Any]:
        """What goes to sbatch as it is: option -> value."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in OWN}
        if self.mem_gb is not None:
            values["mem_gb"] = f"{round(self.mem_gb * 1024)}M"
        found = {RENAMED.get(key, key): value for key, value in values.items() if value is not None}
        more = {key: value for key, value in self.additional_parameters.items() if value not in (None, False)}
        return {key.replace("_", "-"): value for key, value in (found | more).items()}


def submit(settings: Slurm, arguments: Sequence[str], folder: Path) -> Submission:
    """Start ``irope run ARGUMENTS`` as an array of workers and return at once.

    Args:
        arguments: of ``irope run``; what they say about launcher and worker is replaced.
        folder: the results folder (``sys.out``), on a file system that the nodes share.

    Raises:
        LauncherError: there is no sbatch, or it refuses; the message has its words.
    """
    if shutil.which("sbatch") is None:
        raise LauncherError(
            "launcher=slurm: there is no sbatch on this machine. Run the command on a login node of the cluster; "
            "in any other job script run `irope run ... sys.worker=true`, once per GPU"
        )
    place = folder.resolve() / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    name = f"{settings.name}-{secrets.token_hex(4)}"
    mine = [text for text in arguments if not re.match(r"launcher=|[+~]*sys\.(launcher|worker)\b", text)]
    command = shlex.join([sys.executable, "-m", "irope", "run", *mine, "launcher=local", "sys.worker=true"])
    script = place / f"{name}.sh"
    script.write_text(batch_script(settings, name, command, place), encoding="utf-8")
    done = ask(["sbatch", "--parsable", str(script)])
    if done is None or done.returncode != 0:
        script.unlink()
        if done is None:
            raise LauncherError(f"sbatch does not answer; see with `squeue --name={name}` whether the job is there")
        words = done.stderr.strip()
        raise LauncherError(f"sbatch refused the job: {words}{_advice(words, settings)}")
    job_id = done.stdout.strip().partition(";")[0]  # ID or ID;CLUSTER
    now = datetime.now(UTC).isoformat(timespec="seconds")
    submission = Submission(job_id, name, settings.workers, place, command, now)
    record = {"job_id": job_id, "name": name, "tasks": settings.workers, "command": command, "submitted": now}
    write_json_atomic(place / f"{name}.json", record)
    return submission


def batch_script(settings: Slurm, name: str, command: str, folder: Path) -> str:
    """The script that every task of the array runs.

    The shell waits for the worker and hands SIGTERM on to it. A worker that stopped because it was asked to, in a job
    that is running on (its time is nearly up, or it is preempted with a grace time), goes back to the queue; a job that
    was cancelled or put back by Slurm itself is no longer RUNNING by then. The task's exit code is the worker's.
    """
    at_once = min(settings.workers, settings.array_parallelism)
    options = settings.options() | {
        "job-name": name,
        "array": f"0-{settings.workers - 1}%{at_once}",
        "output": str(folder / name).replace("%", "%%") + "_%a.log",
        "open-mode": "append",  # a task that comes back continues its log
        "chdir": Path.cwd(),
        "signal": f"B:TERM@{settings.signal_delay_s}",
        "requeue": True,
    }
    flags = [
        f"#SBATCH --{key}" if value is True else f"#SBATCH --{key}={shlex.quote(str(value))}"
        for key, value in sorted(options.items())
    ]
    worker = _WORKER % (command, settings.max_num_timeout)
    return "\n".join(["#!/bin/bash", *flags, "", _BEFORE, f"export {WORKERS}={at_once}", *settings.setup, worker])


_BEFORE = """\
say() { echo "irope: task $SLURM_ARRAY_TASK_ID on $(hostname), $(date -u +%FT%TZ): $*"; }
stop() { asked=yes; [ -z "$worker" ] || kill -TERM "$worker" 2>/dev/null; }
asked= worker=
trap stop TERM
say "started, restarts: ${SLURM_RESTART_COUNT:-0}"

# setup
export PYTHONUNBUFFERED=1"""

_WORKER = """
# worker
%s &
worker=$!
[ -z "$asked" ] || stop  # it was said before there was a worker
wait "$worker"; code=$?
while kill -0 "$worker" 2>/dev/null; do wait "$worker"; code=$?; done  # a signal ends wait, not the worker
say "ended with exit code $code"
if [ -n "$asked" ] && [ "$code" -ne 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt %d ] \\
    && [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%%T)" = RUNNING ]; then
  say "goes back to the queue and continues there"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def _advice(words: str, settings: Slurm) -> str:
    if "partition" in words.lower() and settings.partition is not None:
        done = ask(["sinfo", "--noheader", "--format=%R"])
        names = sorted(set(done.stdout.split())) if done else []
        return f" (sys.launcher.partition={settings.partition}{hint(settings.partition, names) if names else ''})"
    if "array" in words.lower():
        return f" (sys.launcher.workers={settings.workers} may be above this cluster's MaxArraySize)"
    return " (its options are sys.launcher.*: irope run ... launcher=slurm sys.launcher.partition=NAME)"
