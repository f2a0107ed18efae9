"""The command line as a user runs it, on a small model with random weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from irope.cli.main import main

ROOT = Path(__file__).parents[2]
Irope = Callable[..., "subprocess.CompletedProcess[str]"]


def process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``irope ...`` in a process of its own, which loads everything again: for what only that can show."""
    command = [sys.executable, "-m", "irope", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def irope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Irope:
    """Run ``irope ...`` in an empty folder, in this process."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setenv("COLUMNS", "200")
            patch.setenv("PYTHONPATH", str(ROOT))  # of workers
            try:
                code = main(arguments)
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with the embedded model's format and random weights: small, quick, and never shown to anybody."""
    from irope.models.tiny.codec import TinyCodec
    from irope.models.tiny.info import TinyInfo
    from irope.models.tiny.model import save_tiny
    from irope.models.tiny.net import TinyNet
    from irope.transformer import WanConfig

    torch.manual_seed(0)
    geometry = WanConfig(
        dim=48, ffn_dim=64, num_heads=2, num_layers=2, in_dim=4, out_dim=4, text_len=12, text_dim=16, freq_dim=32
    )
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    codec = TinyCodec(4)
    with torch.no_grad():
        for value in codec.state_dict().values():
            value.normal_(std=0.1)
    save_tiny(path, TinyNet(geometry).state_dict(), codec, geometry, TinyInfo("random", {}, "", 0))
    return path


@pytest.fixture
def damaged(weights: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, torch.Tensor]], None]], Path]:
    """A copy of the weights after a change to its tensors."""

    def damage(change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
        from safetensors import safe_open

        with safe_open(str(weights), "pt") as file:
            metadata = file.metadata()
        tensors = load_file(weights)
        change(tensors)
        path = tmp_path / "damaged.safetensors"
        save_file(tensors, path, metadata)
        return path

    return damage
