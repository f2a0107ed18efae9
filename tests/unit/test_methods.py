"""Methods as their authors publish them, number by number; their weights, sources and licences."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from irope.catalog import entries
from irope.config import load, patched
from irope.jobs import jobs_from
from irope.methods import method_values, methods, weights_note
from irope.models.wan.catalogue import generator_of, of_kind
from irope.policy import CacheEvent, CacheView, Page
from irope.registry import make_policy
from irope.systems import ImpossibleError, systems
from tests.wan_folder import write_placeholders

ROOT = Path(__file__).parents[2]
SHIFT_5 = (1000, 937.5, 833.333, 625)
ROLLING_FORCING = (1000, 952.381, 882.353, 769.231, 555.556)
SHIFT_8 = (1000, 960, 888.889, 727.273)

# policies.md 1.5, 1.6, 2.1 to 2.9: policy, window, sink, weights, timesteps
PRESETS: dict[str, tuple[str, int, int, str, tuple[float, ...]]] = {
    "full": ("full", 21, 0, "self_forcing_dmd", SHIFT_5),
    "self_forcing_5s": ("full", 21, 0, "self_forcing_dmd", SHIFT_5),
    "rolling": ("rolling", 21, 0, "self_forcing_dmd", SHIFT_5),
    "rolling_w6": ("rolling", 6, 0, "self_forcing_dmd", SHIFT_5),
    "rolling_sink1": ("rolling", 6, 1, "self_forcing_dmd", SHIFT_5),
    "self_forcing_w6": ("rolling", 6, 0, "self_forcing_dmd", SHIFT_5),
    "self_forcing_w12": ("rolling", 12, 0, "self_forcing_dmd", SHIFT_5),
    "self_forcing_w21": ("rolling", 21, 0, "self_forcing_dmd", SHIFT_5),
    "infinity_rope": ("infinity_rope", 6, 1, "infinite_forcing", SHIFT_5),
    "infinity_rope_paper": ("infinity_rope", 6, 1, "self_forcing_dmd", SHIFT_5),
    "infinity_rope_plain": ("infinity_rope", 6, 1, "self_forcing_dmd", SHIFT_5),
    "infinity_rope_paper_tuned": ("infinity_rope", 6, 1, "infinite_forcing", SHIFT_5),
    "rolling_w6_tuned": ("rolling", 6, 0, "infinite_forcing", SHIFT_5),
    "infinite_forcing": ("infinity_rope", 6, 1, "infinite_forcing", SHIFT_5),
    "kv_recache": ("kv_recache", 12, 3, "longlive", SHIFT_5),
    "longlive": ("kv_recache", 12, 3, "longlive", SHIFT_5),
    "longlive_infinity": ("kv_recache", 12, 3, "longlive", SHIFT_5),
    "rolling_forcing": ("rolling_forcing", 21, 3, "rolling_forcing_dmd", ROLLING_FORCING),
    "memrope": ("memrope", 12, 3, "self_forcing_dmd", SHIFT_5),
    "rolling_sink": ("rolling_sink", 21, 18, "self_forcing_dmd", SHIFT_5),
    "causal_forcing": ("full", 21, 0, "causal_forcing", SHIFT_5),
    "causal_forcing_long": ("rolling_forcing", 21, 3, "causal_forcing_long", SHIFT_5),
    "causvid": ("causvid", 21, 0, "causvid", (1000, 757, 522)),
    "causvid_4step": ("causvid", 21, 0, "causvid_4step", SHIFT_8),
}

NO_LONGER_THAN_5_S = {"full", "self_forcing_5s", "causal_forcing"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Placeholders of every generator: plans read no weights."""
    found = tmp_path_factory.mktemp("weights")
    parts = [one for kind in ("generator", "lora") for one in of_kind(kind) if not one.file.endswith("/")]
    write_placeholders(found, *(f"{one.repo}/{one.file}" for one in parts))
    return found


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_every_method_of_a_policy_is_in_the_table():
    assert {one.name for one in methods(Path("nowhere")) if one.kind.startswith("policy")} == set(PRESETS)


@pytest.mark.parametrize("method", PRESETS)
def test_a_preset_has_the_published_numbers(method, root):
    policy, window, sink, weights, timesteps = PRESETS[method]
    config = load(["model=wan_1_3b", f"sys.weights={root}", "prompt=a fox runs[5s]", f"method={method}"])
    found = jobs_from(config)[0].record
    assert {"name": policy, "window": window, "sink": sink}.items() <= found["policy"].items()
    assert found["model"]["name"] == f"wan_1_3b/{weights}"
    assert found["timesteps"] == pytest.approx(timesteps, abs=5e-4)
    # What `irope list` reads without Hydra is what Hydra composes.
    composed, read = config["video"]["method"], method_values(method)
    assert composed["name"] == method
    assert composed["policy"] == read["policy"]
    assert composed["steps"] == (list(read["steps"]) if read["steps"] else None)
    assert composed["generator"] == read["generator"]
    assert generator_of(method) == weights
    assert weights_note(config) is None


@pytest.mark.parametrize("method", PRESETS)
def test_the_embedded_model_runs_every_preset_or_says_why_not(method):
    """With steps of its own: the preset's weights, and how they are sampled, are the 1.3B model's."""
    config = load([f"method={method}", "prompt=a red circle moving left", "duration=5"])
    assert jobs_from(config)[0].record["model"]["name"].startswith("tiny/")
    longer = patched(config, "duration", 60)
    if method in NO_LONGER_THAN_5_S:
        with pytest.raises(ImpossibleError, match="holds 21 latent frames"):
            jobs_from(longer)
    else:
        assert jobs_from(longer)


