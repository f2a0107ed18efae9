"""irope verify faults in short, irope verify RUN, two irope generate side by side; on a model with random weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from irope import fault_cases
from irope.cli.main import main
from irope.config import load, patched
from irope.fault_cases import CASES, Faults
from irope.faults import undisturbed
from irope.finished import failed
from irope.generate import Interrupted, generate
from irope.generator import Generator, load_generator
from irope.jobs import VideoJob, jobs_from
from irope.video import H264, VideoError, VideoWriter
from tests.cli.conftest import ROOT


@pytest.fixture(scope="module")
def faults(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Faults:
    config = load([f"video.model.weights={weights}", "prompts=basic", "duration=3"])
    folder = tmp_path_factory.mktemp("faults")
    reference, seconds = undisturbed(folder / "undisturbed", config, 4)
    return Faults(folder, reference, seconds, kills=6, workers=2, sleepers=1)


@pytest.fixture(scope="module")
def generator(faults: Faults) -> Generator:
    return load_generator(faults.reference.task.config)


@pytest.fixture
def job(faults: Faults, tmp_path: Path) -> VideoJob:
    return jobs_from(patched(faults.reference.task.config, "sys.out", str(tmp_path / "out")))[0]


@pytest.mark.parametrize("fault", list(CASES))
def test_no_fault_loses_doubles_or_halves_a_video(faults: Faults, fault: str) -> None:
    outcome = getattr(faults, CASES[fault])()
    assert outcome.problems == ()
    assert "4 of 4" in outcome.result or "3 of 3" in outcome.result


@pytest.mark.parametrize("fault", ["disk full", "read-only folder"])
def test_the_same_where_nothing_may_be_mounted(faults: Faults, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_cases, "_mount", lambda *_: False)
    outcome = getattr(replace(faults, folder=faults.folder / "unmounted"), CASES[fault])()
    assert outcome.problems == ()
    assert "RLIMIT_FSIZE" in outcome.done or "injected" in outcome.done


def test_the_check_sees_what_it_is_for(faults: Faults) -> None:
    """A half file, a lost video, one made twice, one too many, other frames: each is told."""
    stage = faults._stage("judge")
    faults._copy(stage, stage.jobs)
    assert stage.problems == []
    first, second, third, fourth = (job.stem.with_name(job.stem.name + ".mp4") for job in stage.jobs)
    os.truncate(first, 1000)
    second.with_suffix(".json").unlink()
    shutil.copy2(third, third.with_name("another.mp4"))
    facts = json.loads(fourth.with_suffix(".json").read_text())
    fourth.with_suffix(".json").write_text(json.dumps(facts | {"frames_sha256_chain": "0" * 64}))
    stage.look()
    Path(stage.task.events).write_text(2 * (json.dumps({"what": "made", "video": third.stem}) + "\n"))
    stage.end()
    for words in (
        f"{first.name}: not the file",
        f"{second.stem}: a finished video was lost",
        "another.mp4: no video of this name",
        f"{fourth.stem}: finished once, and made again",
        f"{fourth.stem}: another frame hash chain",
        f"made twice: {third.stem}",
    ):
        assert any(problem.startswith(words) for problem in stage.problems), (words, stage.problems)


def test_verify_faults_prints_a_table_and_writes_json(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("corrupt sidecar", "truncated video")
    monkeypatch.setattr(fault_cases, "CASES", {name: CASES[name] for name in names})
    command = ["verify", "faults", "--videos", "2", f"video.model.weights={weights}", "duration=1.5"]
    assert main([*command, "--json", str(tmp_path / "a.json")]) == 0
    assert "2 of 2 faults" in capsys.readouterr().out
    found = json.loads((tmp_path / "a.json").read_text())
    assert [(record["fault"], record["ok"]) for record in found["faults"]] == [(name, True) for name in names]
    monkeypatch.setattr(fault_cases.Faults, "corrupt_sidecar", lambda self: 1 / 0)
    assert main(command) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_verify_run_tells_the_same_from_another(
    faults: Faults, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(faults.reference.out, run)
    assert main(["verify", str(run), "--seed", "0"]) == 0
    assert "same" in capsys.readouterr().out
    stem = faults.reference.jobs[1].stem.name
    sidecar = next(run.rglob(f"{stem}.json"))
    facts = json.loads(sidecar.read_text())
    # As made with another version of torch: frame 7 and all after it look different.
    frames = _frames(sidecar.with_suffix(".mkv"))
    frames[7:] = 255 - frames[7:]
    with VideoWriter(sidecar.with_suffix(".mp4"), facts["fps"], lossless=True) as writer:
        writer.write(frames)
        chain = writer.finish().hash
    facts["bytes"] = {
        "mp4": sidecar.with_suffix(".mp4").stat().st_size,
        "frames": sidecar.with_suffix(".mkv").stat().st_size,
    }
    facts["environment"]["packages"]["torch"] = "1.0"
    sidecar.write_text(json.dumps(facts | {"frames_sha256_chain": chain}))
    assert main(["verify", str(run), "--video", f"{stem}.mp4"]) == 1
    out = capsys.readouterr().out
    for words in (
        "DIFFERENT",
        "first frame that differs from the lossless companion: 7",
        "packages.torch: then 1.0, now",
    ):
        assert words in out
    sidecar.write_text(json.dumps(facts))  # the sidecar is right, its companion is not
    assert main(["verify", str(run), "--all"]) == 1
    out = capsys.readouterr().out
    assert "does not hold the frames" in out
    assert "3 of 4" in out


def _frames(path: Path) -> Any:
    import numpy as np

    from irope.video import read_frames

    return np.concatenate(list(read_frames(path)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["goldn"], ["goldn is no folder", "did you mean 'golden'"]),
        (["."], ["holds no finished video", "irope generate"]),
        (["faults", "--kills", "0"], ["--kills 0", "nearest valid: 1"]),
        (["faults", "prompt=a red circle", "--videos", "2"], ["a red circle"]),
    ],
)
def test_what_cannot_be_verified_is_said(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["verify", *arguments]) == 2
    errors = capsys.readouterr().err
    for word in words:
        assert word in errors


def test_verify_run_names_the_field_when_the_configuration_stands_for_another_video(
    faults: Faults, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(faults.reference.out, run)
    for sidecar in run.rglob("*.json"):
        facts = json.loads(sidecar.read_text())
        facts["record"]["policy"]["window"] += 1  # the policy's default was another one then
        facts["key"] = "0" * 20
        sidecar.write_text(json.dumps(facts))
    assert main(["verify", str(run)]) == 2
    assert "policy.window" in capsys.readouterr().err


def test_a_video_asked_to_stop_continues_with_the_same_frames(
    faults: Faults, job: VideoJob, generator: Generator, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    asked = iter([False, False, True])
    with pytest.raises(Interrupted, match="after block 3"):
        generate(job, generator, work=work, stop=lambda: next(asked))
    assert not job.stem.parent.exists() or not list(job.stem.parent.iterdir())
    resumed = []
    facts = generate(job, generator, work=work, report=lambda report: resumed.append(report.resumed))
    assert set(resumed) == {3}
    assert facts["frames_sha256_chain"] == _undisturbed(faults, job)["frames_sha256_chain"]


def _undisturbed(faults: Faults, job: VideoJob) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(next(faults.reference.out.rglob(f"{job.stem.name}.json")).read_text())
    return found


class LostError(RuntimeError):
    pass


@pytest.mark.parametrize("call", range(1, 13))
def test_whoever_lost_the_claim_publishes_nothing_more(
    job: VideoJob, generator: Generator, tmp_path: Path, call: int
) -> None:
    """The folder goes at any call of `check`, or right after it: what was published before is whole, later nothing."""
    calls, at = 0, (call + 1) // 2

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls >= at:
            if work.exists():
                work.rename(tmp_path / "of another owner")
            if call % 2 or calls > at:
                raise LostError

    work = tmp_path / "work"
    work.mkdir()
    try:
        generate(job, generator, checkpoint_blocks=2, work=work, check=check)
    except LostError:
        pass
    else:
        pytest.fail("the video was finished")
    assert not job.done
    assert not work.exists()
    assert not [path for path in job.stem.parent.iterdir() if path.suffix == ".json"]


def test_a_damaged_chunk_is_found_when_joining_and_the_next_attempt_starts_over(
    faults: Faults, job: VideoJob, generator: Generator, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()

    def stop() -> Iterator[bool]:
        yield from (False, False, True)

    asked = stop()
    with pytest.raises(Interrupted):
        generate(job, generator, checkpoint_blocks=2, work=work, stop=lambda: next(asked))
    chunk = work / "parts" / f"00000{H264.suffix}"
    os.truncate(chunk, chunk.stat().st_size // 2)
    with pytest.raises(VideoError):
        generate(job, generator, work=work)
    assert (
        generate(job, generator, work=work)["frames_sha256_chain"] == _undisturbed(faults, job)["frames_sha256_chain"]
    )


def test_two_generate_side_by_side_share_the_work(weights: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "irope",
        "generate",
        f"video.model.weights={weights}",
        "prompts=basic",
        "duration=5",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    out = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(text.count("ms/block") for text in out) == 8  # every video once
    assert all(text.count("frames, ") == 8 for text in out)
    assert not (tmp_path / "results" / "runs" / ".work").exists()


def test_the_second_generate_waits_for_the_owner_and_sigterm_leaves_a_checkpoint(weights: Path, tmp_path: Path) -> None:
    def command(out: str) -> list[str]:
        prompt = ["prompt=a red circle moving left", "duration=40", f"sys.out={out}"]
        return [sys.executable, "-m", "irope", "generate", f"video.model.weights={weights}", *prompt]

    def start(out: str) -> subprocess.Popen[str]:
        return subprocess.Popen(command(out), cwd=tmp_path, env=env, stdout=file, stderr=subprocess.PIPE, text=True)

    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (tmp_path / "log").open("w") as file:
        first = start("out")
        _until(lambda: any(tmp_path.glob("out/.work/*/*/parts/*")))
        first.send_signal(signal.SIGSTOP)  # or it may be done before the other one has loaded torch
        second = start("out")
        _until(lambda: f"is being made by {os.uname().nodename}:{first.pid}" in (tmp_path / "log").read_text())
        first.send_signal(signal.SIGTERM)
        first.send_signal(signal.SIGCONT)
        assert "same command continues" in first.communicate(timeout=60)[1]
        assert first.returncode == 130
        errors = second.communicate(timeout=60)[1]
        assert second.returncode == 0, errors
        assert "continues at block" in errors
    assert main(command(str(tmp_path / "whole"))[3:]) == 0
    (one,), (other,) = (list(tmp_path.glob(f"{out}/*/*.json")) for out in ("out", "whole"))
    chains = [json.loads(path.read_text())["frames_sha256_chain"] for path in (one, other)]
    assert chains[0] == chains[1]
    assert failed(one.with_suffix("")) is None


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
