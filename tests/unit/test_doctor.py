"""Checks of the machine: what is there and what is not, on machines that are made up, and that nothing is contacted."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from irope.config import Settings, load, patched
from irope.doctor import CHECKS, Finding, examine, machine, needs
from irope.doctor.finding import installed
from irope.errors import UserError
from irope.models.wan.card import TEXT_LEN
from irope.models.wan.catalogue import entry
from tests.wan_folder import write_placeholders


@pytest.fixture(scope="module")
def tiny() -> Settings:
    return load(["sys.weights=weights"])


@pytest.fixture(scope="module")
def wan() -> Settings:
    return load(["model=wan_1_3b", "method=longlive", "sys.weights=weights"])


@pytest.fixture(autouse=True)
def _a_machine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def states(findings: list[Finding]) -> list[str]:
    return [found.state for found in findings]


def gpu_of(gib: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that sees a GPU with so much free memory."""
    cuda = SimpleNamespace(
        is_available=lambda: True,
        mem_get_info=lambda: (int(gib * 2**30), 80 * 2**30),
        get_device_name=lambda: "NVIDIA Test",
    )
    fake = SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="12.8"), __version__="2.13.0")
    monkeypatch.setitem(sys.modules, "torch", fake)  # type: ignore[arg-type]


@pytest.mark.parametrize("gone", ["torch", "av", "diffusers", "wandb", "decord", "none of them"])
def test_every_check_answers_whatever_is_missing_and_nobody_is_called(gone, tiny, wan, monkeypatch):
    def called(*_: Any) -> None:
        raise AssertionError("a check went to the network")

    monkeypatch.setattr(socket.socket, "connect", called)
    monkeypatch.setattr(socket, "getaddrinfo", called)
    monkeypatch.setitem(sys.modules, gone, None)  # its import fails
    monkeypatch.setattr("irope.doctor.machine.installed", lambda name: None if name == gone else installed(name))
    monkeypatch.setattr("irope.doctor.needs.installed", lambda name: None if name == gone else installed(name))
    for config in (tiny, wan):
        found = examine(config, CHECKS)
        assert not [one for one in found if "cannot be checked" in one.what]
        assert all(one.mend for one in found if one.state == "bad"), found
    affected = {"torch": "torch", "av": "video", "diffusers": "text and VAE", "wandb": "W&B"}
    if name := affected.get(gone):
        (one,) = [one for one in found if one.name == name]
        assert one.state == ("warn" if gone == "wandb" else "bad")
        assert "pip install" in one.mend


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(tiny):
    def broken(_: Settings) -> list[Finding]:
        raise ZeroDivisionError("division by zero")

    def refused(_: Settings) -> list[Finding]:
        raise UserError("no weights here; to get them run: hf download x")

    found = examine(tiny, {"a": broken, "b": refused, "c": machine.python})
    assert found[0] == Finding("a", "bad", "cannot be checked: ZeroDivisionError: division by zero")
    assert found[1] == Finding("b", "bad", "no weights here; to get them run:", "hf download x")
    assert states(found[2:]) == ["ok", "ok"]


# --- GPU and memory ---------------------------------------------------------------------------------------------------


def test_memory_is_that_of_the_specification():
    """policies.md 1.10: 287.5 MB a latent frame, 94 MB a prompt; 1.1 and 1.7: parameters, 11.4 GB of text encoder."""
    frame = machine.frame_values(480, 832)
    assert frame == 1560 * 1536 * 2 * 30  # tokens x width x (keys, values) x layers
    assert frame * 2 == pytest.approx(287.5e6, rel=1e-3)
    prompt = 2 * TEXT_LEN * machine.TOKEN_VALUES
    assert prompt == pytest.approx(94e6, rel=1e-2)
    layer = 4 * 4096 * 4096 + 3 * 4096 * 10240 + 32 * 64 + 2 * 4096  # q k v o, gated FFN, relative bias, two norms
    assert machine.PARAMETERS["text encoder"] == 256384 * 4096 + 24 * layer + 4096
    size = machine.device_bytes(frames=6, copies=1)
    assert size["text encoder"] == pytest.approx(11.4e9, rel=5e-3)
    assert size["generation"] == pytest.approx(2 * (1.419e9 + 0.127e9) + 94e6 + 6.5 * 287.5e6, rel=1e-3)
    assert machine.device_bytes(6, 1, item=4)["generation"] == 2 * size["generation"]


def test_a_gpu_that_is_too_small_for_the_text_encoder_is_told_so(wan, monkeypatch):
    gpu_of(79, monkeypatch)
    assert [(one.name, one.state) for one in machine.gpu(wan)] == [("GPU", "ok"), ("memory", "ok")]
    gpu_of(10.3, monkeypatch)
    small = machine.gpu(wan)[1]
    assert (small.state, small.mend) == ("bad", "video.model.text_encoder_device=cpu")
    assert "computed: 7.1 GB for model and cache, before that 11.4 GB for the text encoder" in small.what
    assert machine.gpu(patched(wan, "video.model.text_encoder_device", "cpu"))[1].state == "ok"
    gpu_of(6, monkeypatch)
    assert machine.gpu(wan)[1].mend == "video.model.offload=true"
    offloaded = patched(patched(wan, "video.model.offload", True), "video.model.text_encoder_device", "cpu")
    assert machine.gpu(offloaded)[1].state == "ok"
    assert "computed: 4.0 GB for the cache" in machine.gpu(offloaded)[1].what  # 7.1 GB without 1.55e9 weights
    gpu_of(3, monkeypatch)
    assert machine.gpu(wan)[1].mend == "video.method.policy.window=6"


