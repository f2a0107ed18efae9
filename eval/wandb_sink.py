"""Results go to Weights & Biases from disk, whenever asked and as often as asked, and nothing depends on it.

Runs are sent one after the other by a process of its own. What was sent is written down after each, in a ledger beside
the report: the same command again sends what is missing or has changed, and no more. Offline, a run is a folder that
``wandb sync`` uploads later; a new one takes the place of the old.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from eval.wandb_client import CONNECT_SECONDS, NEEDS, ClientError, data_name, installed, send_run
from eval.wandb_content import Content
from irope.provenance import write_json_atomic

LEDGER = "sent.json"
SILENCE_SECONDS = 600.0
"""Without a finished run for this long, the client is given up."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sent:
    """What became of it: counts of runs; ``problem`` is one line if not all were sent, else empty."""

    new: int
    kept: int
    problem: str = ""


def send(
    runs: Sequence[Content],
    folder: Path,
    *,
    online: bool = False,
    say: Say = lambda _: None,
    connect: float = CONNECT_SECONDS,
    silence: float = SILENCE_SECONDS,
) -> Sent:
    """Send those of ``runs`` that were not sent, or have changed since.

    Args:
        folder: of the ledger, and of the offline runs.
        say: told a line for each run that is sent.
        connect: seconds to reach the server; ``silence``: seconds after which a client that says nothing is given up.

    Never raises for anything that W&B does: the returned `Sent` says what happened, and the same call continues.
    """
    ledger = Ledger(folder)
    todo = [(run, digest) for run in runs if not ledger.holds(run.id, digest := run.digest, online)]
    kept = len(runs) - len(todo)
    if not todo:
        return Sent(0, kept)
    if not installed():
        return Sent(0, kept, f"wandb is not installed; run: {NEEDS}")
    done = 0
    try:
        for run, place in _by_process([run for run, _ in todo], folder, online, connect, silence):
            ledger.note(run.id, todo[done][1], place, online)
            done += 1
            say(f"{run.name}{': ' if run.notes else ''}{', '.join(run.notes)}")
    except (ClientError, OSError) as error:
        return Sent(done, kept, " ".join(str(error).split()))
    return Sent(done, kept)


class Ledger:
    """What was sent: run id -> digest of its content, where to, and the folder of an offline run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            found = json.loads((folder / LEDGER).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # gone or damaged: all is sent again, to the same ids
            found = {}
        self.entries: dict[str, Any] = found if isinstance(found, dict) else {}

    def holds(self, run: str, digest: str, online: bool) -> bool:
        """Whether this content was sent there; an offline run must still be there, unless it went online since."""
        entry = self.entries.get(run)
        if not isinstance(entry, dict) or entry.get("digest") != digest or entry.get("target") != _target():
            return False
        if entry.get("online"):
            return True
        return not online and isinstance(entry.get("folder"), str) and (self.folder / entry["folder"]).is_dir()

    def note(self, run: str, digest: str, place: Path | None, online: bool) -> None:
        """Write down that a run was sent; only then older offline runs with its id are removed."""
        folder = None if place is None else place.relative_to(self.folder).as_posix()
        self.entries[run] = {"digest": digest, "online": online, "target": _target(), "folder": folder}
        write_json_atomic(self.folder / LEDGER, self.entries)
        needed = {place, None if online else self.folder / data_name(run, digest)}
        for old in (*(self.folder / "wandb").glob(f"*run-*-{run}"), *self.folder.glob(data_name(run, "*"))):
            if old not in needed:
                shutil.rmtree(old, ignore_errors=True)


def _target() -> str:
    return "/".join(
        (
            os.environ.get("WANDB_BASE_URL", ""),
            os.environ.get("WANDB_ENTITY", ""),
            os.environ.get("WANDB_PROJECT", "irope"),
        )
    )


def _by_process(runs: Sequence[Content], folder: Path, online: bool, connect: float, silence: float) -> Any:
    """Yield (run, its offline folder) as a child process sends them.

    Raises:
        ClientError: the client failed, died or was silent for too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(list(runs), folder, online, connect, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        for run in runs:
            if not ours.poll(silence):
                child.kill()
                raise ClientError(f"nothing heard from the client for {silence:.0f} s")
            try:
                problem, place = ours.recv()
            except EOFError as error:
                raise ClientError(f"the client died; its last words are in {folder / 'client.log'}") from error
            if problem:
                raise ClientError(problem)
            yield run, place
    finally:
        ours.close()
        child.join(5)
        if child.is_alive():
            child.kill()
            child.join()


def _child(runs: list[Content], folder: Path, online: bool, connect: float, to: Connection) -> None:
    """Send the runs, a message for each; what the client prints goes to a file."""
    with (folder / "client.log").open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
        try:
            for run in runs:
                to.send(("", send_run(run, folder, online, connect)))
        except (ClientError, OSError) as error:
            with suppress(OSError):
                to.send((str(error), None))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            to.close()
            os._exit(0)  # the client's own handlers at exit may wait for a service that has died
