"""The table of published weights, what methods need of it, and the keys and timesteps that follow; without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from irope import digests
from irope.config import ConfigError, load
from irope.errors import UserError, WeightsError
from irope.jobs import VideoJob, jobs_from
from irope.models.wan.catalogue import catalogue, entry, entry_of_file, generator_of, methods_with, of_kind, parts_of
from irope.models.wan.presence import look
from tests.wan_folder import write_placeholders

ROOT = Path(__file__).parents[2]
PROMPT = 'prompt="a red fox walks[5s]"'

PUBLISHED = {  # policies.md 1.5 and 1.7
    "Wan-AI/Wan2.1-T2V-1.3B": ["diffusion_pytorch_model.safetensors", "models_t5_umt5-xxl-enc-bf16.pth",
                               "google/umt5-xxl/", "Wan2.1_VAE.pth"],
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": ["transformer/", "text_encoder/", "tokenizer/", "vae/"],
    "gdhe17/Self-Forcing": [f"checkpoints/{name}.pt" for name in ("self_forcing_dmd", "self_forcing_10s", "ode_init")],
    "SOTAMak1r/Infinite-Forcing": ["ema_model.pt"],
    "zhuhz22/Causal-Forcing": ["chunkwise/causal_forcing.pt", "chunkwise/longvideo.pt"],
    "TencentARC/RollingForcing": ["checkpoints/rolling_forcing_dmd.pt"],
    "Efficient-Large-Model/LongLive-1.3B": ["models/longlive_base.pt", "models/lora.pt"],
    "tianweiy/CausVid": ["autoregressive_checkpoint/model.pt"],
    "wlsaidhi/SFWan2.1-T2V-1.3B-Diffusers": ["transformer/"],
}  # fmt: skip

SELF_FORCING = (1000, 937.5, 833.333, 625)
TIMESTEPS: dict[str, tuple[str, tuple[float, ...]]] = {  # method -> weights and t, policies.md 1.6
    "full": ("self_forcing_dmd", SELF_FORCING),
    "rolling": ("self_forcing_dmd", SELF_FORCING),
    "rolling_sink1": ("self_forcing_dmd", SELF_FORCING),
    "infinity_rope": ("infinite_forcing", SELF_FORCING),
    "infinity_rope_paper": ("self_forcing_dmd", SELF_FORCING),
    "kv_recache": ("longlive", SELF_FORCING),
    "longlive_infinity": ("longlive", SELF_FORCING),
    "rolling_forcing": ("rolling_forcing_dmd", (1000, 952.381, 882.353, 769.231, 555.556)),
    "causvid": ("causvid", (1000, 757, 522)),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Placeholders of every generator."""
    found = tmp_path / "weights"
    for kind in ("generator", "lora"):
        for one in of_kind(kind):
            if not one.file.endswith("/"):
                write_placeholders(found, f"{one.repo}/{one.file}")
    return found


def job(root: Path, *overrides: str) -> VideoJob:
    return jobs_from(load(["model=wan_1_3b", f"sys.weights={root}", PROMPT, *overrides]))[0]


def test_every_published_row_is_there():
    rows = {(one.repo, one.file) for one in catalogue().values()}
    assert not [(repo, file) for repo, files in PUBLISHED.items() for file in files if (repo, file) not in rows]
    assert len(rows) == len(catalogue())


def test_what_is_known_of_each():
    for one in catalogue().values():
        assert one.licence
        assert one.size is None or one.size > 1e6
        assert one.lora is None or entry(one.lora).kind == "lora"
    assert entry("self_forcing_dmd").ema is True
    assert entry("causal_forcing").ema is False
    assert [one.name for one in parts_of("longlive")] == ["longlive", "longlive_lora"]
    assert entry("causal_forcing_framewise").block == 1
    with pytest.raises(WeightsError, match="did you mean 'causvid'"):
        entry("causvdi")


