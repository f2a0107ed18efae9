"""A sweep of the embedded model as an array on a real Slurm, with tasks cancelled and put back in the middle.

Runs inside the cluster that one_node.sh starts, never on a cluster that somebody else uses: .ci/slurm.sh does both.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from irope.claims import Claims
from irope.launcher import ArrayState, Slurm, jobs, submit

TASKS = 3
SWEEP = [
    "-m",
    "method=infinity_rope,rolling_sink1",
    "prompts=basic",
    "video.prompts.limit=3",
    "duration=15",
    "score.scorers=[flicker]",
]
CONF = Path(os.environ.get("SLURM_CONF", ""))
READY = CONF.is_file() and "ClusterName=irope-test" in CONF.read_text() and shutil.which("sbatch") is not None

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not READY, reason="needs a Slurm of its own: run .ci/slurm.sh"),
]


def irope(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "irope", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def hashes(out: Path) -> dict[str, str]:
    """Every finished video below a results folder: label and stem, and the hash over its frames."""
    found = {}
    for path in out.glob("[!.]*/*.json"):
        facts = json.loads(path.read_text())
        if "frames_sha256_chain" in facts:
            assert all(path.with_name(name).is_file() for name in facts["files"].values())
            found[str(path.relative_to(out))] = facts["frames_sha256_chain"]
    return found


def until(true: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} took more than {seconds} s"
        time.sleep(0.25)


def only(out: Path) -> ArrayState:
    (array,) = jobs(out)
    return array


def slurm(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30)


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """An array that lost one task for good and another for a while, when it has come to its end."""
    out = tmp_path_factory.mktemp("slurm")
    settings = [
        "launcher=slurm",
        f"sys.launcher.workers={TASKS}",
        "sys.launcher.mem_gb=1",
        "sys.launcher.cpus_per_task=1",
    ]
    irope("run", *SWEEP, *settings, f"sys.out={out}")
    at_return = len(hashes(out))
    until(lambda: len(Claims(out).held()) == TASKS, 60, "starting the workers")
    status = irope("status", *SWEEP, f"sys.out={out}")
    number = only(out).submission.job_id
    slurm("scancel", f"{number}_0")
    slurm("scontrol", "requeue", f"{number}_1")
    until(lambda: not only(out).active, 120, "the array")
    return SimpleNamespace(out=out, at_return=at_return, status=status, array=only(out))


def test_every_video_is_there_once_with_the_frames_of_an_undisturbed_run(disturbed, tmp_path):
    irope("run", *SWEEP, f"sys.out={tmp_path}", "launcher=local", "sys.launcher.workers=2")
    expected = hashes(tmp_path)
    assert len(expected) == 2 * TASKS
    assert hashes(disturbed.out) == expected
    movies = sorted(str(path.relative_to(disturbed.out).with_suffix(".json")) for path in disturbed.out.rglob("*.mp4"))
    assert movies == sorted(expected)
    assert len(list(disturbed.out.glob("scores/*/*/*.json"))) == len(expected)
    assert not [path for path in disturbed.out.rglob("*") if ".part" in path.name or path.name.endswith(".error.json")]
    assert Claims(disturbed.out).leftovers() == []


def test_submitting_returns_before_the_work_is_done(disturbed):
    assert disturbed.at_return == 0


def test_status_names_the_job_and_the_logs_while_it_runs(disturbed):
    submission = disturbed.array.submission
    assert submission.job_id in re.findall(r"\d+", disturbed.status)
    assert "RUNNING" in disturbed.status.upper()
    assert str(submission.folder) in disturbed.status.replace("\n", "")


def test_the_cancelled_task_stays_away_and_the_one_put_back_continues(disturbed):
    states = [task.state for task in disturbed.array.tasks]
    assert states == ["CANCELLED", "COMPLETED", "COMPLETED"]
    logs = [task.log.read_text() for task in disturbed.array.tasks]
    assert [re.findall(r"started, restarts: (\d+)", text) for text in logs] == [["0"], ["0", "1"], ["0"]]
    assert [re.findall(r"ended with exit code (\d+)", text) for text in logs] == [["143"], ["143", "0"], ["0"]]


def test_a_worker_that_is_asked_to_stop_goes_back_to_the_queue(tmp_path, monkeypatch):
    """What Slurm does some time before the time limit, and at a preemption with a grace time."""
    worker = tmp_path / "worker"
    worker.write_text(
        "#!/bin/bash\n[ $SLURM_RESTART_COUNT ] && exit 0\ntrap 'exit 143' TERM\necho ready\nsleep 30 & wait\n"
    )
    worker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(worker))
    done = submit(Slurm(workers=1, mem_gb=0.1), ["x"], tmp_path)
    until(lambda: done.log(0).is_file() and "ready" in done.log(0).read_text(), 20, "starting")
    slurm("scancel", "--batch", "--signal=TERM", f"{done.job_id}_0")
    until(lambda: not only(tmp_path).active, 40, "coming back")
    assert only(tmp_path).counts == {"COMPLETED": 1}
    assert re.findall(r"code (\d+)", done.log(0).read_text()) == ["143", "0"]


def test_a_worker_that_fails_has_failed_for_slurm_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    submit(Slurm(workers=2, mem_gb=0.1), ["x"], tmp_path)
    until(lambda: not only(tmp_path).active, 20, "failing")
    assert [(task.state, task.detail) for task in only(tmp_path).tasks] == [("FAILED", "exit code 1")] * 2
