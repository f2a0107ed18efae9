"""Systems in other people's environments: the chain, what is asked of a program, and every way in which it may fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.systems.chain import chain, clip_seed, shots_of
from baselines.systems.environment import Project
from baselines.systems.program import TAIL, Program, ProgramError
from baselines.systems.subprocess_system import LOG, SubprocessSystem
from irope.errors import UserError, WeightsError
from irope.finished import failed, write_failure
from irope.systems import ImpossibleError, Interrupted, Place, Request, RunInfo, Shot, make_system

FAKE = Path(__file__).parents[1] / "fake_system.py"
CLIP = 5
SEED = 40


@dataclass(frozen=True)
class Fake(SubprocessSystem):
    """Clips of 5 frames of 4x6 pixels at 8 frames per second."""

    title: ClassVar[str] = "Fake"
    fps: ClassVar[int] = 8
    size: ClassVar[tuple[int, int]] = (4, 6)
    native_seconds: ClassVar[float] = 0.625
    runner: ClassVar[Path] = FAKE

    def clip_frames(self) -> int:
        return CLIP

    def project(self) -> Project:
        return Project("fake", "Fake", "example.org/fake", "entry.py", (".",), "owner/fake", ("*.bin",))


class Run:
    """A fake system in a folder of its own: how it behaves, and what came of it."""

    def __init__(self, folder: Path) -> None:
        self.repo, self.work = folder / "repo", folder / "work"
        self.repo.mkdir()
        self.work.mkdir()
        (self.repo / "entry.py").touch()
        self.own: dict[str, Any] = {"python": sys.executable, "repo": str(self.repo)}
        self.frames: list[int] = []
        self.beats = 0

    def __call__(self, behaviour: str, frames: int = 12, shots: tuple[Shot, ...] = (), **options: Any) -> RunInfo:
        (self.repo / "behaviour").write_text(behaviour)
        self.frames.clear()
        place = Place(weights=self.work, own=self.own)
        shots = shots or (Shot("a cat", 0, frames),)
        request = Request(shots, frames / Fake.fps, frames, SEED, self.work, place)
        calls = {"beat": self.beat, "stop": lambda: False} | options
        return Fake().generate(request, self.out, **calls)

    def out(self, frames: np.ndarray) -> None:
        assert frames.dtype == np.uint8
        assert frames.shape[1:] == (4, 6, 3)
        assert (frames == frames[:, :1, :1, :1]).all()
        self.frames += frames[:, 0, 0, 0].tolist()

    def beat(self) -> None:
        self.beats += 1

    @property
    def runs(self) -> list[list[int]]:
        """The clips that each run of the program was asked for."""
        lines = (self.repo / "runs").read_text().splitlines() if (self.repo / "runs").exists() else []
        return [json.loads(line.partition(" ")[2]) for line in lines]

    @property
    def clips(self) -> list[str]:
        return sorted(path.name for path in (self.work / "clips").glob("clip-*"))

    def nothing_is_left(self) -> bool:
        pids = [int(line.split()[0]) for line in (self.repo / "runs").read_text().splitlines()]
        if (self.repo / "child").exists():
            pids.append(int((self.repo / "child").read_text()))
        return all(gone(pid) for pid in pids)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def gone(pid: int, within: float = 20.0) -> bool:
    """Whether a process has ended; one that nobody has asked about yet is a zombie."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


# the chain


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 3))
def test_a_chain_shows_every_frame_once_and_makes_no_clip_too_many(frames: int, native: int, repeated: int) -> None:
    if repeated >= native:
        with pytest.raises(ValueError):
            chain(frames, native, repeated)
        return
    clips = chain(frames, native, repeated)
    shown = [clip.start + i for clip in clips for i in range(clip.made - clip.repeated)]
    assert shown == list(range(len(shown)))
    assert len(shown) - (native - repeated) < frames <= len(shown) or len(clips) == 1
    assert [clip.repeated for clip in clips] == [0] + [repeated] * (len(clips) - 1)
    assert all(clip.made == native for clip in clips)


def test_the_first_clip_has_the_seed_of_the_video_and_no_other_one_has() -> None:
    seeds = [clip_seed(seed, index) for seed in range(20) for index in range(90)]
    assert seeds[::90] == list(range(20))
    assert len(set(seeds)) == len(seeds)


