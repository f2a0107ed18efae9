"""Importing vbench, the list of its weights, the stock package as a reference: nothing downloads, all is explained."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from eval.registry import make_scorer
from eval.vbench import packages, stock, weights
from eval.vbench.weights import WEIGHTS, WeightFile
from irope import digests
from irope.cli import vbench
from irope.errors import UserError
from tests.vbench.conftest import moving, write_mp4

ROOT = Path(__file__).resolve().parents[2]
vbench_is_here = pytest.mark.skipif(packages.missing() is not None, reason=f"vbench: {packages.missing()}")


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """No weights anywhere, and a home of its own for remembered digests."""
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "vbench"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def python(code: str, *arguments: str) -> str:
    """What a fresh process prints: imports happen once a process."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@vbench_is_here
@pytest.mark.slow
def test_every_dimension_imports_and_leaves_the_process_as_it_was(empty):
    code = """
import logging, subprocess, sys
from eval.vbench.packages import VBenchError, load
from eval.vbench.stock import STOCK_DIMENSIONS
before = logging.getLogger().level, list(logging.getLogger().handlers), subprocess.run
for name in STOCK_DIMENSIONS[:-1]:
    load(f"vbench.{name}")
assert before == (logging.getLogger().level, list(logging.getLogger().handlers), subprocess.run)
try:
    load("vbench.overall_consistency")
except VBenchError as error:
    print(error)
from eval.vbench.weights import copy_vocabulary
assert copy_vocabulary() == copy_vocabulary()
load("vbench.overall_consistency")
import torchvision.transforms, vbench.utils
print(vbench.utils.CACHE_DIR)
"""
    *_, refusal, folder = python(code).splitlines()
    assert "would run ['wget'" in refusal
    assert "irope vbench weights" in refusal
    assert folder == str(empty / "vbench")


def test_what_is_not_installed_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(packages, "_installed", lambda name: name not in ("clip", "pyiqa") and find(name) is not None)
    reason = packages.missing()
    assert "clip, pyiqa are not installed: run `irope vbench install`" in reason or "clip, pyiqa," in reason
    assert make_scorer("subject_consistency").unavailable() == reason
    assert make_scorer("temporal_flickering").unavailable() is None
    with pytest.raises(UserError, match="clip, pyiqa"):
        packages.load("vbench.utils")


def put(file: WeightFile, content: bytes) -> None:
    file.path.parent.mkdir(parents=True, exist_ok=True)
    file.path.write_bytes(content)


SMALL = WeightFile("a/b.pth", 6, 4, ("some_dimension",), "nobody", sha256="2cf24dba5fb0a30e")  # of "hello"
SECOND = WeightFile("b.pth", 6, 4, ("some_dimension",), "nobody", root="torch", stock_only=True)


def test_the_state_of_a_file(empty, monkeypatch):
    assert weights.check(SMALL).status == "missing"
    put(SMALL, b"hel")
    assert weights.check(SMALL).status == "too small"
    put(SMALL, b"hallo!")
    assert weights.check(SMALL).status == "present"  # nobody has looked inside
    assert weights.check(SMALL, digest=True).status == "wrong digest"
    assert weights.check(SMALL).status == "wrong digest"  # remembered
    monkeypatch.setattr(digests, "_session", {})
    assert weights.check(SMALL).status == "wrong digest"  # also by another process
    put(SMALL, b"hello")
    assert weights.check(SMALL).status == "present"
    assert weights.check(SMALL, digest=True).sha256.startswith(SMALL.sha256)


