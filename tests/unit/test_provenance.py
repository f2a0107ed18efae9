import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from irope.provenance import device_record, environment, git_state, write_json_atomic


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
