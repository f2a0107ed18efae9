"""The other systems of the paper's tables: each has a row in the experiment where it can run, and else a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from eval.published import SAME_ROWS
from eval.table_published import named
from irope.catalog import CONF
from irope.config import ConfigError
from irope.errors import WeightsError
from irope.experiment import Experiment, experiment_from
from tests.wan_folder import write_placeholders

GENERATORS = (
    *("SOTAMak1r/Infinite-Forcing/ema_model.pt", "gdhe17/Self-Forcing/checkpoints/self_forcing_dmd.pt"),
    "TencentARC/RollingForcing/checkpoints/rolling_forcing_dmd.pt",
    "tianweiy/CausVid/autoregressive_checkpoint/model.pt",
)
SKYREELS = "Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers"
PARTS = ("model_index.json", "transformer/a", "vae/a", "text_encoder/a", "tokenizer/a", "scheduler/a")


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides with which plans find all generators, SkyReels-V2, and part of what Wan2.1 needs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_placeholders(tmp_path, *GENERATORS, *(f"{SKYREELS}/{part}" for part in PARTS))
    write_placeholders(tmp_path, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers/vae/a")
    return ["model=wan_1_3b", f"sys.weights={tmp_path}", "tier=smoke"]


def made(experiment: Experiment) -> dict[str, int]:
    """Videos of every row."""
    found: dict[str, int] = {}
    for cell in experiment.cells:
        found[cell.label] = found.get(cell.label, 0) + len(list(experiment.jobs(cell)))
    return found


@pytest.mark.parametrize("name", ["table1", "table2", "action_control"])
def test_every_model_of_the_papers_tables_has_a_row(name: str):
    experiment = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8"))
    rows = {*experiment["sweep"]["method"].split(","), *experiment["systems"]}
    for table in map(named, experiment["published"]):
        assert {table.method(line[0]) for line in table.rows} <= {SAME_ROWS.get(row, row) for row in rows}


def test_beside_the_embedded_model_they_are_left_out_with_the_reason():
    experiment = experiment_from(["experiment=table1", "tier=smoke"])
    assert set(made(experiment)) == {"infinity_rope", "rolling", "rolling_forcing", "causvid"}
    (reason,) = experiment.reasons
    assert reason.startswith("skyreels_v2, magi_1, nova, pyramid_flow, wan_2_1, ltx_video: ")
    assert "model=wan_1_3b" in reason


def test_beside_the_large_model_those_run_that_are_here(large: list[str]):
    experiment = experiment_from(["experiment=table1", "duration=5,60", *large], multirun=True)
    assert made(experiment) == {
        "infinity_rope": 1, "rolling": 1, "rolling_forcing": 2, "causvid": 2,
        "skyreels_v2": 2, "magi_1": 0, "nova": 0, "pyramid_flow": 0, "wan_2_1": 0, "ltx_video": 0,
    }  # fmt: skip
    why = experiment.left_out
    assert set(why) == {"magi_1", "nova", "pyramid_flow", "wan_2_1", "ltx_video"}
    assert "set sys.systems.nova.python" in why["nova"]
    assert "only a part is there, without model_index.json, transformer/*" in why["wan_2_1"]
    assert why["wan_2_1"].endswith("asked for 60 s"), "and the other length has a reason of its own"
    assert "hf download Lightricks/LTX-Video" in why["ltx_video"]
    assert why["magi_1"].count("sys.systems.magi_1.python") == 1, "once for both lengths"


def test_what_the_command_line_asks_for_is_all_there_is(large: list[str]):
    assert set(made(experiment_from(["experiment=table1", "method=rolling", *large]))) == {"rolling"}
    experiment = experiment_from(["experiment=table1", "video.method.policy.window=9", *large])
    assert {cell.method for cell in experiment.cells} == {"infinity_rope", "rolling", "rolling_forcing", "causvid"}
    assert "video.method.policy.window is a setting of the other methods" in experiment.left_out["nova"]


def test_one_that_is_asked_for_by_name_fails_where_it_cannot_run(large: list[str]):
    experiment = experiment_from(["experiment=table1", "method=ltx_video", *large])
    with pytest.raises(WeightsError, match="hf download Lightricks/LTX-Video"):
        made(experiment)


def test_systems_without_methods_to_stand_beside_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="systems stand beside the methods of a sweep"):
        experiment_from(["experiment=beyond_1024", "~experiment.sweep.method", "+experiment.systems=[nova]"])