def test_the_weights_named_by_a_preset_are_no_part_of_an_embedded_video_s_key():
    def key(method: str) -> str:
        return jobs_from(load([f"method={method}", "prompt=a red circle moving left[5s]"]))[0].key

    assert key("self_forcing_w6") == key("rolling_w6")
    assert key("longlive") == key("kv_recache")
    assert key("causvid_4step") == key("causvid")
    assert key("self_forcing_w12") != key("rolling_w6")


def test_the_released_and_the_printed_infinity_rope():
    """policies.md 2.8: f0 is the window in the code, 21 in the text; flush keeps two frames, or one."""

    def settings(name: str) -> tuple[Any, ...]:
        policy: Any = make_policy(
            "infinity_rope", {k: v for k, v in method_values(name)["policy"].items() if k != "name"}
        )
        return policy.f0, policy.flush_keep, policy.cut_mode, policy.cut_frames, policy.cut_delta

    assert settings("infinity_rope") == (6, 2, "target", "all", 45)
    assert settings("infinity_rope_paper") == (21, 1, "offset", "last2", 45)
    assert settings("infinity_rope_plain") == settings("infinity_rope")
    assert settings("infinity_rope_paper_tuned") == settings("infinity_rope_paper")


@pytest.mark.parametrize("event", CacheEvent)
def test_infinite_forcing_knows_no_flush_and_no_jump(event):
    """policies.md 2.7: slot numbers, whatever happens; a switch acts through cross-attention alone."""
    values = {key: value for key, value in method_values("infinite_forcing")["policy"].items() if key != "name"}
    view = CacheView(tuple(Page(frame) for frame in (0, 7, 8, 9, 10, 11)), (12, 13, 14), event)
    plan = make_policy("infinity_rope", values).plan(view)
    assert (plan.read, plan.key_index, plan.query_index) == ((0, 10, 11), (0, 1, 2), (3, 4, 5))


def test_longlive_recaches_at_frame_numbers_and_longlive_infinity_at_slots():
    assert method_values("longlive")["policy"]["index"] == "absolute"
    assert method_values("longlive_infinity")["policy"]["index"] == "relative"


# --- the list ---------------------------------------------------------------------------------------------------------


def test_every_method_says_what_it_is_where_from_and_under_which_licence(tmp_path):
    found = {one.name: one for one in methods(tmp_path)}
    assert sorted(found) == [entry.name for entry in entries("methods")]
    assert not [name for name, one in found.items() if not one.summary]
    assert [name for name, one in found.items() if not (one.source and one.licence)] == ["folder"]
    assert [name for name, one in found.items() if not one.weights] == ["folder"]
    assert {one.kind.removeprefix("system ") for one in found.values() if one.kind.startswith("system")} == set(
        systems()
    )
    assert found["rolling_forcing"].licence == "academic use only"
    assert found["causvid"].licence == found["causvid_4step"].licence == "CC-BY-NC-SA-4.0"
    assert found["infinity_rope_paper"].kind == "policy infinity_rope: window 6, sink 1, compat paper"


def test_the_list_loads_nothing_heavy():
    code = "import sys; from irope.cli.main import main; main(['list', 'methods']); print(*sys.modules)"
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    text, _, modules = done.stdout.rpartition("\n\n")
    assert not {"torch", "numpy", "hydra", "omegaconf", "av", "diffusers"} & set(modules.split())
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "policy rolling: window 6, sink 0; weights: self_forcing_dmd, " in text


def test_weights_are_present_when_all_their_files_are(tmp_path):
    def missing(name: str) -> list[str]:
        (one,) = [one for one in methods(tmp_path) if one.name == name]
        return [path.name for path in one.missing]

    longlive = "Efficient-Large-Model/LongLive-1.3B/models"
    assert missing("longlive") == ["longlive_base.pt", "lora.pt"]
    write_placeholders(tmp_path, f"{longlive}/longlive_base.pt")
    assert missing("longlive") == ["lora.pt"]
    write_placeholders(tmp_path, f"{longlive}/lora.pt")
    assert missing("longlive") == []
    assert missing("magi_1") == ["MAGI-1"]
    (tmp_path / "sand-ai" / "MAGI-1").mkdir(parents=True)
    assert missing("magi_1") == []
    assert missing("folder") == []


def test_other_weights_than_the_method_s_own_are_said(root):
    wan = ["model=wan_1_3b", f"sys.weights={root}"]
    assert weights_note(load([*wan, "method=causvid"])) is None
    note = weights_note(load([*wan, "method=infinity_rope", "video.model.generator=self_forcing_dmd"]))
    assert note is not None
    assert "published with the weights infinite_forcing; these videos are made with self_forcing_dmd" in note
    assert weights_note(load([*wan, "method=rolling", "video.model.generator=self_forcing_dmd"])) is None
    copy = "video.model.generator=/data/Infinite-Forcing/ema_model.pt"
    assert weights_note(load([*wan, "method=infinity_rope", copy])) is None
    assert weights_note(load([*wan, "method=skyreels_v2", "video.model.generator=causvid"])) is None
    assert weights_note(load(["method=causvid"])) is None  # the embedded model