def test_memory_is_that_of_the_configured_size(wan, monkeypatch):
    gpu_of(10.3, monkeypatch)
    on_cpu = patched(wan, "video.model.text_encoder_device", "cpu")
    assert machine.gpu(on_cpu)[1].state == "ok"
    larger = patched(patched(on_cpu, "video.model.height", 720), "video.model.width", 1280)
    found = machine.gpu(larger)[1]
    assert found.state == "bad"
    # (720 / 16) x (1280 / 16) = 3600 tokens a latent frame, 12 latent frames held, keys of a sink of 3 twice
    frames = 2 * 13.5 * 3600 * 1536 * 2 * 30
    weights = machine.device_bytes(0, 0)["generation"]
    assert f"computed: {(weights + frames) / 1e9:.1f} GB for model and cache" in found.what


def test_without_a_gpu_the_embedded_model_is_fine_and_the_large_one_is_not(tiny, wan, monkeypatch):
    fake = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: False), version=SimpleNamespace(cuda=None), __version__="2.13.0+cpu"
    )
    monkeypatch.setitem(sys.modules, "torch", fake)  # type: ignore[arg-type]
    assert states(machine.gpu(tiny)) == ["ok"]
    assert machine.gpu(wan)[0].mend == "pip install --force-reinstall torch==2.13.0"
    assert states(machine.gpu(patched(wan, "sys.device", "cpu"))) == ["ok"]
    assert states(machine.gpu(patched(tiny, "sys.device", "cuda"))) == ["bad"]
    fake.version.cuda = "12.8"
    assert machine.gpu(wan)[0].mend == "nvidia-smi"


def test_the_kernels_that_are_listed_work_here(tiny):
    (found,) = machine.attention(tiny)
    assert found.state == "ok"
    assert "math" in found.what


# --- weights, packages, systems ---------------------------------------------------------------------------------------


def test_missing_weights_have_a_line_and_a_command_each(tiny, wan, tmp_path):
    assert states(needs.weights(tiny)) == ["ok"]
    lacking = needs.weights(wan)
    names = ["longlive", "longlive_lora", "text_encoder", "tokenizer", "vae"]
    assert [one.what for one in lacking] == [f"{name}: missing" for name in names]
    assert [one.mend for one in lacking] == [entry(name).command(Path("weights")) for name in names]
    longlive = "Efficient-Large-Model/LongLive-1.3B/models"
    write_placeholders(tmp_path / "weights", f"{longlive}/longlive_base.pt", f"{longlive}/lora.pt")
    assert states(needs.weights(wan)) == ["ok"]
    (tmp_path / "weights/Wan-AI/Wan2.1-T2V-1.3B/Wan2.1_VAE.pth").unlink()
    (tmp_path / "weights/Wan-AI/Wan2.1-T2V-1.3B-Diffusers/vae").mkdir(parents=True)
    (broken,) = needs.weights(wan)
    assert broken.state == "bad"
    assert "holds no weights" in broken.what


def test_weights_given_by_path_are_looked_for_there(wan, tmp_path):
    write_placeholders(tmp_path / "weights")
    (tmp_path / "mine.pt").write_text("x")
    assert states(needs.weights(patched(wan, "video.model.generator", "mine.pt"))) == ["ok"]
    for key, message in (("generator", "no published weights are called"), ("vae", "video.model.vae=nowhere.pt")):
        found = examine(patched(wan, f"video.model.{key}", "nowhere.pt"), {"weights": needs.weights})
        assert states(found) == ["bad"]
        assert message in found[0].what


def test_a_system_is_needed_only_where_it_is_chosen(tiny, tmp_path):
    (found,) = needs.systems(tiny)
    assert found.state == "warn"
    assert found.what.startswith("ready: folder; not set up: ltx_video, magi_1")
    chosen = load(["method=skyreels_v2", "sys.weights=weights"])
    (lacking,) = needs.systems(chosen)
    assert lacking.state == "bad"
    assert lacking.mend.startswith("hf download Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers")
    assert "sys.systems.nova.python" in needs.systems(load(["method=nova"]))[0].what


def test_room_on_the_disk(tiny, wan, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage._replace(free=int(20e9)))
    assert states(machine.disk(tiny)) == ["ok", "ok"]
    # 5.7 for a file whose size was not seen, twice, 11.4, tokenizer and VAE
    weights = machine.disk(wan)[1]
    assert (weights.state, weights.name) == ("bad", "sys.weights")
    assert "23 GB are needed" in weights.what
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage._replace(free=int(0.5e9)))
    assert states(machine.disk(tiny)) == ["bad", "ok"]


def test_wandb_wants_a_key_for_the_server_only_and_never_shows_it(tiny, tmp_path, monkeypatch):
    assert states(needs.wandb(tiny)) == ["ok"]
    monkeypatch.setenv("WANDB_MODE", "online")
    (lacking,) = needs.wandb(tiny)
    assert (lacking.state, lacking.mend) == ("bad", "wandb login")
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-a-user")
    (found,) = needs.wandb(tiny)
    assert found.state == "ok"
    assert "secret" not in found.what
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret-of-a-user\n")
    assert states(needs.wandb(tiny)) == ["ok"]
    monkeypatch.setenv("WANDB_MODE", "onlin")
    assert states(needs.wandb(tiny)) == ["bad"]


def test_slurm_is_missed_only_by_its_launcher(tiny, monkeypatch):
    monkeypatch.setattr(needs.shutil, "which", lambda _: None)
    assert states(needs.slurm(tiny)) == ["ok"]
    (found,) = needs.slurm(load(["launcher=slurm"]))
    assert (found.state, found.mend) == ("bad", "launcher=local")
    monkeypatch.setattr(needs.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert states(needs.slurm(tiny)) == ["ok"]
