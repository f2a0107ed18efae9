"""Claims in a shared folder: one owner at a time, whoever dies, sleeps or has a wrong clock."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from irope import claims as module
from irope.claims import Claim, ClaimLost, Claims, Process

KEY = "0123456789abcdef0123"
DAY = 86_400
CONTEXT = multiprocessing.get_context("fork")  # cheap: nothing heavy is loaded here


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The observer's monotonic clock, in seconds, to be set by hand."""
    now = [1000.0]

    class Time:
        monotonic = staticmethod(lambda: now[0])
        sleep, time = staticmethod(time.sleep), staticmethod(time.time)

    monkeypatch.setattr(module, "time", Time)
    return now


def elsewhere(out: Path, host: str = "far", **options: float) -> Claims:
    """A worker of another host, as far as its claims tell."""
    claims = Claims(out, **options)
    claims.process = replace(claims.process, host=host, boot=f"boot of {host}")
    claims.worker = f"{host}:{claims.process.pid}"
    return claims


def taken(claims: Claims, key: str = KEY) -> Claim:
    claim = claims.take(key)
    assert claim is not None
    return claim


def owner(out: Path, number: int = 1) -> Path:
    return out / ".work" / KEY / f"owner-{number}.json"


def run_in_process(function: Callable[[], None], sign: signal.Signals = signal.SIGKILL) -> None:
    process = CONTEXT.Process(target=function)
    process.start()
    process.join()
    assert process.exitcode == -sign