def test_a_prompt_begins_with_the_clip_whose_beginning_is_nearest() -> None:
    clips = chain(26, 6)  # frames 0..5, 6..10, 11..15, 16..20, 21..25
    for switch in range(4, 24):
        found = shots_of(clips, [(0, switch), (switch, 26)], "X")
        begins = next(clip.start for clip, shot in zip(clips, found, strict=True) if shot)
        assert abs(begins - switch) == min(abs(clip.start - switch) for clip in clips[1:])


def test_a_prompt_that_would_never_be_seen_is_refused() -> None:
    with pytest.raises(ImpossibleError, match=r"X: a prompt can change between clips only, .* frames 7 to 7"):
        shots_of(chain(26, 6), [(0, 7), (7, 8), (8, 26)], "X")


PLANS = [  # seconds, calls, frames made, frames kept; by hand from policies.md, section 4
    ("nova", {}, [(5, 2, 65, 60), (10, 4, 129, 120), (60, 23, 737, 720), (120, 45, 1441, 1440), (240, 90, 2881, 2880)]),
    ("nova", {"latents": 16}, [(5, 1, 61, 60), (60, 12, 721, 720)]),
    (
        "pyramid_flow",
        {},
        [(5, 1, 121, 120), (10, 2, 241, 240), (60, 12, 1441, 1440), (120, 24, 2881, 2880), (240, 48, 5761, 5760)],
    ),
    ("pyramid_flow", {"latents": 31}, [(5, 1, 241, 120), (10, 1, 241, 240), (60, 6, 1441, 1440)]),
    ("magi_1", {}, [(5, 1, 120, 120), (5.5, 1, 144, 132), (10, 1, 240, 240), (60, 1, 1440, 1440)]),
    ("magi_1", {"allow_long": True}, [(120, 1, 2880, 2880), (240, 1, 5760, 5760)]),
]


@pytest.mark.parametrize(("name", "settings", "rows"), PLANS)
def test_plans(name: str, settings: dict[str, Any], rows: list[tuple[float, int, int, int]]) -> None:
    system = make_system({"name": name, **settings})
    for seconds, calls, made, kept in rows:
        plan = system.plan(seconds)
        assert (plan.calls, plan.frames_made, plan.frames_kept) == (calls, made, kept)
    with pytest.raises(ImpossibleError):
        system.plan(0.01)


def test_magi_1_needs_100_gb_for_a_minute_and_refuses_more() -> None:
    magi = make_system({"name": "magi_1"})
    assert magi.plan(60).notes[:2] == ("60 chunks", "102 GB of pinned host memory for keys and values")
    for seconds, memory in ((120, "203 GB"), (240, "406 GB")):
        with pytest.raises(
            ImpossibleError, match=f"{memory} of pinned host memory; nearest valid: 60 s.*allow_long=true"
        ):
            magi.plan(seconds)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "nova", "latents": 1}, "latents=1 is too short; nearest valid: 2"),
        ({"name": "pyramid_flow", "latents": 20}, "latents=20 is no length of variant=768p; valid: 16 or 31"),
        ({"name": "pyramid_flow", "latents": 31, "variant": "384p"}, "variant=384p; valid: 16"),
        ({"name": "pyramid_flow", "model": "minifux"}, "did you mean 'miniflux'"),
        ({"name": "magi_1", "height": 725}, "height=725 is no multiple of 16; try 720"),
        ({"name": "magi_1", "steps": 10}, "steps=10 is no multiple of 4"),
    ],
)
def test_settings_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_system(values)