def test_the_command_puts_a_file_where_it_is_looked_for(tmp_path):
    """``hf download`` keeps the path within the repository below its local folder."""
    one = entry("self_forcing_dmd")
    assert one.command(tmp_path) == (
        f"hf download gdhe17/Self-Forcing checkpoints/self_forcing_dmd.pt --local-dir {tmp_path}/gdhe17/Self-Forcing"
    )
    assert one.path(tmp_path) == tmp_path / "gdhe17/Self-Forcing" / "checkpoints/self_forcing_dmd.pt"
    folder = entry("text_encoder_diffusers").command(tmp_path)
    assert "--include 'text_encoder/*' --local-dir" in folder


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/self_forcing_dmd.pt", "self_forcing_dmd"),
        ("/data/chunkwise/causal_forcing.pt", "causal_forcing"),
        ("framewise/causal_forcing.pt", "causal_forcing_framewise"),
        ("/data/autoregressive_checkpoint/model.pt", "causvid"),
        ("/x/autoregressive_checkpoint_warp_4step_cfg2/model.pt", "causvid_4step"),
        ("/data/causal_forcing.pt", None),
        ("/data/model.pt", None),
        ("/data/diffusion_pytorch_model.safetensors", None),
        ("/data/mine.pt", None),
    ],
)
def test_a_file_is_known_by_the_end_of_its_path(path, name):
    found = entry_of_file(Path(path))
    assert (found.name if found else None) == name


@pytest.mark.parametrize("method", TIMESTEPS)
def test_each_method_gets_its_weights_and_the_published_timesteps(method, root):
    weights, timesteps = TIMESTEPS[method]
    assert generator_of(method) == weights
    assert method in methods_with(weights)
    made = job(root, f"method={method}")
    assert made.record["model"]["name"] == f"wan_1_3b/{weights}"
    assert made.record["timesteps"] == pytest.approx(timesteps, abs=5e-4)


def test_any_method_runs_with_any_weights(root):
    made = job(root, "method=infinity_rope", "video.model.generator=causvid_4step")
    assert made.record["model"]["name"] == "wan_1_3b/causvid_4step"
    assert made.record["timesteps"] == pytest.approx((1000, 960, 888.889, 727.273), abs=5e-4)
    longer = job(root, "method=rolling_forcing", "video.model.generator=causal_forcing_long", "video.method.steps=null")
    assert longer.record["timesteps"] == pytest.approx(SELF_FORCING, abs=5e-4)
    framewise = job(root, "method=rolling", "video.model.generator=causal_forcing_framewise")
    assert framewise.timeline.clock.block == 1


def test_a_file_of_ones_own_is_sampled_as_it_is_told_or_known(root, tmp_path):
    copy = tmp_path / "autoregressive_checkpoint" / "model.pt"
    copy.parent.mkdir()
    copy.write_text("mine")
    assert job(root, f"video.model.generator={copy}").record["timesteps"] == [1000, 757, 522]
    mine = tmp_path / "mine.pt"
    mine.write_text("mine")
    made = job(root, f"video.model.generator={mine}")
    assert made.record["model"]["name"] == "wan_1_3b/mine"
    assert made.record["timesteps"] == pytest.approx(SELF_FORCING, abs=5e-4)
    told = job(root, f"video.model.generator={mine}", "video.model.sampled_as=causvid")
    assert told.record["timesteps"] == [1000, 757, 522]


# --- keys -------------------------------------------------------------------------------------------------------------

DECIDING = [
    "gdhe17/Self-Forcing/checkpoints/self_forcing_dmd.pt",
    "Wan-AI/Wan2.1-T2V-1.3B/models_t5_umt5-xxl-enc-bf16.pth",
    "Wan-AI/Wan2.1-T2V-1.3B/google/umt5-xxl/tokenizer.json",
    "Wan-AI/Wan2.1-T2V-1.3B/Wan2.1_VAE.pth",
]


@pytest.mark.parametrize("file", DECIDING)
def test_every_file_that_decides_frames_is_part_of_the_key(file, root):
    before = job(root, "method=rolling").key
    assert job(root, "method=rolling").key == before
    (root / file).write_text("other weights")
    assert job(root, "method=rolling").key != before


def test_a_lora_is_part_of_the_key(root):
    before = job(root, "method=kv_recache").key
    scaled = job(root, "method=kv_recache", "video.model.lora_alpha=128").key
    (root / "Efficient-Large-Model/LongLive-1.3B/models/lora.pt").write_text("other")
    assert len({before, scaled, job(root, "method=kv_recache").key}) == 3