def test_one_owner_at_a_time_and_the_folder_goes_when_it_is_done(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    claim = taken(first)
    assert claim.work.is_dir()
    claim.check()
    assert second.take(KEY) is None
    assert first.take(KEY) is None
    (claim.work / "part").write_text("half")
    claim.release(done=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ClaimLost):
        claim.check()
    assert list(taken(second).work.iterdir()) == []


def test_an_interrupted_owner_hands_its_files_on(tmp_path: Path) -> None:
    claim = taken(Claims(tmp_path))
    (claim.work / "checkpoint").write_text("block 20")
    claim.release(done=False)
    again = taken(elsewhere(tmp_path))  # no need to wait: it was given back
    assert (again.work / "checkpoint").read_text() == "block 20"
    assert not claim.work.exists()
    with pytest.raises(ClaimLost, match=KEY):
        claim.check()


@pytest.mark.parametrize("done", [True, False])
def test_a_former_owner_takes_nothing_away(tmp_path: Path, clock: list[float], done: bool) -> None:
    old = taken(elsewhere(tmp_path))
    here = Claims(tmp_path)
    assert here.take(KEY) is None
    clock[0] += 60
    new = taken(here)
    old.release(done=done)
    new.check()
    assert new.work.is_dir()
    assert Claims(tmp_path).take(KEY) is None


def test_a_killed_owner_on_this_host_is_replaced_at_once(tmp_path: Path) -> None:
    def work() -> None:
        (taken(Claims(tmp_path)).work / "checkpoint").write_text("block 20")
        os.kill(os.getpid(), signal.SIGKILL)

    run_in_process(work)
    assert (taken(Claims(tmp_path)).work / "checkpoint").read_text() == "block 20"


def test_a_killed_owner_that_nobody_has_waited_for_counts_as_dead(tmp_path: Path) -> None:
    process = CONTEXT.Process(target=lambda: (taken(Claims(tmp_path)), os.kill(os.getpid(), signal.SIGKILL)))
    process.start()
    os.waitid(os.P_PID, process.pid or 0, os.WEXITED | os.WNOWAIT)  # a zombie: its entry in /proc is still there
    try:
        taken(Claims(tmp_path))
    finally:
        process.join()


def test_a_reused_pid_is_another_process(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    claims.process = replace(claims.process, start=claims.process.start - 5)  # one that had our pid before us
    taken(claims)
    taken(Claims(tmp_path))


@pytest.mark.parametrize("field", ["host", "boot", "namespace"])
def test_a_pid_of_another_system_says_nothing(tmp_path: Path, clock: list[float], field: str) -> None:
    claims = Claims(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    claims.process = replace(claims.process, pid=gone.pid, **{field: "another"})
    taken(claims)
    here = Claims(tmp_path)
    assert here.take(KEY) is None
    clock[0] += 59
    assert here.take(KEY) is None
    clock[0] += 1
    taken(here)


def test_this_process_is_not_gone() -> None:
    here = Process.here()
    assert here.start > 0
    assert here == Process.here()
    assert not here.gone(here)


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_clocks_that_jump_neither_keep_nor_kill_a_claim(tmp_path: Path, clock: list[float], jump: int) -> None:
    taken(elsewhere(tmp_path))
    here = Claims(tmp_path)
    assert here.take(KEY) is None
    now = time.time()
    os.utime(owner(tmp_path), (now + jump, now + jump))  # the file server's clock is set
    clock[0] += 59
    assert here.take(KEY) is None  # looks like a sign of life
    clock[0] += 59
    assert here.take(KEY) is None
    clock[0] += 1
    taken(here)


def test_an_observer_that_starts_late_waits_the_whole_time(tmp_path: Path, clock: list[float]) -> None:
    taken(elsewhere(tmp_path))
    os.utime(owner(tmp_path), (1, 1))  # since 1970, but nobody has watched
    late = Claims(tmp_path)
    assert late.take(KEY) is None
    clock[0] += 59.9
    assert late.take(KEY) is None


def test_the_heartbeat_keeps_a_claim_and_ends_with_it(tmp_path: Path) -> None:
    claims = elsewhere(tmp_path, heartbeat=0.02, stale=0.06)
    claim = taken(claims)
    stamps = {owner(tmp_path).stat().st_mtime_ns}
    while len(stamps) < 5:
        stamps.add(owner(tmp_path).stat().st_mtime_ns)
    claim.release(done=False)
    while claims._thread is not None:
        time.sleep(0.01)
    before = owner(tmp_path).stat().st_mtime_ns
    time.sleep(0.1)
    assert owner(tmp_path).stat().st_mtime_ns == before
    taken(claims, "another")  # starts it again
    assert claims._thread is not None


def test_a_heartbeat_never_touches_the_file_of_another_owner(tmp_path: Path) -> None:
    old = taken(Claims(tmp_path))
    record = json.loads(owner(tmp_path).read_text())
    owner(tmp_path).write_text(json.dumps(record | {"token": "0" * 16}))
    before = owner(tmp_path).stat().st_mtime_ns
    time.sleep(0.02)
    old._touch()
    assert owner(tmp_path).stat().st_mtime_ns == before
    with pytest.raises(ClaimLost):
        old.check()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": "x"}', '{"process": 5}'])
def test_a_claim_that_cannot_be_read_is_somebodys_until_it_is_stale(
    tmp_path: Path, clock: list[float], content: str
) -> None:
    """A worker may be between creating and writing it."""
    owner(tmp_path).parent.mkdir(parents=True)
    owner(tmp_path).write_text(content)
    claims = Claims(tmp_path)
    assert claims.take(KEY) is None
    assert claims.held() == []
    clock[0] += 60
    assert taken(claims).work.name == "gen-2"


def test_a_sleeper_finds_its_folder_gone(tmp_path: Path, clock: list[float]) -> None:
    """Between any two steps of the old owner: what it still does by path fails, what it has open is not read again."""
    old = taken(elsewhere(tmp_path))
    final = tmp_path / "video.mp4"
    (old.work / "video.mp4").write_text("of the old owner")
    here = Claims(tmp_path)
    here.take(KEY)
    clock[0] += 60
    new = taken(here)
    with pytest.raises(FileNotFoundError):
        (old.work / "video.mp4").rename(final)
    with pytest.raises(FileNotFoundError):
        (old.work / "another").write_text("late")
    assert not final.exists()
    new.check()


def test_a_slow_taker_with_old_information_is_no_second_owner(tmp_path: Path, clock: list[float]) -> None:
    """It saw claim 1 stale, slept, and goes on when claim 2 was taken, given back, taken again, or is done."""
    taken(elsewhere(tmp_path))
    slow, quick = Claims(tmp_path), Claims(tmp_path)
    assert slow.take(KEY) is None
    assert quick.take(KEY) is None
    clock[0] += 60
    folder = owner(tmp_path).parent
    with module._opened(folder) as place:  # what it holds since it looked
        second = taken(quick)
        assert slow._own(folder, place, 2, "") is None
        second.release(done=False)
        assert slow._own(folder, place, 2, "") is None
        third = taken(quick)
        assert slow._own(folder, place, 2, "") is None
        owner(tmp_path, 2).unlink()  # even if it can create an old one
        assert slow._own(folder, place, 2, "") is None
        third.check()
        third.release(done=True)
        with pytest.raises(FileNotFoundError):
            slow._own(folder, place, 2, "")
        anew = taken(quick)
        with pytest.raises(FileNotFoundError):
            slow._own(folder, place, 2, "")
        anew.check()


def test_an_owner_that_stopped_before_it_had_its_folder(tmp_path: Path) -> None:
    first = taken(Claims(tmp_path))
    (first.work / "checkpoint").write_text("block 20")
    first.release(done=False)
    owner(tmp_path, 2).write_text(json.dumps(json.loads(owner(tmp_path).read_text()) | {"token": "free"}))
    (owner(tmp_path).parent / "free-free").touch()
    third = taken(Claims(tmp_path))
    assert third.work.name == "gen-3"
    assert (third.work / "checkpoint").read_text() == "block 20"


def race(out: Path, takers: int, spread: float) -> int:
    """How many of the takers (threads of 4 processes) get the key."""
    start, wins = CONTEXT.Barrier(takers), CONTEXT.Value("i", 0)

    def process(number: int) -> None:
        claims = [Claims(out) for _ in range(takers // 4)]  # all before the first: the heartbeats last

        def take(mine: Claims, wait: float) -> None:
            start.wait()
            time.sleep(wait)
            if mine.take(KEY):
                with wins.get_lock():
                    wins.value += 1

        draw = random.Random(number)
        threads = [threading.Thread(target=take, args=(mine, draw.uniform(0, spread))) for mine in claims]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.wait()  # the winner must live until everybody has tried

    done = CONTEXT.Barrier(4)
    processes = [CONTEXT.Process(target=process, args=(number,)) for number in range(4)]
    for one in processes:
        one.start()
    for one in processes:
        one.join()
    return int(wins.value)


@pytest.mark.parametrize("before", ["nothing", "given back", "killed", "silent"])
@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_exactly_one_of_a_hundred_takers_wins(
    tmp_path: Path, before: str, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before == "given back":
        taken(Claims(tmp_path)).release(done=False)
    elif before == "killed":
        run_in_process(lambda: (taken(Claims(tmp_path)), os.kill(os.getpid(), signal.SIGKILL)))  # type: ignore[arg-type]
    elif before == "silent":
        taken(elsewhere(tmp_path))
        ever = {KEY: (1, owner(tmp_path).stat().st_mtime_ns, -1e9)}
        fresh = Claims.__init__
        monkeypatch.setattr(Claims, "__init__", lambda self, out: (fresh(self, out), self._seen.update(ever))[0])
    assert race(tmp_path, 100, spread) == 1


def test_workers_that_take_and_give_back_are_never_two_in_the_room(tmp_path: Path) -> None:
    """Four processes work through 30 keys, giving back or finishing at random; a lock file shows whoever is inside."""
    trouble = CONTEXT.Value("i", 0)
    finished = CONTEXT.Value("i", 0)

    def work(number: int) -> None:
        draw, claims = random.Random(number), Claims(tmp_path / "out")
        todo = [f"key{i}" for i in range(30)]
        while todo:
            key = draw.choice(todo)
            if (tmp_path / f"{key}.done").exists():
                todo.remove(key)
            elif claim := claims.take(key):
                room = tmp_path / f"{key}.room"
                try:
                    os.close(os.open(room, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    trouble.value += 1
                claim.check()
                time.sleep(draw.uniform(0, 0.002))
                done = draw.random() < 0.3 and not (tmp_path / f"{key}.done").exists()
                if done:
                    (claim.work / "final").write_text(str(os.getpid()))
                    (claim.work / "final").rename(tmp_path / f"{key}.done")
                    with finished.get_lock():
                        finished.value += 1
                room.unlink()
                claim.release(done=done)

    processes = [CONTEXT.Process(target=work, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (trouble.value, finished.value) == (0, 30)


def test_held_names_who_works_on_what(tmp_path: Path) -> None:
    assert Claims(tmp_path).held() == []
    far = elsewhere(tmp_path, "node7")
    assert far.take("aa", "infinity_rope/ball-seed0") is not None
    taken(Claims(tmp_path), "bb").release(done=False)
    run_in_process(lambda: (taken(Claims(tmp_path), "cc"), os.kill(os.getpid(), signal.SIGKILL)))  # type: ignore[arg-type]
    (held,) = Claims(tmp_path).held()
    assert (held.key, held.name, held.worker) == ("aa", "infinity_rope/ball-seed0", f"node7:{os.getpid()}")
    assert abs(held.since - time.time()) < 60
    assert 0 <= held.silent_for < 60
    stamp = time.time() - 300
    os.utime(tmp_path / ".work" / "aa" / "owner-1.json", (stamp, stamp))
    assert 299 < Claims(tmp_path).held()[0].silent_for < 360
    assert Claims(tmp_path).leftovers() == ["aa", "bb", "cc"]
    assert not [path.name for path in (tmp_path / ".work").iterdir() if path.name.startswith(".")]


def test_what_a_killed_remover_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".work" / ".gone-12" / "gen-1").mkdir(parents=True)
    assert Claims(tmp_path).leftovers() == []
    assert not list(tmp_path.iterdir())


def test_a_record_that_cannot_be_written_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.json, "dump", full)
    with pytest.raises(OSError, match="No space"):
        Claims(tmp_path).take(KEY)
    monkeypatch.undo()
    taken(Claims(tmp_path))


def test_a_stale_time_below_three_heartbeats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="three heartbeats"):
        Claims(tmp_path, heartbeat=10, stale=20)