# the program


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


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    ignore = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{\"beat\": 1}', flush=True)"
    command = [sys.executable, "-c", ignore + "; time.sleep(60)"]
    with Program("X", command, cwd=tmp_path, log=tmp_path / "log", silence=60, grace=0.1) as program:
        assert {"beat": 1} in program.messages()
    assert program._process.returncode == -signal.SIGKILL


def test_a_note_keeps_the_last_lines_only(tmp_path: Path) -> None:
    talk = "import sys; [sys.stderr.write(f'line {i}\\n') for i in range(1000)]; sys.exit(3)"
    with pytest.raises(ProgramError, match=r"exit code 3 .*: line 999; ") as caught:
        list_messages([sys.executable, "-c", talk], tmp_path)
    lines = caught.value.__notes__[0].splitlines()
    assert lines[1:] == [f"line {i}" for i in range(1000 - TAIL, 1000)]


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("no program")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(ProgramError, match=r"X cannot be started: .*/python: Exec format error"):
        list_messages([tmp_path / "python"], tmp_path)


def list_messages(command: list[Any], folder: Path) -> list[Any]:
    with Program("X", command, cwd=folder, log=folder / "log", silence=9) as program:
        return [message for message in program.messages() if message is not None]


def test_a_program_ends_with_whoever_started_it(run: Run) -> None:
    """A worker that is killed cannot end what it started, so that has to see it."""
    (run.repo / "behaviour").write_text("talk")
    clip = {"index": 0, "seed": 0, "frames": 1, "file": "clip", "start": None}
    request = run.work / "request.json"
    request.write_text(json.dumps({"repo": str(run.repo), "height": 4, "width": 6, "clips": [clip]}))
    code = f"""
from pathlib import Path
from baselines.systems.program import Program
command = [{sys.executable!r}, {str(FAKE)!r}, {str(request)!r}]
with Program("Fake", command, cwd=Path({str(run.repo)!r}), log=Path({str(run.work / LOG)!r}), silence=60) as program:
    list(program.messages())
"""
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=FAKE.parents[1])
    try:
        until = time.monotonic() + 30
        while not (run.repo / "child").exists() and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        worker.kill()
        worker.wait()
    assert (run.repo / "child").exists()
    assert run.nothing_is_left()


# the environment


def test_nothing_leads_the_program_to_our_packages_or_to_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    names = ("PYTHONPATH", "HF_HUB_OFFLINE", "IROPE_WATCHED")
    show = f"import os, json; print(json.dumps({{n: os.environ.get(n) for n in {names}}}))"
    assert list_messages([sys.executable, "-c", show], tmp_path) == [dict(zip(names, (None, "1", "1"), strict=True))]


Change = Callable[[Run], dict[str, Any]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: {"python": None}, "set sys.systems.fake.python to the Python of that environment"),
        (lambda run: {"repo": ""}, "set sys.systems.fake.repo to your checkout of example.org/fake"),
        (lambda run: {"pyton": "x"}, "sys.systems.fake has no key 'pyton'; did you mean 'python'"),
        (
            lambda run: {"python": "/no/python"},
            "sys.systems.fake.python=/no/python does not exist; expected the bin/python",
        ),
        (lambda run: {"python": str(run.repo / "entry.py")}, "entry.py is not an executable file"),
        (lambda run: {"python": str(run.repo)}, "repo is not an executable file"),
        (lambda run: {"repo": str(run.work)}, "work holds no entry.py; expected a checkout of example.org/fake"),
        (lambda run: {"silence_s": 0}, "sys.systems.fake.silence_s=0 is not valid; expected seconds above 0"),
        (lambda run: {"limit_s": "9"}, "sys.systems.fake.limit_s='9' is not valid"),
    ],
)
def test_an_environment_that_is_not_there(run: Run, change: Change, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Fake().digest(Place(own=run.own | change(run)))


def test_the_digest_is_of_code_and_weights(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = Place(weights=tmp_path / "weights", own=run.own)
    folder = tmp_path / "weights" / "owner" / "fake"
    with pytest.raises(WeightsError, match=rf"hf download owner/fake --include '\*.bin' --local-dir {folder}"):
        Fake().digest(place)
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"weights")
    first = Fake().digest(place)
    assert Fake().digest(replace(place, device="cuda")) == first
    (run.repo / "entry.py").write_text("x = 1")
    second = Fake().digest(place)
    assert second["weights"] == first["weights"]
    assert second["code"] != first["code"]
    (folder / "b.bin").write_bytes(b"more")
    assert Fake().digest(place)["weights"] != first["weights"]
    moved = replace(place, own=run.own | {"weights": str(folder)}, weights=Path("elsewhere"))
    assert Fake().digest(moved) == Fake().digest(place)
