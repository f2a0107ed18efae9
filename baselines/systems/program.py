"""A program of another project as a child process, in the user's own environment of that project.

    with Program("NOVA", command, cwd=repo, log=work / "program.log", silence=1800) as program:
        for message in program.messages():      # None now and then, to look at the clock
            ...

The program answers with JSON objects, one a line, on its standard output; each is a sign of life, and so is a line that
is none of them, which goes to the log with everything it writes to its standard error. It runs in a process group of
its own. When the `with` block is left, for whatever reason, nothing of that group is left running.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import IO, Any, Self

from irope.systems import SystemFailedError

TAIL = 200
"""Lines of the log that a failure record keeps."""
WATCHED = "IROPE_WATCHED"
"""Set for the program: its standard input ends when we are gone, however that happened, and then it is to end too."""

_LONGEST_LINE = 1 << 20
_TICK = 0.5
_WAITS = 5  # for the end of the output of a program that has ended, should something outside its group keep it open
_LAST_WORDS = 400
_TAIL_BYTES = 1 << 18


class ProgramError(SystemFailedError):
    """A program of another project failed; its last lines are a note of the error, and so part of a failure record."""


class Program:
    """One run of a program.

    Args:
        name: how messages call it.
        command: program and arguments.
        cwd: folder to run in.
        log: file that its output is appended to.
        silence: seconds without a sign of life after which it is stopped.
        limit: seconds after which it is stopped in any case.
        environment: variables to set besides ours.
        grace: seconds between asking it to end and ending it.

    Raises:
        ProgramError: it cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        cwd: Path,
        log: Path,
        silence: float,
        limit: float | None = None,
        environment: Mapping[str, str] | None = None,
        grace: float = 5.0,
    ) -> None:
        self.name, self.command, self.cwd, self.log = name, [str(word) for word in command], cwd, log
        self.silence, self.limit, self.grace = silence, limit, grace
        self.environment = _environment() | dict(environment or {})
        self.doing = "starting"
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._file: IO[bytes] = self.log.open("ab", buffering=0)
        self._begin = self._file.tell()
        try:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._file,
                start_new_session=True,
            )
        except OSError as error:
            self._file.close()
            raise ProgramError(f"{self.name} cannot be started: {self.command[0]}: {error.strerror}") from error
        threading.Thread(target=self._read, name=f"read {self.name}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(ask=True)
        self._file.close()

    def messages(self) -> Iterator[dict[str, Any] | None]:
        """Its messages as they come, None whenever some time went by without one, until it has ended well.

        Raises:
            ProgramError: it was silent or worked for too long, or ended with an error.
        """
        start = heard = monotonic()
        ended, waits = False, 0
        while not (ended and self._exited()) and waits < _WAITS:
            line: bytes | None = b""
            with suppress(queue.Empty):
                line = self._lines.get(timeout=0.1 if ended else _TICK)
            if line:
                heard = monotonic()
                if (message := self._message(line)) is not None:
                    yield message
            elif line is None:
                ended = True
            else:
                yield None
                if self._exited():
                    self._end(ask=False)  # a child that it left behind would keep its output open
                    waits += 1
            now = monotonic()
            self._check_clock(now - start, now - heard)
        self._end(ask=False)
        self._check_exit(self._process.returncode)

    def _check_clock(self, running: float, silent: float) -> None:
        if silent > self.silence:
            raise self.failed(
                f"gave no sign for {silent:.3g} s ({self.doing}), more than silence_s={self.silence:g} allows, and was "
                "stopped with everything it had started"
            )
        if self.limit is not None and running > self.limit:
            raise self.failed(
                f"was still running after {running:.3g} s ({self.doing}), more than limit_s={self.limit:g} allows, and "
                "was stopped with everything it had started"
            )

    def failed(self, what: str) -> ProgramError:
        """An error that says what happened, where the whole output is, and carries its last lines."""
        lines = self.tail()
        error = ProgramError(f"{self.name} {what}; everything it wrote is in {self.log}")
        if lines:
            error.add_note("\n".join([f"the last {len(lines)} lines it wrote:", *lines]))
        return error

    def tail(self) -> list[str]:
        """The last lines of this run, at most `TAIL`."""
        with suppress(OSError), self.log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._begin, end - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()[-TAIL:]
        return []

    def _message(self, line: bytes) -> dict[str, Any] | None:
        with suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict):
                if "beat" in message:
                    self.doing = " ".join(str(message[key]) for key in ("beat", "clip", "step") if key in message)
                return message
        self._file.write(line if line.endswith(b"\n") else line + b"\n")
        return None

    def _read(self) -> None:
        output = self._process.stdout
        assert output is not None
        with suppress(OSError, ValueError):  # closed while we read: the run is over
            while line := output.readline(_LONGEST_LINE):
                self._lines.put(line)
        self._lines.put(None)

    def _exited(self) -> bool:
        """Whether it has ended, which leaves its number taken: `_end` must not hit a stranger's group."""
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def _end(self, ask: bool) -> None:
        """End whatever is left of the group; first ask, if it is still at work."""
        if self._process.returncode is not None:
            return
        if ask and not self._exited():
            self._signal(signal.SIGTERM)
            until = monotonic() + self.grace
            while not self._exited() and monotonic() < until:
                sleep(0.01)
        self._signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # gone, or nothing but zombies left of it
            os.killpg(self._process.pid, number)

    def _check_exit(self, code: int) -> None:
        if not code:
            return
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
            raise self.failed(f"was ended by {name}{hint} ({self.doing})")
        words = next((line.strip() for line in reversed(self.tail()) if line.strip()), "it said nothing")
        raise self.failed(f"ended with exit code {code} ({self.doing}): {words[:_LAST_WORDS]}")


def _environment() -> dict[str, str]:
    """Ours, without what would lead another Python to our packages; nothing is downloaded."""
    ours = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return ours | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONFAULTHANDLER": "1",  # a crash of native code says where
        WATCHED: "1",
    }
