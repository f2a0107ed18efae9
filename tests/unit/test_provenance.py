import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from irope.provenance import clear_parts, device_record, environment, git_state, write_json_atomic

ROOT = Path(__file__).resolve().parents[2]


def git(folder: Path, *command: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", *identity, *command], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def checkout(tmp_path):
    file = tmp_path / "package" / "module.py"
    file.parent.mkdir()
    file.write_text("one\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return file


def test_git_state_names_the_commit_and_notices_changes(checkout):
    commit = git(checkout.parent, "rev-parse", "HEAD")
    assert git_state(checkout) == {"commit": commit, "dirty": False}
    checkout.write_text("two\n")
    assert git_state(checkout) == {"commit": commit, "dirty": True}


def test_an_untracked_copy_inside_a_checkout_has_no_commit(checkout):
    copy = checkout.with_name("copy.py")
    copy.write_text("one\n")
    assert git_state(copy) is None


def test_no_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout) is None


def test_environment_is_json_and_tells_versions_and_device():
    record = json.loads(json.dumps(environment("cpu")))
    assert torch.__version__.startswith(record["packages"]["torch"].partition("+")[0])
    assert record["device"]["torch"] == torch.__version__
    assert record["packages"]["numpy"] == np.__version__
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["device"]["type"] == "cpu"
    assert record["device"]["threads"] == torch.get_num_threads()
    assert record["device"]["name"]


def test_environment_names_no_folder_user_or_host():
    text = json.dumps(environment())
    assert str(Path.cwd()) not in text
    assert os.uname().nodename not in text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_record():
    record = device_record("cuda")
    assert record["name"] == torch.cuda.get_device_name()
    assert record["cuda"] == torch.version.cuda


def test_json_arrives_whole_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "new" / "side.json"
    for value in ({"a": [1, 0.5, None, "∞"]}, {"b": 2}):
        write_json_atomic(path, value)
        assert json.loads(path.read_text(encoding="utf-8")) == value
    assert names(path.parent) == ["side.json"]


@pytest.mark.parametrize("bad", [{"x": float("nan")}, {"x": object()}])
def test_what_is_not_json_leaves_the_old_file(tmp_path, bad):
    path = tmp_path / "side.json"
    write_json_atomic(path, 1)
    with pytest.raises((TypeError, ValueError)):
        write_json_atomic(path, bad)
    assert names(tmp_path) == ["side.json"]
    assert json.loads(path.read_text()) == 1


def test_a_failing_write_leaves_the_old_file_and_names_it(tmp_path, monkeypatch):
    path = tmp_path / "side.json"
    write_json_atomic(path, 1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*side\.json"):
        write_json_atomic(path, 2)
    assert names(tmp_path) == ["side.json"]
    assert json.loads(path.read_text()) == 1


HALF_WAY = """
import os, sys
from pathlib import Path
from irope.provenance import write_json_atomic

real = os.fsync
os.fsync = lambda file: (print("half way", flush=True), sys.stdin.readline(), real(file))
write_json_atomic(Path(sys.argv[1]), "theirs")
"""


@contextmanager
def writing(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of writing ``path``; it goes on when it is sent a line."""
    command = [sys.executable, "-c", HALF_WAY, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as writer:
        try:
            assert writer.stdout.readline() == "half way\n"
            yield writer
        finally:
            writer.kill()


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_of_a_living_one(tmp_path):
    path, other = tmp_path / "side.json", tmp_path / "side.json.1.json"
    with writing(other) as elsewhere, writing(path) as killed, writing(path) as living:
        elsewhere.kill()
        killed.kill()
        elsewhere.wait()
        killed.wait()
        theirs = {writer.pid: next(tmp_path.glob(f"*-{writer.pid}.part")).name for writer in (elsewhere, living)}
        assert len(names(tmp_path)) == 3
        write_json_atomic(path, "ours")
        assert names(tmp_path) == sorted(["side.json", *theirs.values()])
        assert living.communicate("\n") == ("", None)
        assert living.returncode == 0
    assert json.loads(path.read_text()) == "theirs", "the last one wins"
    assert names(tmp_path) == sorted(["side.json", theirs[elsewhere.pid]])
    clear_parts(other)
    assert names(tmp_path) == ["side.json"]


def test_a_part_names_no_host(tmp_path):
    with writing(tmp_path / "side.json"):
        assert os.uname().nodename not in names(tmp_path)[0]


@pytest.mark.parametrize("name", ["side.json.0123456789ab-{}.part", "side.json.{}.part"])
@pytest.mark.parametrize("hours", [23, 25])
def test_a_writer_elsewhere_has_a_day_whatever_its_process_id_means_here(tmp_path, name, hours):
    gone = subprocess.Popen(["true"])
    gone.wait()
    part = tmp_path / name.format(gone.pid)
    part.write_text("half")
    now = tmp_path.stat().st_mtime
    os.utime(part, (now - 3600 * hours, now - 3600 * hours))
    write_json_atomic(tmp_path / "side.json", 1)
    assert part.exists() == (hours < 24)


def test_files_that_only_look_like_parts_stay(tmp_path):
    kept = ["side.json.part", "side.json.x-1.part", "side.json.0123456789ab-1.part.txt", "sideXjson.1.part"]
    for name in kept:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    write_json_atomic(tmp_path / "side.json", 1)
    assert names(tmp_path) == sorted(["side.json", *kept])


def test_nothing_to_clear_where_there_is_no_folder(tmp_path):
    clear_parts(tmp_path / "none" / "side.json")
