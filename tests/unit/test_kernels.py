"""The Triton kernels where there is no GPU: `interpreted_kernels` in a process whose Triton interprets them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(*command: str, interpret: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": interpret, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], env=env, cwd=HERE.parents[1], capture_output=True, text=True, timeout=280,
        check=False,
    )  # fmt: skip


def test_interpreted_kernels_equal_plain_torch() -> None:
    done = run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(HERE / "interpreted_kernels.py"),
        interpret="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_all_kernels_compile_for_an_h100() -> None:
    """To machine code of compute capability 9.0, which needs no GPU; the interpreter takes what a compiler refuses."""
    done = run("-m", "tests.unit.compiled_kernels", interpret="0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kernels" in done.stdout
