"""``irope weights``: what is there, what is missing and how to get it; and a video from small published files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from irope.cli.main import main
from irope.models.wan.catalogue import catalogue
from tests.cli.conftest import Irope
from tests.wan_folder import write_placeholders, write_weights
from tests.wan_kit import save_pt


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


def shapes_of_1_3b() -> dict[str, tuple[int, ...]]:
    from irope.models.wan.model import empty_transformer

    return {name: tuple(parameter.shape) for name, parameter in empty_transformer().named_parameters()}


def sparse_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A file of 5.68 GB with a true header that takes a few kilobytes of disk: its data was never written."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def thin_pt(path: Path, shapes: dict[str, tuple[int, ...]], outer: str) -> Path:
    """A checkpoint of full-size tensors that share one number."""
    return save_pt(path, {outer: {f"model.{name}": torch.zeros(1).expand(shape) for name, shape in shapes.items()}})


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(["weights", "--json", *arguments])
    return code, {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def test_with_nothing_there_every_row_has_its_command(tmp_path, capsys):
    assert main(["weights", f"sys.weights={tmp_path}"]) == 0
    out = capsys.readouterr().out
    for one in catalogue().values():
        assert one.name in out
        assert one.command(tmp_path) in out
    assert f"0 of {len(catalogue())} are there" in out
    assert "irope downloads nothing" in out


def test_a_named_one_that_is_missing_ends_with_1(tmp_path, capsys):
    assert main(["weights", "causvid", f"sys.weights={tmp_path}"]) == 1
    out = capsys.readouterr().out
    assert "steps 1000, 757, 522, shift 8, not warped" in out
    assert "CC-BY-NC-SA-4.0" in out
    assert main(["weights", "causvd", f"sys.weights={tmp_path}"]) == 2
    assert "did you mean 'causvid'" in capsys.readouterr().err


def test_what_a_method_needs(tmp_path, capsys):
    code, rows = listed(capsys, "method=kv_recache", f"sys.weights={tmp_path}")
    assert (code, list(rows)) == (1, ["longlive", "longlive_lora", "text_encoder", "tokenizer", "vae"])
    assert "longlive_infinity" in rows["longlive"]["methods"]
    longlive = "Efficient-Large-Model/LongLive-1.3B/models"
    write_placeholders(tmp_path, f"{longlive}/longlive_base.pt", f"{longlive}/lora.pt")
    code, rows = listed(capsys, "method=kv_recache", f"sys.weights={tmp_path}")
    assert (code, {row["status"] for row in rows.values()}) == (0, {"present"})


def test_digests_are_shown_once_they_are_known(tmp_path, capsys):
    write_placeholders(tmp_path, "gdhe17/Self-Forcing/checkpoints/self_forcing_dmd.pt")
    given = ("self_forcing_dmd", f"sys.weights={tmp_path}")
    assert listed(capsys, *given)[1]["self_forcing_dmd"]["sha256"] is None
    digest = listed(capsys, *given, "--digest")[1]["self_forcing_dmd"]["sha256"]
    assert len(digest) == 64
    assert listed(capsys, *given)[1]["self_forcing_dmd"]["sha256"] == digest


def test_check_reads_headers_of_files_of_any_size(tmp_path, capsys):
    shapes = shapes_of_1_3b()
    file = sparse_safetensors(tmp_path / "Wan-AI/Wan2.1-T2V-1.3B/diffusion_pytorch_model.safetensors", shapes)
    assert file.stat().st_size > 5.6e9
    thin_pt(tmp_path / "gdhe17/Self-Forcing/checkpoints/self_forcing_dmd.pt", shapes, "generator_ema")
    code, rows = listed(capsys, "--check", "wan_base", "self_forcing_dmd", f"sys.weights={tmp_path}")
    assert code == 0
    assert rows["wan_base"]["check"] == "825 tensors in float32, original names"
    assert rows["wan_base"]["problem"] is None
    assert "of generator_ema takes generator_ema" in rows["self_forcing_dmd"]["check"]


def test_check_names_what_does_not_fit(tmp_path, capsys):
    shapes = shapes_of_1_3b()
    del shapes["blocks.29.ffn.2.bias"]
    thin_pt(tmp_path / "gdhe17/Self-Forcing/checkpoints/self_forcing_dmd.pt", shapes, "generator_ema")
    large = {"patch_embedding.weight": (5120, 16, 1, 2, 2)}
    thin_pt(tmp_path / "tianweiy/CausVid/autoregressive_checkpoint/model.pt", large, "generator")
    write_placeholders(tmp_path)
    assert main(["weights", "--check", f"sys.weights={tmp_path}"]) == 1
    out = capsys.readouterr().out
    assert "'blocks.29.ffn.2.bias' is missing (824 of 825 keys found)" in out
    assert "holds a 14B model" in out
    assert "truncated or no file of torch.save" in out  # the placeholder of the VAE


def test_a_video_from_published_files_on_the_command_line(irope: Irope, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    overrides = write_weights(tmp_path / "weights")
    command = ("generate", *overrides, "method=infinity_rope_paper", "video.latents=6", "sys.device=cpu")
    done = irope(*command, "prompt=a red fox walks in snow")
    assert done.returncode == 0, done.stderr
    assert "21 frames, 1.3 s" in done.stdout
    sidecar = json.loads(next((tmp_path / "results/runs/infinity_rope_paper").glob("*.json")).read_text())
    assert sidecar["model"] == "wan_test/self_forcing_dmd"
    assert len(list((tmp_path / "cache/irope/prompts").rglob("*.safetensors"))) == 1
