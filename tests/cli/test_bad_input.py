"""Bad input through the command line: a clear message, exit code 2 or 130, nothing half-written with a final name."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from irope.cli.main import main
from tests.cli.conftest import ROOT, Irope, process

FINAL = (".mp4", ".mkv", ".json")


def final_names(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.suffix in FINAL and "/.work/" not in str(p)]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=infinty_rope"], ["unknown method", "did you mean 'infinity_rope'", "kv_recache"]),
        (["model=tyny"], ["unknown model", "did you mean 'tiny'"]),
        (["prompts=demmo"], ["unknown prompts", "did you mean 'demo'", "basic"]),
        (["window=6"], ["unknown key 'window'", "video.method.policy.window"]),
        (["video.method.policy.windw=6"], ["unknown key", "did you mean 'video.method.policy.window'"]),
        (["video.method.policy.cut_mode=ofset"], ["video.method.policy", "cut_mode='ofset'", "did you mean 'offset'"]),
        (["video.method.policy.window=six"], ["window='six'", "expected int"]),
        (["video.method.policy.sink=4"], ["sink 4 + block 3 = 7", "window 6", "nearest valid: window 7 or sink 3"]),
        (["video.method.policy.f0=2"], ["f0 2", "nearest valid: 4"]),
        (["method=full", "duration=60"], ["full cache holds 21 latent frames", "needs 240", "infinity_rope"]),
        (["video.latents=22"], ["22 latent frames", "nearest valid: 21 or 24"]),
        (["duration=-1"], ["duration"]),
        (["duration=0"], ["nearest valid"]),
        (["duration=soon"], ["video.duration=soon", "seconds as a number"]),
        (["seed=-3"], ["video.seed=-3", "whole number from 0"]),
        (["sys.device=gpu"], ["sys.device=gpu", "cuda"]),
        (["video.cut_mark=end"], ["video.cut_mark=end", "start", "published"]),
        (["prompt=a red circle moving left[5s | b"], ["<text>:1:25", "']'", "^"]),
        (["prompt=a red dog moving left"], ["unknown word", "dog"]),
        (["video.prompts.file=nowhere.txt"], ["nowhere.txt"]),
        (["video.model.dtype=float8"], ["video.model.dtype=float8", "bfloat16"]),
        (["video.method.steps=[250,500]"], ["video.method.steps", "falling numbers"]),
        (["nonsense"], ["'nonsense' is not an override", "key=value"]),
        (["duration=[1"], ["duration=[1"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(
    weights: Path,
    tmp_path: Path,
    overrides: list[str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # in this process: what is tested is refused before anything runs
    code = main(["generate", f"video.model.weights={weights}", "prompts=basic", *overrides])
    errors = capsys.readouterr().err
    assert code == 2, errors
    assert errors.startswith("irope: error: ")
    for word in words:
        assert word in errors
    assert final_names(tmp_path) == []


def test_an_unknown_verb_lists_the_verbs(tmp_path: Path) -> None:
    result = process("generat", cwd=tmp_path)
    assert result.returncode == 2
    assert "did you mean 'generate'" in result.stderr


def test_a_broken_prompt_file_is_named_by_file_line_and_column(irope: Irope, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a red circle moving left[5s]\na red circle moving left[fives]\n")
    result = irope("generate", f"video.model.weights={weights}", "video.prompts.file=mine.txt")
    assert result.returncode == 2
    assert "mine.txt:2:" in result.stderr
    assert final_names(tmp_path) == []


def test_missing_weights(irope: Irope) -> None:
    result = irope("generate", "video.model.weights=nowhere.safetensors", "duration=5", "prompts=basic")
    assert result.returncode == 2
    assert "video.model.weights" in result.stderr
    assert "nowhere.safetensors" in result.stderr
    assert "irope train tiny" in result.stderr


def test_an_unknown_checkpoint_lists_the_packaged_ones(irope: Irope) -> None:
    result = irope("generate", "video.model.checkpoint=best", "duration=5", "prompts=basic")
    assert result.returncode == 2
    assert "video.model.checkpoint" in result.stderr
    assert "stable" in result.stderr


def test_truncated_weights(irope: Irope, weights: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:-100])
    result = irope("generate", f"video.model.weights={cut}", "duration=5", "prompts=basic")
    assert result.returncode == 2
    assert "cut.safetensors" in result.stderr
    assert "complete" in result.stderr


def test_misshapen_weights_name_key_expected_and_found(irope: Irope, damaged, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def change(tensors):  # type: ignore[no-untyped-def]
        tensors["wan.blocks.1.self_attn.q.weight"] = tensors["wan.blocks.1.self_attn.q.weight"][:40].clone()

    result = irope("generate", f"video.model.weights={damaged(change)}", "duration=5", "prompts=basic")
    assert result.returncode == 2
    for word in ("blocks.1.self_attn.q.weight", "[40, 48]", "[48, 48]"):
        assert word in result.stderr


def test_a_missing_key_is_named(irope: Irope, damaged) -> None:  # type: ignore[no-untyped-def]
    path = damaged(lambda tensors: tensors.pop("wan.head.modulation"))
    result = irope("generate", f"video.model.weights={path}", "duration=5", "prompts=basic")
    assert result.returncode == 2
    assert "wan.head.modulation" in result.stderr


def test_an_output_folder_that_cannot_be_written(irope: Irope, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    out = "sys.out=file/videos"
    result = irope("generate", f"video.model.weights={weights}", "duration=5", "prompts=basic", out)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "file" in result.stderr


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_without_permission(irope: Irope, weights: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    result = irope("generate", f"video.model.weights={weights}", "duration=5", "prompts=basic", f"sys.out={locked}")
    assert result.returncode == 2
    assert "Permission denied" in result.stderr


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of our own in memory; skips the test where mounting is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if sys.platform != "linux" or shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_an_output_folder_that_is_read_only(irope: Irope, weights: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro") as disk:
        result = irope("generate", f"video.model.weights={weights}", "duration=5", "prompts=basic", f"sys.out={disk}")
        assert result.returncode == 2, result.stderr
        assert "Read-only file system" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_full_disk(irope: Irope, weights: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=96k") as disk:
        result = irope("generate", f"video.model.weights={weights}", "duration=20", "prompts=basic", f"sys.out={disk}")
        assert result.returncode == 2, result.stderr
        assert "disk is full" in result.stderr
        assert "Traceback" not in result.stderr
        assert final_names(disk) == []


def test_ctrl_c_ends_with_130_and_the_same_command_continues(irope: Irope, weights: Path, tmp_path: Path) -> None:
    """Interrupted in the middle, then run again: the frames are those of a run that was never interrupted."""

    def words(out: str) -> list[str]:
        prompt = "prompt=a red circle moving left[15s] | a red circle moving up[15s#]"
        return ["generate", f"video.model.weights={weights}", f"sys.out={out}", "sys.checkpoint_blocks=4", prompt]

    command = [sys.executable, "-m", "irope", *words("cut")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # A shell that starts the tests in the background has them, and all they start, ignore Ctrl-C.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    first = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("cut/.work/*/*/state.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 130, errors
    assert "continues" in errors
    assert final_names(tmp_path / "cut") == []
    assert list(tmp_path.glob("cut/.work/*/*/state.safetensors"))
    for out in ("cut", "whole"):
        assert irope(*words(out)).returncode == 0
    cut, whole = (json.loads(next(tmp_path.glob(f"{out}/*/*.json")).read_text()) for out in ("cut", "whole"))
    assert cut["frames_sha256_chain"] == whole["frames_sha256_chain"]
    assert cut["pixel_frames"] == whole["pixel_frames"] == 477
    assert cut["plans"] == whole["plans"]
    assert cut["key"] == whole["key"]
    assert not list(tmp_path.glob("cut/.work"))
