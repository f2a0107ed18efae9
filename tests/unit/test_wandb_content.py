"""What is sent to W&B, without the client: ids, digests, and numbers held to a second way to compute them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from eval.experiment_table import experiment_table
from eval.results import Results
from eval.wandb_content import LARGEST_VIDEO, Content, contents, public_command, public_config, run_id
from tests.results_kit import make_results

CELLS = {f"infinity_rope@cut_delta={d}": {"cut_delta": d} for d in (6, 45)}


def made(results: Results, **more) -> list[Content]:
    return contents(results, [experiment_table(results, columns=list(dict.fromkeys(results.frame["metric"])))], **more)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    return make_results(tmp_path_factory.mktemp("results"), CELLS, seconds=(5.0, 40.0))


def test_an_id_depends_on_what_the_run_is_about_and_not_on_the_machine(results):
    config = {"video": {"method": {"name": "a"}, "model": {"weights": "/here/w.safetensors"}}, "sys": {"out": "/here"}}
    moved = {"video": {"method": {"name": "a"}, "model": {"weights": "/x/w.safetensors"}}, "sys": {"out": "y"}}
    first = run_id(results, "a", config)
    assert run_id(results, "a", moved) == first
    others = [
        run_id(results, "b", config),
        run_id(results, "a", {"video": {"method": {"name": "b"}}}),
        *(run_id(replace(results, **{field: "x"}), "a", config) for field in ("name", "tier", "protocol", "model")),
    ]
    assert len({first, *others}) == 7


def test_a_config_is_sent_without_secrets_and_folders_of_the_machine():
    config = {
        "sys": {"out": "/data/me"},
        "video": {"file": "/data/me/prompts.txt", "tokens": 4, "policy": {"merge_tokens": "mean"}, "api_key": "s3cret"},
        "list": ["/data/me/a", "b/c", 0.5, None, True],
    }
    sent = public_config(config)
    assert sent == {
        "video": {"file": "prompts.txt", "tokens": 4, "policy": {"merge_tokens": "mean"}, "api_key": "(left out)"},
        "list": ["a", "b/c", 0.5, None, True],
    }
    command = "irope generate prompt='a / b' sys.out=/data/me/runs video.prompts.file='/x/y z.txt' a=b/c"
    assert public_command(command) == "irope generate prompt='a / b' sys.out=runs video.prompts.file='y z.txt' a=b/c"


def test_summaries_are_means_of_the_score_files(results):
    for cell, content in zip(results.cells, made(results), strict=False):
        files = [json.loads(video.scores.read_text()) for video in cell.videos]
        short, long = sorted(files[0]["windows"], key=lambda name: int(name[2:]))
        for window, length in ((short, "5s"), (long, "40s")):
            values = [file["windows"][window]["scores"]["imaging"]["value"] for file in files]
            assert content.summary[f"imaging/{length}/mean"] == pytest.approx(np.mean(values))
            assert content.summary[f"imaging/{length}/n"] == len(values) == 10
            assert (
                content.summary[f"imaging/{length}/low"] < np.mean(values) < content.summary[f"imaging/{length}/high"]
            )
        assert content.best["imaging/40s/mean"] == "max"
        assert "flow_motion/40s/mean" not in content.best  # motion has no better direction
        curves = [file["windows"][long]["scores"]["imaging"]["curve"]["values"] for file in files]
        assert [row["curve/imaging"] for row in content.history] == pytest.approx(np.mean(curves, 0))
        assert {row["curve/imaging n"] for row in content.history} == {10}
        assert [row["second"] for row in content.history] == list(range(40))


def test_a_digest_changes_with_a_score_and_with_nothing_else(tmp_path):
    def value(change):
        return lambda method, axes, prompt, seed, seconds, metric: (
            0.5 + change * (prompt == "p3" and axes["cut_delta"] == 6)
        )

    first = made(make_results(tmp_path / "a", CELLS, value=value(0)))
    again = made(make_results(tmp_path / "b", CELLS, value=value(0)))
    other = made(make_results(tmp_path / "c", CELLS, value=value(1e-6)))
    assert [run.digest for run in first] == [run.digest for run in again]
    assert [run.id for run in first] == [run.id for run in other]
    assert [a.digest == b.digest for a, b in zip(first, other, strict=True)] == [False, True, False]


def test_few_and_small_videos_are_sent_along_and_the_rest_is_said(tmp_path):
    results = make_results(tmp_path, CELLS)
    for video in results.cells[0].videos[:5]:
        video.video.write_bytes(b"mp4")
    with results.cells[0].videos[1].video.open("wb") as file:
        file.truncate(LARGEST_VIDEO + 1)
    first, second, report = made(results, videos=3)
    place = first.grid.columns.index("video")
    assert [row[place] and row[place].name for row in first.grid.rows][:4] == [
        "p0-seed0-0123abcd.mp4",
        None,
        "p2-seed0-0123abcd.mp4",
        None,
    ]
    assert first.notes == ("with 2 of 10 videos", "1 larger than 32 MiB left out")
    assert second.notes == ("with 0 of 10 videos",)
    assert len(report.archive) == 20
    small = replace(first, grid=replace(first.grid, rows=first.grid.rows[:1]))
    before = small.digest
    results.cells[0].videos[0].video.write_bytes(b"MP4")
    assert small.digest != before


def test_cells_without_scores_and_gaps(tmp_path):
    results = make_results(
        tmp_path, CELLS, leave_out=lambda label, prompt, seed: label.endswith("45") or prompt == "p1"
    )
    runs = made(results)
    assert [run.name for run in runs] == ["infinity_rope@cut_delta=6", "delta_ablation quick"]
    assert (runs[0].summary["videos"], runs[0].summary["videos missing"]) == (9, 1)
    assert runs[1].summary["videos missing"] == 11
