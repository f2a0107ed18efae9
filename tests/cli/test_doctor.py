"""``irope doctor`` as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from irope.cli.main import main

WEIGHTS = "sys.weights=weights"  # whatever $IROPE_WEIGHTS says


@pytest.fixture(autouse=True)
def _an_empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "vbench"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("WANDB_MODE", "offline")


def findings(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, bool, list[dict[str, Any]]]:
    code = main(["doctor", "--json", WEIGHTS, *arguments])
    told = json.loads(capsys.readouterr().out)
    return code, told["ready"], told["findings"]


def test_the_embedded_model_is_ready_on_one_screen(tmp_path, capsys):
    assert main(["doctor", WEIGHTS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30
    assert all(len(line) <= 100 for line in lines)
    assert lines[-1].startswith("Ready for this configuration; ")
    assert not [line for line in lines if line.startswith("bad")]
    assert not list(tmp_path.iterdir())  # looked, and left nothing


def test_the_large_model_without_weights_is_not(capsys):
    code, ready, found = findings(capsys, "model=wan_1_3b", "method=causvid", "sys.device=cpu")
    assert (code, ready) == (1, False)
    bad = {one["what"]: one["mend"] for one in found if one["state"] == "bad" and one["name"] == "weights"}
    assert list(bad) == ["causvid: missing", "text_encoder: missing", "tokenizer: missing", "vae: missing"]
    assert bad["causvid: missing"] == (
        "hf download tianweiy/CausVid autoregressive_checkpoint/model.pt --local-dir weights/tianweiy/CausVid"
    )
    assert main(["doctor", WEIGHTS, "model=wan_1_3b", "method=causvid", "sys.device=cpu"]) == 1
    out = capsys.readouterr().out
    assert all(mend in out for mend in bad.values())  # whole, to be copied
    assert " to mend; " in out


def test_vbench_is_needed_by_its_protocols_only(capsys):
    def vbench(*arguments: str) -> dict[str, Any]:
        return next(one for one in findings(capsys, *arguments)[2] if one["name"] == "VBench")

    assert vbench()["state"] == "warn"
    asked = vbench("protocol=vbench")
    assert asked["state"] == "bad"
    assert asked["mend"].startswith("irope vbench ")


def test_a_wrong_override_is_an_error_of_the_user(capsys):
    assert main(["doctor", "model=wan"]) == 2
    assert "did you mean 'wan_1_3b'" in capsys.readouterr().err
