"""The README does what it says: its policy works when its file is added, its commands are real."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from irope.cli.main import VERBS
from irope.registry import policies
from tests.cli.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages in a folder of their own, so that a policy can be added without touching the checkout."""
    for package in ("irope", "baselines", "eval", "conf"):
        ignore = shutil.ignore_patterns("__pycache__", "weights")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    command = [sys.executable, "-P", "-m", "irope", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_policy_in_the_readme_is_one_file_away(copy: Path, weights: Path) -> None:
    place = re.search(r"Put this into `(baselines/policies/(\w+)\.py)`:\n\n```python\n(.*?)```", README, re.S)
    assert place is not None
    path, name, code = place.groups()
    assert not (ROOT / path).exists()
    (copy / path).write_text(code)
    assert name in run(copy, "list", "policies")
    assert name in run(copy, "list", "methods")
    commands = re.findall(rf"^(irope \w+ method={name}.*)$", README, re.M)
    assert len(commands) == 2
    model = [
        f"video.model.weights={weights}",
        "duration=12",
        'prompt="a red circle moving left | a red cross circling"',
    ]
    for command in commands:
        told = run(copy, *shlex.split(command)[1:], *(model if " generate " in command else ()))
        assert name in told
    assert len(list(copy.glob(f"results/runs/{name}/*.mp4"))) == 1
    # What the text promises: at the switch (20 s of the demo's first script, block 27) the last frame becomes the sink.
    rows = run(copy, "explain", f"method={name}", "duration=60", "--full").splitlines()
    read = {row.split()[0]: re.findall(r"\d+", row.split(" | ")[0])[1:] for row in rows if re.match(r"\d+ ", row)}
    assert [read["26"], read["27"], read["28"]] == [["0", "76", "77"], ["80"], ["80", "82", "83"]]


def test_every_command_names_a_verb_and_every_policy_is_in_the_table() -> None:
    verbs = re.findall(r"^(?:\.venv/bin/)?irope (\w+)", README, re.M)
    assert verbs
    assert set(verbs) <= set(VERBS)
    for name in policies():
        assert f"| `{name}` |" in README


def test_every_picture_and_page_that_is_linked_exists() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target
