"""Plan, run and watch experiments as a user does, on a small model with random weights."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from irope.cli.experiments import results_of
from irope.cli.main import main
from irope.config import CONF
from tests.cli.conftest import ROOT, Irope

# policy_study runs in tests/unit/test_policy_study.py, which takes its smallest tier further.
EXPERIMENTS = sorted({path.stem for path in (CONF / "experiment").glob("*.yaml")} - {"policy_study"})
SMALL = "score.scorers=[flicker,motion]"


@pytest.fixture
def small(weights: Path, tmp_path: Path) -> list[str]:
    """An experiment of 2 cells and 4 videos of a few blocks."""
    (tmp_path / "small.yaml").write_text(
        "description: two windows\nset: [prompts=basic, method=infinity_rope]\n"
        "sweep: {video.method.policy.window: '6,9'}\ntiers: {quick: {prompts: 2, seconds: [1.5, 3]}}\n"
    )
    return ["small.yaml", f"video.model.weights={weights}", SMALL, "sys.launcher.workers=2"]


def state(folder: Path) -> dict[str, bytes]:
    """Every file of a results folder that is there to stay; a kill may leave a `.part` that nobody reads."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".part"]
    kept = [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    return {str(file.relative_to(folder)): file.read_bytes() for file in kept}


def test_an_experiment_from_plan_to_table(irope: Irope, small: list[str], tmp_path: Path):
    planned = irope("plan", *small)
    assert planned.returncode == 0, planned.stderr
    assert "to do: 4 of 4 videos" in planned.stdout
    assert "estimated: what two workers took on two CPU cores" in planned.stdout
    assert "4 videos of 1.5 s are the beginning of those of 3 s and are not made a second time: 6 s" in planned.stdout
    assert not (tmp_path / "results").exists(), "a plan writes nothing"
    made = irope("run", *small)
    assert made.returncode == 0, made.stderr + made.stdout
    assert "complete: all 4 videos are made and scored" in made.stdout
    assert "4/4 videos" in made.stderr
    before = state(tmp_path / "results/runs")
    assert sum(name.endswith(".mp4") for name in before) == 4
    again = irope("run", *small)
    assert (again.returncode, "complete: all 4" in again.stdout) == (0, True)
    assert state(tmp_path / "results/runs") == before, "nothing was touched"
    shown = json.loads(irope("plan", *small, "--json").stdout)
    assert {cell["done"] for cell in shown["cells"].values()} == {2}
    status = irope("status", *small)
    assert status.returncode == 0
    assert "infinity_rope@window=6" in status.stdout
    rows = irope("table", *small, "--format", "csv").stdout
    assert rows.count("infinity_rope") >= 8, "two cells, two windows, two metrics"
    more = irope("plan", *small, "experiment.prompts=3").stdout
    assert "to do: 2 of 6 videos" in more
    assert "measured on 4 videos" in more


def test_a_failure_is_kept_told_and_tried_again(irope: Irope, small: list[str], tmp_path: Path):
    blocked = tmp_path / "results/runs/infinity_rope@window=6"
    assert irope("run", *small, "--yes", "score.scorers=[nonsense]").returncode == 2, "before anything is made"
    planned = json.loads(irope("plan", *small, "--json").stdout)
    assert planned["left"]["workers"] == 2
    assert irope("run", *small, "sys.worker=true").returncode == 0
    victim = next(blocked.glob("*.mkv"))
    victim.with_suffix(".json").unlink()
    victim.unlink()
    victim.mkdir()  # what is in the way of one video only
    failed = irope("run", *small, "sys.launcher.workers=1")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert f"failed: infinity_rope@window=6/{victim.stem}" in failed.stderr
    assert "3 of 4 videos are done; to try the rest again: irope run small.yaml" in failed.stdout
    shown = irope("status", *small)
    assert shown.returncode == 1
    assert f"failed: infinity_rope@window=6/{victim.stem}: " in shown.stdout
    record = json.loads(victim.with_suffix(".error.json").read_text())
    assert record["traceback"]
    victim.rmdir()
    assert irope("run", *small, "sys.worker=true").returncode == 0
    assert not victim.with_suffix(".error.json").exists()


def test_a_worker_that_is_terminated_leaves_a_checkpoint_and_the_next_one_continues(
    irope: Irope, small: list[str], tmp_path: Path
):
    long = [*small, "experiment.prompts=1", "duration=24", "method=rolling"]
    long += ["sys.checkpoint_blocks=5", "sys.worker=true"]
    command = [sys.executable, "-m", "irope", "run", *long]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    worker = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    work = tmp_path / "results/runs/.work"
    wait_for(lambda: any(work.glob("*/gen-*/*")) or worker.poll() is not None)
    worker.send_signal(signal.SIGSTOP)  # or it may have made a video by then
    assert main(["status", f"sys.out={tmp_path / 'results/runs'}"]) == 0
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGCONT)
    said, _ = worker.communicate(timeout=60)
    assert worker.returncode == 143, said
    assert "worker: stopped" in said
    assert not list((tmp_path / "results/runs").glob("rolling*/*.mp4"))
    done = irope("run", *long)
    assert done.returncode == 0, done.stderr
    assert "2 made" not in said
    assert len(list((tmp_path / "results/runs").glob("rolling*/*.mp4"))) == 2