@pytest.mark.parametrize(
    "override",
    [
        *("video.model.ema=false", "video.model.height=512", "video.model.dtype=float32"),
        *("video.model.vae_tiling=true", "video.model.latents_per_call=3"),
    ],
)
def test_settings_that_decide_frames_are_part_of_the_key(override, root):
    assert job(root, "method=rolling", override).key != job(root, "method=rolling").key


def test_where_the_weights_lie_and_where_text_is_encoded_are_not(root, tmp_path):
    before = job(root, "method=rolling").key
    root.rename(tmp_path / "moved")
    assert job(tmp_path / "moved", "method=rolling", "video.model.text_encoder_device=cpu").key == before


def test_a_digest_is_computed_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "weights.pt"
    path.write_text("a")
    read: list[Path] = []
    monkeypatch.setattr(digests, "file_digest", lambda one: read.append(one) or f"digest {one.read_text()}")
    assert digests.known_digest(path) == ""
    assert [digests.digest(path), digests.digest(path), digests.known_digest(path)] == ["digest a"] * 3
    monkeypatch.setattr(digests, "_session", {})  # as another process sees it
    assert digests.digest(path) == "digest a"
    assert len(read) == 1
    path.write_text("bb")
    assert digests.digest(path) == "digest bb"


def test_a_home_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(digests.digest(tmp_path / "file")) == 64


# --- what is missing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (DECIDING[0], ["video.model.generator", "self_forcing_dmd is not at", "hf download gdhe17/Self-Forcing"]),
        (DECIDING[1], ["video.model.text_encoder: none is below", "hf download Wan-AI/Wan2.1-T2V-1.3B models_t5"]),
        (DECIDING[2], ["video.model.tokenizer: none is below", "--include 'google/umt5-xxl/*'"]),
        (DECIDING[3], ["video.model.vae: none is below", "hf download", "Wan2.1_VAE.pth"]),
    ],
)
def test_what_is_missing_is_named_with_the_command(gone, words, root):
    (root / gone).unlink()
    if gone.endswith(".json"):
        (root / gone).parent.rmdir()
    with pytest.raises(WeightsError) as error:
        job(root, "method=rolling")
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("video.model.generator=self_forcing_dmb", ["neither a file or folder", "did you mean 'self_forcing_dmd'"]),
        ("video.model.generator=vae", ["neither a file or folder"]),
        ("video.model.sampled_as=causvi", ["did you mean 'causvid'"]),
        ("video.model.lora=nowhere.pt", ["video.model.lora=nowhere.pt", "no such file"]),
        ("video.model.lora_alpha=-1", ["video.model.lora_alpha=-1", "positive number"]),
        ("video.model.ema=maybe", ["video.model.ema=maybe", "auto, true or false"]),
        ("video.model.height=481", ["video.model.height=481", "nearest valid: 480 or 496"]),
        ("video.model.config=nowhere.json", ["video.model.config=nowhere.json", "no such file"]),
        ("prompt=''", ["prompt"]),
    ],
)
def test_a_wrong_value_is_named(override, words, root):
    with pytest.raises((WeightsError, ConfigError, UserError)) as error:
        job(root, "method=rolling", override)
    for word in words:
        assert word in str(error.value)


def test_presence(root, tmp_path):
    one = entry("self_forcing_dmd")
    assert look(one, tmp_path / "elsewhere").status == "missing"
    found = look(one, root)
    assert (found.status, found.digest, found.size) == ("present", "", found.path.stat().st_size)
    assert look(one, root, compute_digest=True).digest == digests.file_digest(found.path)
    assert look(one, root).digest
    assert "smaller than published" in look(entry("infinite_forcing"), root).problem
    (root / "Wan-AI/Wan2.1-T2V-1.3B-Diffusers/vae").mkdir(parents=True)
    broken = look(entry("vae_diffusers"), root)
    assert (broken.status, "holds no weights" in broken.problem) == ("incomplete", True)


def test_plans_need_no_torch(root):
    code = (
        "import sys; from irope.config import load; from irope.jobs import jobs_from;"
        f"jobs_from(load(['model=wan_1_3b', 'sys.weights={root}', {PROMPT!r}, 'method=causvid']));"
        "print('torch' in sys.modules)"
    )
    environment: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "False"
