"""Who works on what: claims in a shared folder, by any number of processes on any number of hosts.

    claims = Claims(out)                       # one per worker process
    if claim := claims.take(key):              # None: somebody else is at it
        ...                                    # write below claim.work, call claim.check() before anything is published
        claim.release(done=True)

A claim is two things below `<out>/.work/<key>/`: `owner-<n>.json`, created exclusively, where the highest n is the
owner, and the folder `gen-<n>/`, where that owner keeps what is unfinished. Whoever takes over creates owner-(n+1),
which only one can, and renames the folder to gen-(n+1). A former owner that was merely asleep finds its folder gone: it
can neither publish what it had nor write into the files of the new one.

An owner shows that it lives by touching its file. Clocks are never compared: an observer remembers the time stamp it
saw and calls a claim stale when that has not changed for a while of the observer's own monotonic clock.

The file system must give exclusive creation, atomic rename and close-to-open consistency (local disks, NFS, Lustre).
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

FOLDER = ".work"
_OWNER = re.compile(r"owner-(\d+)\.json")
_WORK = re.compile(r"gen-(\d+)")
_TRIES = 20  # a key's folder can vanish with a finished owner while it is looked at, but hardly over and over
_RECORD_BYTES = 1 << 16
_VANISHED = (errno.ENOENT, errno.ESTALE)


class ClaimLost(RuntimeError):  # noqa: N818 (what happened, not a mistake)
    """Another worker has taken over what this one was making, as it was silent for too long."""


@dataclass(frozen=True)
class Process:
    """A process among all hosts, boots and containers; `start` (clock ticks since boot) tells a reused pid apart."""

    host: str
    boot: str
    namespace: str
    pid: int
    start: int

    @classmethod
    def here(cls) -> Self:
        """This process."""
        boot = namespace = ""
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            namespace = str(Path("/proc/self/ns/pid").readlink())
        _, start = _process_state(os.getpid())
        return cls(socket.gethostname(), boot, namespace, os.getpid(), start)

    def gone(self, observer: Process) -> bool:
        """Whether it has certainly ended, which only an observer on the same system can know."""
        if not self.boot or asdict(self) | {"pid": 0, "start": 0} != asdict(observer) | {"pid": 0, "start": 0}:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # another user's
        state, start = _process_state(self.pid)
        return state in ("Z", "X") or (start != self.start and start != 0 and self.start != 0)


@dataclass(frozen=True)
class Held:
    """Somebody at work. `since` is a time as the file system says it; `silent_for` the seconds since the last sign."""

    key: str
    name: str
    worker: str
    since: float
    silent_for: float


class Claim:
    """A key that this worker owns until `release`; made by `Claims.take`.

    Attributes:
        work: folder of this owner alone, for everything unfinished; it starts with what the owner before left there.
    """

    def __init__(self, claims: Claims, folder: Path, number: int, token: str) -> None:
        self.key, self.work = folder.name, folder / f"gen-{number}"
        self._claims, self._folder, self._number, self._token = claims, folder, number, token
        self._file = folder / f"owner-{number}.json"

    def check(self) -> None:
        """Raises ClaimLost when another worker has taken over."""
        if not self._current():
            raise ClaimLost(f"another worker has taken over {self.key}: this one was silent for too long")

    def release(self, done: bool) -> None:
        """Give the key back: `done` removes its folder, otherwise the next owner finds it. Nothing if it was lost."""
        self._claims._forget(self)
        # What cannot be marked or removed now (a full disk) is found stale, or left over, later.
        with suppress(OSError):
            if not done:
                (self._folder / f"free-{self._token}").touch()
                return
            if not self._current():
                return
            # Renamed first: nobody may see, or create a claim in, a folder that is half removed.
            gone = self._folder.with_name(f".gone-{self._token}")
            self._folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            self._folder.parent.rmdir()  # if it was the last

    def _current(self) -> bool:
        try:
            names = _names(self._folder)
            record, _ = _read(str(self._file))
        except OSError as error:
            if error.errno in _VANISHED:
                return False
            raise
        newest = max(_numbers(_OWNER, names), default=0) == self._number
        return newest and self.work.name in names and record is not None and record["token"] == self._token

    def _touch(self) -> None:
        with suppress(OSError):  # a hanging server: try again; a lost claim: `check` tells
            descriptor = os.open(self._file, os.O_RDONLY)
            try:
                if self._token.encode() in os.read(descriptor, _RECORD_BYTES):
                    os.utime(descriptor)
            finally:
                os.close(descriptor)


class Claims:
    """The claims below `out` as one worker process sees them.

    Args:
        heartbeat: seconds between two signs of life.
        stale: seconds without one after which another host may take over; at least three heartbeats.
        worker: how `held` names this process; host:pid unless given.
    """

    def __init__(self, out: Path, heartbeat: float = 10.0, stale: float = 60.0, worker: str | None = None) -> None:
        if not 0 < heartbeat <= stale / 3:
            raise ValueError(f"a claim is stale after at least three heartbeats: heartbeat={heartbeat}, stale={stale}")
        self.root, self.heartbeat, self.stale = out / FOLDER, heartbeat, stale
        self.process = Process.here()
        self.worker = worker or f"{self.process.host}:{self.process.pid}"
        self._seen: dict[str, tuple[int, int, float]] = {}
        self._mine: dict[str, Claim] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        with suppress(OSError):  # what a worker left that was killed while it removed a folder; in use, it stays
            for gone in self.root.glob(".gone-*"):
                shutil.rmtree(gone, ignore_errors=True)
            self.root.rmdir()

    def take(self, key: str, name: str = "") -> Claim | None:
        """Become the owner of `key`; None while another living worker has it, or one not yet known to be dead.

        A dead owner on this system is seen at once, one elsewhere after calls over `stale` seconds. Look again, after
        this, whether the thing is made already: the former owner may have finished it.

        Raises OSError for what the file system refuses (read-only, full).
        """
        folder = self.root / key
        for _ in range(_TRIES):
            try:
                with suppress(FileExistsError):  # exist_ok would fail if it went right after that was found
                    folder.mkdir(parents=True)
                # Through one descriptor: a finished owner may remove the folder under our feet and somebody else make
                # it anew, and what was seen in the old one says nothing about the new one.
                with _opened(folder) as place:
                    names = os.listdir(place)  # noqa: PTH208 (a descriptor has no pathlib)
                    last = max(_numbers(_OWNER, names), default=0)
                    if last and not self._free(folder, place, last, names):
                        return None
                    return self._own(folder, place, last + 1, name)
            except OSError as error:
                if error.errno not in _VANISHED:
                    raise
        return None

    def held(self) -> list[Held]:
        """Who works on what now, without those known to be dead; by key."""
        found, now = [], self._now()
        for folder in self._folders():
            with suppress(FileNotFoundError):
                names = _names(folder)
                last = max(_numbers(_OWNER, names), default=0)
                if not last:
                    continue
                record, touched = _read(str(folder / f"owner-{last}.json"))
                if record is None or f"free-{record['token']}" in names or self._gone(record):
                    continue
                silent = max(0.0, now - touched / 1e9)
                found.append(Held(folder.name, record["name"], record["worker"], record["since"], silent))
        return found

    def leftovers(self) -> list[str]:
        """Every key with a folder: what is being made, was interrupted, or finished by a worker killed right then."""
        return [folder.name for folder in self._folders()]

    def _folders(self) -> list[Path]:
        with suppress(FileNotFoundError):
            return sorted(folder for folder in self.root.iterdir() if not folder.name.startswith("."))
        return []

    def _free(self, folder: Path, place: int, number: int, names: Iterable[str]) -> bool:
        record, touched = _read(f"owner-{number}.json", place)
        if record is not None and (f"free-{record['token']}" in names or self._gone(record)):
            return True
        now, seen = time.monotonic(), self._seen.get(folder.name)
        if seen is None or seen[:2] != (number, touched):
            self._seen[folder.name] = (number, touched, now)
            return False
        return now - seen[2] >= self.stale

    def _gone(self, record: dict[str, Any]) -> bool:
        return Process(**record["process"]).gone(self.process)

    def _own(self, folder: Path, place: int, number: int, name: str) -> Claim | None:
        claim = Claim(self, folder, number, secrets.token_hex(8))
        try:
            descriptor = os.open(claim._file.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666, dir_fd=place)
        except FileExistsError:
            return None  # another taker was faster
        self._seen.pop(folder.name, None)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                since = os.fstat(descriptor).st_mtime
                record = {"token": claim._token, "name": name, "worker": self.worker, "since": since}
                json.dump(record | {"process": asdict(self.process)}, file)
        except OSError:
            with suppress(OSError):  # an owner that nobody can read would have to become stale first
                os.unlink(claim._file.name, dir_fd=place)
            raise
        try:
            mine = self._fence(claim, place) and claim._current()
        except OSError:
            claim.release(done=False)
            raise
        if not mine:
            claim.release(done=False)
            return None
        with self._lock:
            self._mine[claim.key] = claim
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="irope-claims", daemon=True)
                self._thread.start()
        return claim

    def _fence(self, claim: Claim, place: int) -> bool:
        """Turn the folder of the owner before into the claim's; False if somebody newer is there already."""
        while True:
            names = os.listdir(place)
            if max(_numbers(_OWNER, names), default=0) != claim._number:
                return False
            older = [number for number in _numbers(_WORK, names) if number < claim._number]
            if not older:
                os.mkdir(claim.work.name, dir_fd=place)
                return True
            try:
                os.rename(f"gen-{older[-1]}", claim.work.name, src_dir_fd=place, dst_dir_fd=place)
                return True
            except FileNotFoundError:
                time.sleep(0.01)  # a slow taker before us has just renamed it, or the listing was old: look again

    def _forget(self, claim: Claim) -> None:
        with self._lock:
            if self._mine.get(claim.key) is claim:
                del self._mine[claim.key]

    def _beat(self) -> None:
        while True:
            time.sleep(self.heartbeat)
            with self._lock:
                claims = list(self._mine.values())
                if not claims:
                    self._thread = None
                    return
            for claim in claims:
                claim._touch()

    def _now(self) -> float:
        """The clock that stamps the files, which may be another host's; ours where nothing can be written."""
        probe = self.root / f".now-{secrets.token_hex(4)}"
        try:
            probe.touch()
            now = probe.stat().st_mtime
            probe.unlink()
        except OSError:
            return time.time()
        return now


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _numbers(pattern: re.Pattern[str], names: Iterable[str]) -> list[int]:
    return sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)))


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield place
    finally:
        os.close(place)


def _read(path: str, place: int | None = None) -> tuple[dict[str, Any] | None, int]:
    """The record of an owner, None while it is being written, and when it was touched (ns, of the file system)."""
    descriptor = os.open(path, os.O_RDONLY, dir_fd=place)  # opening makes NFS ask the server, which a stat may not
    with os.fdopen(descriptor, "rb") as file:
        content, touched = file.read(_RECORD_BYTES), os.fstat(descriptor).st_mtime_ns
    try:
        record = json.loads(content)
        Process(**record["process"])
        return record if {"token", "name", "worker", "since"} <= record.keys() else None, touched
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, touched


def _process_state(pid: int) -> tuple[str, int]:
    """State letter and start time (clock ticks since boot) of a process; empty and 0 where that cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return "", 0