def test_workers_killed_at_any_moment_lose_nothing(irope: Irope, small: list[str], tmp_path: Path):
    words = [str(tmp_path / small[0]), *small[1:], "duration=6", "sys.checkpoint_blocks=2"]
    in_calm = f"sys.out={tmp_path / 'calm'}"
    assert "nothing to score" in irope("score", *words, in_calm).stdout
    assert "complete: all 4 videos are made in" in irope("generate", *words, in_calm).stdout
    assert not (tmp_path / "calm/scores").exists()
    assert "complete: all 4 videos are scored in" in irope("score", *words, in_calm).stdout
    runs = tmp_path / "shot"
    command = ["run", *words, f"sys.out={runs}", "sys.worker=true"]
    moments = random.Random(0)
    # A server that has loaded torch once starts a worker in a fraction of a second.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["irope.cli.run", "irope.cli.worker", "irope.models.tiny.model"])
    for _ in range(6):
        worker = context.Process(target=main, args=(command,))
        worker.start()
        wait_for(lambda alive=worker.is_alive: any(runs.glob(".work/*/gen-*/*")) or not alive())
        time.sleep(moments.uniform(0, 1.5))
        worker.kill()
        worker.join()
        for sidecar in runs.glob("[!.]*/*-seed0-*.json"):
            json.loads(sidecar.read_text())  # whole, whatever happened
    assert irope(*command).returncode == 0
    calm, shot = state(tmp_path / "calm"), state(runs)
    assert shot.keys() == calm.keys()
    videos = [name for name in calm if not name.endswith(".json")]
    assert {name: shot[name] for name in videos} == {name: calm[name] for name in videos}, "the same bytes"
    for name in (name for name in calm if name.startswith("scores/")):
        assert json.loads(shot[name])["windows"] == json.loads(calm[name])["windows"]
    assert not list(runs.glob(".work/*")), "nothing unfinished is left"


def wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_in_its_smallest_tier(name: str, weights: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [name, "tier=smoke", f"video.model.weights={weights}", SMALL]
    kind = "kind:" in (CONF / f"experiment/{name}.yaml").read_text()
    assert main(["run", *words, *([] if kind else ["sys.worker=true"])]) == 0
    if kind:
        assert list(Path("results/runs/measured").rglob(f"{name}*"))
        return
    results = results_of(words)
    assert not results.missing
    assert len(results.frame) == 2 * sum(max(1, len(c.seconds)) * len(c.videos) for c in results.cells)
    assert set(results.frame["method"]) == {cell.label for cell in results.cells}
    assert len(results.costs) == sum(len(cell.videos) for cell in results.cells)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "tabel1"], "did you mean 'table1' or 'table2'"),
        (["run", "table1", "tier=papr"], "did you mean 'paper'"),
        (["run", "delta_ablation", "video.method.policy.cut_delta=1,2"], "several values are a sweep; give -m"),
        (["plan", "table1", "launcher=slrum"], "did you mean 'slurm'"),
        (["plan", "table1", "sys.launcher.workers=0"], "sys.launcher.workers=0: expected a whole number from 1 up"),
        (["plan", "table1", "sys.worker=maybe"], "sys.worker=maybe: expected true or false"),
        (["run", "missing.yaml"], "missing.yaml cannot be read"),
        (["status", "everything"], "neither key=value nor an experiment"),
        (["run", "beyond_1024", "tier=paper"], "add --yes"),
    ],
)
def test_bad_input(irope: Irope, words: list[str], message: str):
    done = irope(*words)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr
