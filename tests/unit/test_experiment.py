"""From an experiment's file to its cells and videos, held to Hydra composing every cell in full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irope.config import CONF, ConfigError, load, own_experiment
from irope.experiment import TIERS, experiment_from
from irope.identity import config_key
from irope.jobs import JobMaker, jobs_from
from irope.policy import PolicyError

FILES = sorted((CONF / "experiment").glob("*.yaml"))
VIDEOS = [path.stem for path in FILES if "kind:" not in path.read_text()]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", VIDEOS)
def test_every_shipped_experiment_gives_videos_with_keys_of_their_own(name, tier):
    experiment = experiment_from([f"experiment={name}", f"tier={tier}"])
    jobs = [(cell, job) for cell in experiment.cells for job in experiment.jobs(cell)]
    assert jobs
    assert not experiment.left_out.keys() & {cell.label for cell in experiment.cells}
    assert experiment.name == name, "the file and what it calls itself"
    assert len({job.key for _, job in jobs}) == len({job.stem for _, job in jobs}) == len(jobs)
    assert all(job.stem.parent.name == cell.label for cell, job in jobs)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_experiment_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 50


def test_a_cell_is_what_hydra_composes():
    experiment = experiment_from(
        [
            "experiment=table1",
            "tier=smoke",
            "method=infinity_rope,rolling",
            "prompts=basic,world_128",
            "video.method.policy.window=12,18",
        ],
        multirun=True,
    )
    assert len(experiment.cells) == 8
    for cell in experiment.cells:
        in_full = load([*cell.overrides, f'video.method.name="{cell.label}"'])
        assert {k: v for k, v in cell.config.items() if k != "experiment"} == {
            k: v for k, v in in_full.items() if k != "experiment"
        }


def test_keys_are_those_of_the_records():
    config = load(["prompts=demo", "video.file.subtitles=true", "method=kv_recache", "seed=3"])
    for job in jobs_from(config):
        assert job.key == config_key(job.record)
        assert job.record["noise"]["seed"] == 3
        assert job.record["file"]["text"] is not None
    again = json.loads(json.dumps(config))
    assert [job.key for job in JobMaker().jobs(again)] == [job.key for job in jobs_from(config)]


@pytest.mark.parametrize(
    "words", [["prompts=demo"], ["prompt=a red circle moving left[3s] | a red circle circling[3s#]"]]
)
def test_the_configuration_in_a_sidecar_gives_that_video_and_no_other(words):
    for job in jobs_from(load([*words, "seed=5", "method=rolling"])):
        own = json.loads(json.dumps(job.own_config))
        assert [(again.key, again.stem) for again in jobs_from(own)] == [(job.key, job.stem)]
        assert len(own["video"]["prompts"]["scripts"]) == 1


def test_jobs_that_share_parts_have_the_keys_of_jobs_made_alone():
    experiment = experiment_from(["experiment=f0_ablation", "tier=smoke", "experiment.seeds=2"])
    for cell in experiment.cells:
        together = [(job.key, job.stem, job.seed) for job in experiment.jobs(cell)]
        alone = [
            (job.key, job.stem, job.seed)
            for seed in (0, 1)
            for job in jobs_from(load([*cell.overrides, f'video.method.name="{cell.label}"', f"seed={seed}"]))
        ]
        assert together == alone


def test_durations_are_windows_where_a_video_begins_with_the_shorter_one():
    cells = experiment_from(["experiment=table1", "tier=quick"]).cells
    found = {(cell.label, cell.seconds) for cell in cells}
    assert {("infinity_rope", (5.0, 60.0)), ("rolling", (5.0, 60.0)), ("causvid", (5.0,)), ("causvid", (60.0,))} < found
    for cell in cells:
        assert cell.config["video"]["duration"] == cell.seconds[-1]
    scripted = experiment_from(["prompt=a red circle moving left | a red circle moving up", "duration=6,12"], True)
    assert [cell.seconds for cell in scripted.cells] == [(6.0,), (12.0,)], "a longer video switches later"


def test_the_command_line_wins():
    given = ["experiment=delta_ablation", "tier=smoke"]
    assert [c.label for c in experiment_from(given).cells] == [
        *("infinity_rope@cut_delta=6", "infinity_rope@cut_delta=90")
    ]
    one = experiment_from([*given, "video.method.policy.cut_delta=45"])
    assert [c.label for c in one.cells] == ["infinity_rope@cut_delta=45"]
    more = experiment_from([*given, "video.method.policy.cut_delta=1,2,3", "seed=4,5", "experiment.prompts=2"], True)
    assert len(more.cells) == 3
    assert [(job.script.id, job.seed) for job in more.jobs(more.cells[0])][::2] == [
        ("red-circle", 4),
        ("red-circle", 5),
    ]


def test_labels_tell_fixed_settings_of_the_method_as_well():
    cells = experiment_from(["experiment=cache_size", "tier=smoke"]).cells
    assert [cell.label for cell in cells] == ["infinity_rope@f0=21,window=6", "infinity_rope@f0=21,window=21"]
    assert [cell.axes for cell in cells] == [{"window": 6}, {"window": 21}]


def test_a_policy_that_cannot_make_such_videos_is_left_out_of_a_sweep_and_an_error_alone():
    sweep = experiment_from(["policy=glob(*)", "prompts=basic", "duration=60"], multirun=True)
    made = {cell.label: len(list(sweep.jobs(cell))) for cell in sweep.cells}
    assert made.pop("full") == 0
    assert set(made.values()) == {8}
    assert "holds 21 latent frames" in sweep.left_out["full"]
    alone = experiment_from(["policy=full", "prompts=basic", "duration=60"])
    with pytest.raises(PolicyError, match="holds 21 latent frames"):
        list(alone.jobs(alone.cells[0]))


def test_own_files(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "description: x\nsweep: {seed: '0,1', video.method.policy.window: '6,9'}\ntiers: {quick: {prompts: 2}}\n"
    )
    experiment = experiment_from([f"experiment={own_experiment(path)}"])
    assert (experiment.name, experiment.seeds, experiment.axes, len(experiment.cells)) == (
        "mine",
        (0, 1),
        ("window",),
        2,
    )
    path.write_text("description: [\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml cannot be read.*line"):
        own_experiment(path)
    shipped = tmp_path / "table1.yaml"
    shipped.write_text("description: x\n")
    with pytest.raises(ConfigError, match="table1 is an experiment that ships"):
        own_experiment(shipped)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tires: {quick: {}}", "no field 'tires'; did you mean 'tiers'"),
        ("tiers: {quick: {promts: 2}}", "tier quick: no field 'promts'; did you mean 'prompts'"),
        (
            "sweep: {video.method.policy.windw: '6,9'}\ntiers: {quick: {}}",
            "unknown key 'video.method.policy.windw'; did",
        ),
        ("sweep: {method: 'roling,full'}\ntiers: {quick: {}}", "method=roling: unknown method; did you mean 'rolling'"),
        ("tiers: {smoke: {}}", "tier=quick: experiment broken has no such tier"),
        ("tiers: {quick: {prompts: 900}}", "video.prompts.limit=900"),
        ("tiers: {quick: {seeds: many}}", "seeds=many: expected a whole number"),
        ("tiers: {quick: {seconds: [5, long]}}", "seconds=long: expected a number"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text + "\n")
    with pytest.raises(ValueError, match=message):
        first_job([f"experiment={own_experiment(path)}", "prompts=basic"])


def first_job(arguments: list[str]) -> object:
    experiment = experiment_from(arguments)
    return next(experiment.jobs(experiment.cells[0]))


@pytest.mark.parametrize("name", ["latency", "policy_study"])
def test_a_measurement_has_no_videos_and_says_what_makes_it(name: str):
    with pytest.raises(ConfigError, match=f"has no videos to list; irope run {name} makes it"):
        experiment_from([f"experiment={name}"])
