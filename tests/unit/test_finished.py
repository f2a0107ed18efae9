"""Finished or not, told from the files alone."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from irope.finished import clear_failure, failed, finished, write_failure

KEY = "0123456789abcdef0123"


@pytest.fixture
def stem(tmp_path: Path) -> Path:
    """A finished video: its name has dots, as prompt ids may."""
    stem = tmp_path / "cell@x=0.5" / "a.b-seed0-01234567"
    stem.parent.mkdir()
    (stem.parent / f"{stem.name}.mp4").write_bytes(b"m" * 700)
    (stem.parent / f"{stem.name}.mkv").write_bytes(b"f" * 900)
    describe(stem)
    return stem


def describe(stem: Path, **changes: Any) -> None:
    facts = {
        "key": KEY,
        "files": {"mp4": f"{stem.name}.mp4", "frames": f"{stem.name}.mkv"},
        "bytes": {"mp4": 700, "frames": 900},
    }
    sidecar(stem).write_text(json.dumps(facts | changes | {"record": {"seed": 0}}, indent=1) + "\n")


def sidecar(stem: Path) -> Path:
    return stem.parent / f"{stem.name}.json"


@pytest.mark.parametrize("quick", [False, True])
def test_a_whole_video_of_this_key_is_finished(stem: Path, quick: bool) -> None:
    assert finished(stem, KEY, quick)
    assert not finished(stem, KEY[::-1], quick)
    assert not finished(stem.with_name("another"), KEY, quick)


def test_a_video_without_a_companion(stem: Path) -> None:
    (stem.parent / f"{stem.name}.mkv").unlink()
    assert not finished(stem, KEY)
    describe(stem, files={"mp4": f"{stem.name}.mp4", "frames": None}, bytes={"mp4": 700})
    assert finished(stem, KEY)


@pytest.mark.parametrize("size", [0, 699, 701])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_of_another_size_is_not(stem: Path, suffix: str, size: int) -> None:
    os.truncate(stem.parent / f"{stem.name}{suffix}", size)
    assert not finished(stem, KEY)
    assert not finished(stem, KEY, quick=True)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe", b'{"key": "%b"}' % KEY.encode(), b'{"files": {}, "bytes": {}}'],
)
def test_a_damaged_sidecar_is_not(stem: Path, content: bytes) -> None:
    sidecar(stem).write_bytes(content)
    assert not finished(stem, KEY)
    assert not finished(stem, KEY, quick=True)


@pytest.mark.parametrize(
    "changes", [{"files": {}}, {"files": []}, {"files": {"mp4": 5}}, {"bytes": {}}, {"bytes": None}, {"key": None}]
)
def test_a_sidecar_that_says_something_odd_is_not(stem: Path, changes: dict[str, Any]) -> None:
    describe(stem, **changes)
    assert not finished(stem, KEY)
    assert not finished(stem, KEY, quick=True)


def test_cut_anywhere_the_sidecar_is_not_one(stem: Path) -> None:
    whole = sidecar(stem).read_bytes()
    for length in range(len(whole) - 1):  # the last is a line end
        sidecar(stem).write_bytes(whole[:length])
        assert not finished(stem, KEY)
        assert not finished(stem, KEY, quick=True)
    assert not finished(stem, KEY, quick=True)


def test_a_failure_is_told_and_forgotten(stem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/irope", "generate", "prompt=a red circle"])
    assert failed(stem) is None
    try:
        raise ValueError("the reason")
    except ValueError as error:
        write_failure(stem, error)
    told = failed(stem)
    assert told is not None
    assert (told["error"], told["message"]) == ("ValueError", "the reason")
    assert told["command"] == "irope generate 'prompt=a red circle'"
    assert "test_a_failure_is_told" in "".join(told["traceback"])
    assert socket.gethostname() not in json.dumps(told["environment"])
    assert finished(stem, KEY)  # the two have nothing to do with each other
    clear_failure(stem)
    clear_failure(stem)
    assert failed(stem) is None


def test_a_worker_killed_while_it_told_a_failure_leaves_nothing_beside_a_finished_video(stem: Path) -> None:
    before = sorted(stem.parent.iterdir())
    child = os.fork()
    if not child:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        write_failure(stem, ValueError("the reason"))
    os.waitpid(child, 0)
    assert len(list(stem.parent.glob("*.part"))) == 1
    clear_failure(stem)
    assert sorted(stem.parent.iterdir()) == before


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_failure_is_still_one(stem: Path, content: str) -> None:
    (stem.parent / f"{stem.name}.error.json").write_text(content)
    assert "damaged" in (failed(stem) or {})["message"]


def test_a_failure_that_cannot_be_written_is_not_another_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    write_failure(tmp_path / "file" / "video", ValueError("the reason"))
    assert failed(tmp_path / "file" / "video") is None
