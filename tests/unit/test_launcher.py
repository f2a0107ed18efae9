"""The Slurm launcher without a Slurm: its commands are small scripts, and the batch script itself runs in a shell.

tests/cluster does the same with a real cluster.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import conf
from irope.launcher import LauncherError, Slurm, batch_script, cancel, jobs, submit

ROOT = Path(__file__).resolve().parents[2]
# Names and defaults of SlurmQueueConf (hydra-submitit-launcher 1.2.0) that mean the same here.
THEIRS = {
    "array_parallelism": 256,
    "timeout_min": 60,
    "signal_delay_s": 120,
    "additional_parameters": {},
    **dict.fromkeys(["partition", "account", "qos", "constraint", "exclude", "comment", "gres", "gpus_per_node"]),
    **dict.fromkeys(["gpus_per_task", "cpus_per_task", "cpus_per_gpu", "mem_gb", "mem_per_gpu", "mem_per_cpu"]),
}


def packaged(name: str) -> dict[str, object]:
    return yaml.safe_load((Path(conf.__file__).parent / "launcher" / f"{name}.yaml").read_text())


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A folder at the head of PATH, and a way to put a shell script there as one of Slurm's commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def tool(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)

    for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo"):  # an installed Slurm is not asked
        tool(name, "exit 1")
    return tool


def flags(script: str) -> dict[str, str]:
    """The options of a batch script, read as sbatch does: one a line, quoted like words of a shell."""
    lines = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]
    words = [shlex.split(line) for line in lines]
    assert all(len(word) == 1 for word in words)
    pairs = [word[0].removeprefix("--").partition("=") for word in words]
    return {key: value for key, _, value in pairs}


def test_the_packaged_settings_are_the_defaults_under_the_names_of_the_hydra_launcher():
    slurm = packaged("slurm")
    assert slurm.pop("kind") == "slurm"
    assert set(slurm) == {field.name for field in fields(Slurm)}
    assert Slurm.from_config(slurm) == Slurm()
    assert THEIRS.items() <= slurm.items()
    assert packaged("local") == {"kind": "local", "workers": "auto"}


def test_settings_become_options_of_sbatch(tmp_path):
    settings = Slurm.from_config(
        {"workers": 12, "array_parallelism": 5, "partition": "gpu", "gpus_per_node": 1, "mem_gb": 1.5}
        | {"timeout_min": 90, "additional_parameters": {"mail_type": "END", "exclusive": True, "reservation": None}}
    )
    found = flags(batch_script(settings, "irope-1", "true", tmp_path / "50% of it"))
    expected = {"array": "0-11%5", "partition": "gpu", "gpus-per-node": "1", "mem": "1536M", "time": "90"}
    assert expected.items() <= found.items()
    assert {"mail-type": "END", "exclusive": "", "signal": "B:TERM@120"}.items() <= found.items()
    assert "\nexport IROPE_WORKERS=5\n" in batch_script(settings, "irope-1", "true", tmp_path), "those at work at once"
    assert found["output"] == f"{tmp_path}/50%% of it/irope-1_%a.log"  # sbatch would expand a single %
    assert not {"reservation", "account", "name", "workers", "setup"} & found.keys()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"partiton": "gpu"}, "did you mean 'partition'"),
        ({"workers": 0}, "sys.launcher.workers=0"),
        ({"workers": "many"}, "workers='many'"),
        ({"setup": "module load cuda"}, "sys.launcher.setup"),
        ({"additional_parameters": [1]}, "sys.launcher.additional_parameters"),
        ({"timeout_min": 2}, "sys.launcher.signal_delay_s=120"),
        ({"name": "a,b"}, "sys.launcher.name=a,b"),
    ],
)
def test_a_wrong_setting_is_named_with_its_key(values, words):
    with pytest.raises(LauncherError, match="launcher") as caught:
        Slurm.from_config(values)
    assert words in str(caught.value)


def test_submitting_remembers_the_job_and_every_task_runs_the_same_command(tools, tmp_path):
    tools("sbatch", f'cp "$2" {tmp_path}/seen; echo "71;east"')
    arguments = ["table1", "tier=quick", "prompt=a cat | a dog's", "launcher=slurm", "sys.launcher.workers=3"]
    arguments += ["+sys.launcher.additional_parameters.exclusive=true"]
    done = submit(Slurm(workers=3), [*arguments, "sys.worker=false"], tmp_path / "out")
    assert (done.job_id, done.tasks) == ("71", 3)
    worker = [sys.executable, "-m", "irope", "run", "table1", "tier=quick", "prompt=a cat | a dog's"]
    assert shlex.split(done.command) == [*worker, "launcher=local", "sys.worker=true"]
    script = (tmp_path / "seen").read_text()
    assert done.command in script
    assert flags(script)["job-name"] == done.name
    (array,) = jobs(tmp_path / "out")
    assert array.submission == done
    assert array.counts == {"UNKNOWN": 3}  # nobody answers
    assert not array.active


def test_what_sbatch_refuses_is_said_in_its_words_with_the_key_and_leaves_nothing(tools, tmp_path):
    tools("sbatch", "echo 'sbatch: error: invalid partition specified: gpus' >&2; exit 1")
    tools("sinfo", "echo gpu; echo debug")
    with pytest.raises(LauncherError) as caught:
        submit(Slurm(partition="gpus"), ["table1"], tmp_path)
    assert "invalid partition specified" in str(caught.value)
    assert "sys.launcher.partition=gpus; did you mean 'gpu'" in str(caught.value)
    assert jobs(tmp_path) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "bin"] == []


def test_without_slurm_the_message_says_what_to_run_instead(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LauncherError, match=r"sys\.worker=true"):
        submit(Slurm(), ["table1"], tmp_path)
    assert jobs(tmp_path) == []


@pytest.fixture
def submitted(tools, tmp_path):
    tools("sbatch", "echo 71")
    return submit(Slurm(workers=4), ["table1"], tmp_path)


def test_states_come_from_the_queue_then_the_accounts_then_the_logs(tools, tmp_path, submitted):
    name = submitted.name
    tools("squeue", f'echo "{name}|0|RUNNING|node7|None"; echo "{name}|N/A|PENDING||Priority"')
    tools(
        "sacct",
        f'echo "{name}|71_1|CANCELLED by 1000|0:15"; echo "{name}|71_0|PENDING|0:0"; echo "other|71_2|FAILED|1:0"',
    )
    submitted.log(2).write_text("irope: task 2 on a: started\nirope: task 2 on a: ended with exit code 3\n")
    submitted.log(3).write_text("irope: task 3 on a: ended with exit code 143\nirope: task 3 on b: started\nnoise\n")
    (array,) = jobs(tmp_path)
    states = [(task.state, task.detail) for task in array.tasks]
    assert states[0] == ("RUNNING", "node7")
    assert states[1][0] == "CANCELLED"
    assert states[2] == ("FAILED", "exit code 3")  # the accounts' 71_2 is another cluster's job of that number
    assert states[3] == ("UNKNOWN", "")  # it came back and has not ended
    assert array.active


def test_cancelling_names_the_job_as_well_as_its_number(tools, tmp_path, submitted):
    tools("scancel", f'echo "$@" >> {tmp_path}/cancelled')
    assert cancel(tmp_path) == []  # nothing is known to run
    tools("squeue", f'echo "{submitted.name}|0|PENDING||Priority"')
    assert cancel(tmp_path) == ["71"]
    assert (tmp_path / "cancelled").read_text() == f"--name={submitted.name} 71\n"


def test_a_damaged_record_hides_nothing_but_itself(tmp_path, submitted):
    (submitted.folder / "irope-0.json").write_text('{"job_id": "1"')
    (submitted.folder / "irope-1.json").write_text("[]")
    assert [array.submission.job_id for array in jobs(tmp_path)] == ["71"]


# The batch script in a shell: what the worker does, and what becomes of the task.


def start(tmp_path: Path, command: str, restarts: int = 0, setup: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    settings = Slurm(max_num_timeout=2, setup=setup)
    script = tmp_path / "job.sh"
    script.write_text(batch_script(settings, "irope-1", command, tmp_path))
    env = os.environ | {"SLURM_ARRAY_TASK_ID": "5", "SLURM_JOB_ID": "76", "SLURM_RESTART_COUNT": str(restarts)}
    return subprocess.Popen(["bash", str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


@pytest.mark.parametrize("code", [0, 1, 143])
def test_the_exit_code_of_the_task_is_the_worker_s(tools, tmp_path, code):
    tools("scontrol", f"touch {tmp_path}/requeued")
    tools("squeue", "echo RUNNING")
    process = start(tmp_path, 'bash -c "exit $CODE"', setup=(f"CODE={code}",))
    output, _ = process.communicate(timeout=20)
    assert process.returncode == code
    assert "irope: task 5 on" in output
    assert f"ended with exit code {code}" in output
    assert not (tmp_path / "requeued").exists()  # nobody asked it to stop


WORKER = """\
trap 'sleep 0.3; echo released; exit 143' TERM
echo ready
for _ in $(seq 200); do sleep 0.05; done
"""


@pytest.mark.parametrize(
    ("state", "restarts", "again"),
    [
        ("RUNNING", 0, True),
        ("RUNNING", 1, True),
        ("RUNNING", 2, False),
        ("COMPLETING", 0, False),
        ("PENDING", 0, False),
    ],
)
def test_a_worker_asked_to_stop_gives_its_claim_back_and_the_task_continues_unless_it_was_cancelled(
    tools, tmp_path, state, restarts, again
):
    tools("scontrol", f'echo "$@" > {tmp_path}/requeued')
    tools("squeue", f"echo {state}")
    (tmp_path / "worker.sh").write_text(WORKER)
    process = start(tmp_path, f"bash {tmp_path}/worker.sh", restarts)
    assert process.stdout is not None
    while "ready" not in (line := process.stdout.readline()):
        assert line
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # Slurm and the script may both say it
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    assert output.index("released") < output.index("ended with exit code 143")  # not before the worker has ended
    requeued = tmp_path / "requeued"
    assert requeued.exists() == again
    assert not again or requeued.read_text() == "requeue 76\n"


def test_a_worker_that_has_just_finished_when_it_is_asked_to_stop_does_not_come_back(tools, tmp_path):
    tools("scontrol", f"touch {tmp_path}/requeued")
    tools("squeue", "echo RUNNING")
    (tmp_path / "worker.sh").write_text(WORKER.replace("exit 143", "exit 0"))
    process = start(tmp_path, f"bash {tmp_path}/worker.sh")
    assert process.stdout is not None
    while "ready" not in (line := process.stdout.readline()):
        assert line
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert not (tmp_path / "requeued").exists()
