"""The faults themselves: what is done to the workers and files of a `irope.faults.Stage`, one function a fault."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from irope.claims import FOLDER
from irope.config import Settings
from irope.faults import Outcome, Stage, Task, undisturbed
from irope.jobs import VideoJob

DAY = 86_400
SUFFIXES = (".mp4", ".mkv", ".mp4", ".mkv")
HEARTBEAT, STALE = 0.2, 1.0
"""Seconds, where a fault is about claims of another host; ten and sixty in real runs."""

CASES = {
    "kill -9": "killed",
    "disk full": "full_disk",
    "read-only folder": "read_only",
    "corrupt sidecar": "corrupt_sidecar",
    "truncated video": "truncated_video",
    "clock jumps": "clock_jumps",
    "stale claim": "stale_claim",
    "two hosts": "two_hosts",
}
"""Every fault, and the method of `Faults` that does it."""


@dataclass(frozen=True)
class Faults:
    """All faults, on one set of videos.

    Attributes:
        seconds: of work per video, measured; moments are drawn from multiples of it.
        kills: how many workers are killed, of ``workers`` at a time.
        sleepers: how many owners are stopped in the middle of a video.
    """

    folder: Path
    reference: Stage
    seconds: float
    kills: int = 50
    workers: int = 4
    sleepers: int = 5
    seed: int = 0

    def run(self) -> Iterator[Outcome]:
        """Do all of it, one fault after the other."""
        for fault, method in CASES.items():
            try:
                yield getattr(self, method)()
            except Exception as error:  # the table is to show the other faults as well
                yield Outcome(fault, "the check itself failed", "", (f"{type(error).__name__}: {error}",))

    def killed(self) -> Outcome:
        """Workers are killed at random moments of their life, and replaced; as many rounds as the kills need."""
        draw, kills, owners, rounds, problems = random.Random(self.seed), 0, 0, 0, list[str]()

        def moment() -> float:
            return time.monotonic() + draw.uniform(0, 3 * self.seconds)

        while kills < self.kills:
            stage, rounds = self._stage(f"kill-{rounds}"), rounds + 1
            crew = [(stage.start(), moment()) for _ in range(self.workers)]
            while kills < self.kills and not stage.complete():
                number = min(range(len(crew)), key=lambda i: crew[i][1])
                process, due = crew[number]
                if time.monotonic() < due:
                    time.sleep(0.01)
                    continue
                if process.is_alive():
                    holders = {held.worker.rpartition(":")[2] for held in stage.held()}
                    process.kill()
                    process.join()
                    kills += 1
                    owners += str(process.pid) in holders
                    stage.look()
                crew[number] = (stage.start(), moment())
            stage.wait(*(process for process, _ in crew))
            stage.end()
            problems += stage.problems
        stage.problems[:] = problems
        return stage.outcome(
            "kill -9",
            f"{kills} kills at random moments over {self.workers} workers, {owners} of them in the middle of a video",
            f"{rounds} × {self._all(stage)}",
        )

    def full_disk(self) -> Outcome:
        """The disk has room for half of the videos; then it grows."""
        folder = self.folder / "full"
        size = sum(path.stat().st_size for path in self.reference._finals()) // 2
        with _mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs") as mounted:
            stage = self._stage("full")
            if mounted:
                done = f"a tmpfs of {size / 1e6:.1f} MB, half of what the videos need"
                stage.run(2)
            else:
                limit = min(path.stat().st_size for path in self.reference._finals() if path.suffix == ".mkv") // 2
                done = f"no file above {limit} bytes (RLIMIT_FSIZE: no tmpfs may be mounted here)"
                stage.run(2, file_limit=limit)
            before, failures = stage.look(), stage.events("failed")
            words = ("disk is full", "No space left") if mounted else ("file is too large", "File too large")
            if not failures or not any(word in failure["why"] for failure in failures for word in words):
                stage.problems.append(f"no worker said that the disk is full: {failures[-1:]}")
            if mounted:
                subprocess.run(["mount", "-o", f"remount,size={size * 8}", str(folder)], check=True)
            stage.end()
        return stage.outcome(
            "disk full", done, f"{before} finished before, {len(failures)} refused; with space again {self._all(stage)}"
        )

    def read_only(self) -> Outcome:
        """The folder turns read-only when half of the videos are there."""
        stage = self._stage("read-only")
        half = len(stage.jobs) // 2
        self._copy(stage, stage.jobs[:half])
        with _mounted(stage.out, "--bind", str(stage.out)) as mounted:
            mounted = mounted and _mount("-o", "remount,ro,bind", str(stage.out))
            codes = stage.run(2, read_only="" if mounted else str(stage.out))
            before = stage.look()
        if before != half or codes != [1, 1] or "ead-only" not in str(stage.events("failed")):
            stage.problems.append(f"{before} videos, exit codes {codes}, errors {stage.events('failed')[-1:]}")
        stage.end()
        how = "a read-only bind mount" if mounted else "EROFS injected (no bind mount may be made here)"
        return stage.outcome(
            "read-only folder", f"{how} after {half} videos", f"refused with a message; then {self._all(stage)}"
        )

    def corrupt_sidecar(self) -> Outcome:
        """Sidecars are emptied, cut, filled with noise, and given another video's key."""
        stage = self._stage("sidecar")
        self._copy(stage, stage.jobs)
        damaged = stage.jobs[:4]
        damages: tuple[Callable[[bytes], bytes], ...] = (
            lambda content: b"",
            lambda content: content[: len(content) // 2],
            lambda content: random.Random(self.seed).randbytes(len(content)),
            lambda content: content.replace(stage.jobs[3].key.encode(), stage.jobs[0].key.encode()),
        )
        for job, damage in zip(damaged, damages, strict=False):
            job.sidecar.write_bytes(damage(job.sidecar.read_bytes()))
        return self._made_again(stage, damaged, "corrupt sidecar", "empty, half, random bytes, another video's key")

    def truncated_video(self) -> Outcome:
        """An mp4 and a lossless companion are cut, another is emptied, one removed."""
        stage = self._stage("truncated")
        self._copy(stage, stage.jobs)
        damaged = stage.jobs[:4]
        files = [job.stem.with_name(f"{job.stem.name}{suffix}") for job, suffix in zip(damaged, SUFFIXES, strict=False)]
        for file, share in zip(files, (0.5, 1.0, 0.0), strict=False):
            os.truncate(file, max(0, int(file.stat().st_size * share) - 1))
        for file in files[3:]:
            file.unlink()
        return self._made_again(
            stage, damaged, "truncated video", "mp4 cut in half, companion one byte short, mp4 empty, companion gone"
        )

    def clock_jumps(self) -> Outcome:
        """The time stamp of every claim is moved by a day, back or forth, while two hosts work; one of them dies."""
        draw, stage = random.Random(self.seed), self._stage("clock")
        moved: set[Path] = set()
        dead = stage.start(host="dead", heartbeat=HEARTBEAT, stale=STALE)
        self._until(lambda: any(held.worker.startswith("dead") for held in stage.held()), dead.is_alive)
        dead.kill()
        crew = [stage.start(host=host, heartbeat=HEARTBEAT, stale=STALE) for host in ("east", "west")]
        while any(process.is_alive() for process in crew):
            for file in set(stage.out.glob(f"{FOLDER}/*/owner-*.json")) - moved:
                stamp = time.time() + draw.choice((-DAY, DAY))
                try:
                    os.utime(file, (stamp, stamp))
                except FileNotFoundError:
                    continue
                moved.add(file)
            time.sleep(0.02)
        codes = stage.wait(*crew)
        lost = len(stage.events("lost"))
        if any(codes) or lost or not moved:
            stage.problems.append(f"exit codes {codes}, {lost} claims of living workers were taken")
        stage.look()
        stage.end()
        return stage.outcome(
            "clock jumps",
            f"{len(moved)} claims moved by a day, back or forth; 2 hosts at work, a third one dead",
            f"no living worker lost its claim, the dead one's was taken over; {self._all(stage)}",
        )

    def stale_claim(self) -> Outcome:
        """An owner is stopped in the middle of a video, another host finishes it, and the owner wakes up."""
        draw, problems, lost, done = random.Random(self.seed), list[str](), 0, 0
        stage = self.reference
        for attempt in range(10 * self.sleepers):
            if done == self.sleepers:
                break
            stage = self._stage(f"stale-{attempt}", videos=4)
            sleeper = stage.start(host="asleep", heartbeat=HEARTBEAT, stale=STALE)
            if not self._put_to_sleep(stage, sleeper, draw):
                continue  # too quick for us
            done += 1
            stage.run(host="awake", heartbeat=HEARTBEAT, stale=STALE)
            if (count := stage.look()) != len(stage.jobs):
                stage.problems.append(f"only {count} videos were finished while the owner slept")
            _send(sleeper, signal.SIGCONT)
            stage.wait(sleeper)
            stage.look()
            lost += len(stage.events("lost"))
            stage.end()
            problems += stage.problems
        stage.problems[:] = problems + ["too few owners could be stopped"] * (done < self.sleepers)
        return stage.outcome(
            "stale claim",
            f"{done} owners stopped (SIGSTOP) in the middle of a video, continued after another host was done",
            f"{lost} of {done} woke up to a lost claim and published nothing; each time {self._all(stage)}",
        )

    def two_hosts(self) -> Outcome:
        """Two workers on each of two hosts; all of one host are killed."""
        stage = self._stage("hosts")
        crew = [stage.start(host=host, heartbeat=HEARTBEAT, stale=STALE) for host in ("a", "a", "b", "b")]
        self._until(lambda: sum(held.worker.startswith("b:") for held in stage.held()) == 2, crew[2].is_alive)
        left = sum(held.worker.startswith("b:") for held in stage.held())
        for process in crew[2:]:
            process.kill()
        stage.look()
        if any(stage.wait(*crew[:2])) or not stage.complete():
            stage.problems.append(f"the host that is left has not finished: {stage.events('failed')[-1:]}")
        stage.look()
        stage.end()
        return stage.outcome(
            "two hosts",
            f"2 workers on each, one host killed with {left} videos under way",
            f"the other one finished them after {STALE:g} s of silence; {self._all(stage)}",
        )

    def _stage(self, name: str, videos: int | None = None) -> Stage:
        task = self.reference.task
        videos = min(videos or task.videos, task.videos)
        return Stage(self.folder / name, Task(task.config, videos, ""), self.reference.expected)

    def _copy(self, stage: Stage, jobs: Sequence[VideoJob]) -> None:
        """Put finished videos of the undisturbed run into a stage."""
        names = {job.stem.name for job in jobs}
        for path in self.reference._finals():
            if path.stem in names:
                place = stage.out / path.relative_to(self.reference.out)
                place.parent.mkdir(exist_ok=True)
                shutil.copy2(path, place)
        stage.look()

    def _made_again(self, stage: Stage, damaged: list[VideoJob], fault: str, done: str) -> Outcome:
        if any(job.done for job in damaged):
            stage.problems.append("a damaged video counts as finished")
        stage.forget(damaged)
        stage.run()
        again = len(stage.events("made"))
        stage.look()
        stage.end()
        if again != len(damaged):
            stage.problems.append(f"{again} videos were made again, {len(damaged)} were damaged")
        return stage.outcome(fault, done, f"{again} made again, the others left alone; {self._all(stage)}")

    def _put_to_sleep(self, stage: Stage, process: BaseProcess, draw: random.Random) -> bool:
        """Stop a worker at a random moment while it has a claim; False if it came to its end before."""
        while process.is_alive():
            self._until(lambda: bool(stage.held()), process.is_alive)
            time.sleep(draw.uniform(0, self.seconds / 2))
            _send(process, signal.SIGSTOP)
            if process.is_alive() and stage.held():
                return True
            _send(process, signal.SIGCONT)
        return False

    @staticmethod
    def _all(stage: Stage) -> str:
        return f"{len(stage.jobs)} of {len(stage.jobs)} videos" if not stage.problems else "see below"

    @staticmethod
    def _until(true: Callable[[], bool], alive: Callable[[], bool]) -> None:
        while not true() and alive():
            time.sleep(0.005)


def check_faults(folder: Path, config: Settings, videos: int, **options: int) -> Iterator[Outcome]:
    """Make the undisturbed run and do every fault. Raises UserError if not even that run works."""
    reference, seconds = undisturbed(folder / "undisturbed", config, videos)
    yield from Faults(folder, reference, seconds, **options).run()


def _send(process: BaseProcess, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(process.pid or 0, number)


def _mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def _mounted(folder: Path, *arguments: str) -> Iterator[bool]:
    """Mount something on ``folder`` for a while; False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _mount(*arguments, str(folder)):
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
