"""The Triton kernels where there is no GPU: `interpreted_kernels` in a process whose Triton interprets them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_interpreted_kernels_equal_plain_torch():
    pytest.importorskip("triton")
    tests = Path(__file__).with_name("interpreted_kernels.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tests)]
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=env, cwd=tests.parents[2], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
