"""Systems in other people's environments: what is asked of a program, and every way in which it may fail."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from baselines.systems.chain import clip_seed
from baselines.systems.program import ProgramError
from baselines.systems.subprocess_system import LOG
from irope.finished import failed, write_failure
from irope.systems import Interrupted, RunInfo, Shot
from tests.subprocess_kit import CLIP, SEED, Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """In a folder below the present one, as results are, while the program runs elsewhere."""
    monkeypatch.chdir(tmp_path)
    return Run(Path())


def test_a_video_is_clips_without_their_repeated_frames(run: Run) -> None:
    info = run("good", frames=12)
    assert run.frames[:12] == [SEED + i for i in range(12)]
    assert run.runs == [[0, 1, 2]]
    assert info == RunInfo(3, {"fake": "1.0"}, None, ("made on none",))
    assert run.beats > 3
    assert "a project may print what it likes" in (run.work / LOG).read_text()


def test_a_killed_chain_continues_after_its_last_whole_clip(run: Run) -> None:
    with pytest.raises(ProgramError, match="was ended by SIGKILL, as the system does when memory runs out"):
        run("killed 2", frames=20)
    assert run.clips == ["clip-0000.rgb", "clip-0001.rgb"]
    (run.work / "clips" / "clip-0002.rgb.part").write_bytes(b"half of it")
    info = run("good", frames=20)
    assert run.runs == [[0, 1, 2, 3, 4], [2, 3, 4]]
    assert run.frames[:20] == [SEED + i for i in range(20)]
    assert info.calls == 3
    assert run("crash", frames=20).calls == 0  # all is there: the program is not even started
    assert run.frames[:20] == [SEED + i for i in range(20)]


def test_a_clip_of_another_length_is_made_again(run: Run) -> None:
    run("good")
    os.truncate(run.work / "clips" / "clip-0001.rgb", 100)
    run("good")
    assert run.runs == [[0, 1, 2], [1, 2]]
    assert run.frames[:12] == [SEED + i for i in range(12)]


def test_every_clip_gets_its_prompt_and_its_seed(run: Run) -> None:
    info = run("good", frames=20, shots=(Shot("a cat", 0, 8), Shot("a dog", 8, 20)))
    asked = json.loads((run.work / "clips" / "request.json").read_text())
    assert [clip["prompt"] for clip in asked["clips"]] == ["a cat"] * 2 + ["a dog"] * 3
    assert [clip["seed"] for clip in asked["clips"]] == [clip_seed(SEED, i) for i in range(5)]
    assert [clip["start"] and clip["start"]["frame"] for clip in asked["clips"]] == [None, 4, 4, 4, 4]
    assert "the prompt of frame 8 begins at frame 9, where a clip begins" in info.notes


def test_a_crash_leaves_its_traceback_in_the_failure_record(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irope.finished.environment", dict)  # which takes its time to ask every library
    with pytest.raises(ProgramError) as caught:
        run("crash 1")
    assert "Fake ended with exit code 1 (frames 0 5/5): RuntimeError: CUDA out of memory" in str(caught.value)
    assert str(run.work / LOG) in str(caught.value)
    assert "\n" not in str(caught.value)
    write_failure(tmp_path / "video", caught.value)
    record = failed(tmp_path / "video")
    assert record is not None
    told = "".join(record["traceback"])
    assert "in go_wrong" in told
    assert "loading xxxx" in told
    assert run.clips == ["clip-0000.rgb"]


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("hang", r"gave no sign for .* s \(loading the weights\), more than silence_s=100 allows"),
        ("talk", r"was still running after .* s \(talking\), more than limit_s=500 allows"),
    ],
)
def test_a_program_that_takes_too_long_is_stopped_with_its_children(
    run: Run, behaviour: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock runs a thousand times faster once the program is where it is meant to be stopped, whenever that is.
    begun, since = run.repo / "child", list[float]()

    def clock() -> float:
        now = time.monotonic()
        if begun.exists() and not since:
            since.append(now)
        return now + 1000 * (now - since[0]) if since else now

    monkeypatch.setattr("baselines.systems.program.monotonic", clock)
    run.own |= {"silence_s": 100 if behaviour == "hang" else 5000, "limit_s": 500}
    with pytest.raises(ProgramError, match=message):
        run(behaviour)
    assert run.nothing_is_left()


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("few", "handed over clip 0 with 3 frames of 6x4 where clip 0 with 5 frames of 6x4 was asked for"),
        ("tall", "handed over clip 0 with 5 frames of 6x6 where clip 0 with 5 frames of 6x4 was asked for"),
        ("leave 1", "ended well, but made 1 of 3 clips"),
    ],
)
def test_what_is_handed_over_is_what_was_asked_for(run: Run, behaviour: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        run(behaviour)
    assert run.nothing_is_left()


def test_lines_that_are_no_message_go_to_the_log(run: Run) -> None:
    run("garbage 1")
    assert run.frames[:12] == [SEED + i for i in range(12)]
    log = (run.work / LOG).read_bytes()
    assert b"\xff\xfe\x00 not text\n" in log
    assert b"[1, 2]\n" in log
    assert b"plain\n" in log


def test_a_child_that_outlives_the_program_is_ended(run: Run) -> None:
    start = time.monotonic()
    run("child")
    assert time.monotonic() - start < 30  # the child, which holds the standard output open, would sleep for 60
    assert run.frames[:12] == [SEED + i for i in range(12)]
    assert run.nothing_is_left()


def test_stop_leaves_the_clips_made_so_far(run: Run) -> None:
    with pytest.raises(Interrupted, match="Fake: stopped after clip 1 of 3"):
        run("hang 1", stop=lambda: len(run.frames) >= CLIP)
    assert run.nothing_is_left()
    run("good")
    assert run.runs[-1] == [1, 2]
    assert run.frames[:12] == [SEED + i for i in range(12)]


def test_a_lost_claim_ends_the_program(run: Run) -> None:
    def beat() -> None:
        if (run.repo / "child").exists():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run("hang", beat=beat)
    assert run.nothing_is_left()
