"""A program that runs elsewhere: its messages, its last words, and that it ends with whoever started it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from baselines.systems.program import TAIL, Program, ProgramError
from baselines.systems.subprocess_system import LOG
from tests.subprocess_kit import FAKE, Run


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


def test_a_program_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """A worker that is killed cannot end what it started, so that has to see it."""
    run = Run(tmp_path)
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


def test_nothing_leads_the_program_to_our_packages_or_to_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    names = ("PYTHONPATH", "HF_HUB_OFFLINE", "IROPE_WATCHED")
    show = f"import os, json; print(json.dumps({{n: os.environ.get(n) for n in {names}}}))"
    assert list_messages([sys.executable, "-c", show], tmp_path) == [dict(zip(names, (None, "1", "1"), strict=True))]


def list_messages(command: list[Any], folder: Path) -> list[Any]:
    with Program("X", command, cwd=folder, log=folder / "log", silence=9) as program:
        return [message for message in program.messages() if message is not None]