@vbench_is_here
def test_only_the_stock_package_needs_the_second_copy(empty, monkeypatch):
    monkeypatch.setattr(weights, "WEIGHTS", (SMALL, SECOND))
    assert "a/b.pth is missing" in weights.lacking("some_dimension")
    put(SMALL, b"hello")
    assert weights.lacking("some_dimension") is None
    assert str(empty / "torch" / "hub" / "checkpoints" / "b.pth") in weights.lacking("some_dimension", stock=True)
    put(SECOND, b"hello")
    assert weights.lacking("some_dimension", stock=True) is None
    assert weights.identity("some_dimension")["a/b.pth"].startswith("2cf24dba")
    put(SMALL, b"another")
    assert not weights.identity("some_dimension")["a/b.pth"].startswith("2cf24dba")
    assert weights.lacking("some_dimension") is None  # used, and told from others by its digest


def test_the_list_says_where_how_large_and_for_whom(empty, capsys):
    assert vbench.run(["weights", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert {row["status"] for row in rows} == {"missing"}
    assert {name for row in rows for name in row["dimensions"]} == set(stock.STOCK_DIMENSIONS) - {"temporal_flickering"}
    assert sum(row["path"].endswith("dino_vitbase16_pretrain.pth") for row in rows) == 2
    assert all(row["source"] for row in rows)
    assert all(0 < file.least < (file.size or 2) for file in WEIGHTS)
    assert vbench.run(["weights"]) == 1
    assert f"0 of {len(WEIGHTS)} files are there" in capsys.readouterr().out


def test_check_names_what_keeps_a_dimension_from_running(empty, capsys):
    assert vbench.run(["check"]) == 1
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["temporal_flickering"] == "ready"
    assert lines["aesthetic_quality"].startswith("skipped, because")


def test_installing_keeps_the_pins_of_vbench_out(capsys):
    assert vbench.run(["install", "--dry-run"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "--no-deps" not in first
    assert "torch==" in first
    assert "--no-deps" in second
    listed = (ROOT / "requirements" / "vbench.txt").read_text(encoding="utf-8").splitlines()
    assert tuple(line for line in listed if not line.startswith("#")) == vbench.WITHOUT_DEPENDENCIES


@vbench_is_here
@pytest.mark.slow
def test_the_stock_package_is_not_started_without_its_weights(empty, tmp_path):
    path = write_mp4(tmp_path / "clip.mp4", moving(2, 64, 64))
    with pytest.raises(UserError, match=r"subject_consistency: .*hubconf\.py is missing"):
        stock.stock_scores([path], ["subject_consistency"])


@vbench_is_here
@pytest.mark.slow
def test_the_verb_prints_what_the_stock_package_says(tmp_path, capsys):
    write_mp4(tmp_path / "a b_ö-1.mp4", moving(3, 64, 64))
    assert vbench.run(["reference", str(tmp_path), "temporal_flickering"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["videos"] == {"a b_ö-1.mp4": found["overall"]}
    assert 0.5 < found["overall"] < 1


def test_bad_requests_to_the_stock_package_are_explained(tmp_path, capsys):
    path, other = tmp_path / "a.mp4", tmp_path / "b" / "a.mp4"
    with pytest.raises(UserError, match="no dimension 'color'"):
        stock.stock_scores([path], ["color"])
    with pytest.raises(UserError, match="two videos of one name"):
        stock.stock_scores([path, other], [])
    with pytest.raises(UserError, match=r"reads \.mp4 files"):
        stock.stock_scores([tmp_path / "a.gif"], [])
    with pytest.raises(UserError, match="no videos"):
        vbench.run(["reference", str(tmp_path)])


def test_the_stock_process_can_neither_download_nor_connect():
    code = """
import socket, subprocess, sys
from eval.vbench.stock import _refuse_downloads
sys.addaudithook(_refuse_downloads)
for act in (
    lambda: subprocess.run(["wget", "http://127.0.0.1:9/x"]),
    lambda: subprocess.run(["/usr/bin/git", "clone", "x"]),
    lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
):
    try:
        act()
    except Exception as error:
        print(type(error).__name__)
print(subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True).stdout.strip())
"""
    assert python(code).split() == ["VBenchError"] * 3 + ["1"]
