"""The W&B sink with the real client, offline, read back from the client's own files by the client's own reader."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from eval import wandb_sink as sink
from eval.experiment_table import experiment_table
from eval.results import Results
from eval.wandb_client import ClientError, send_run
from eval.wandb_content import Content, contents
from eval.wandb_file import is_whole
from eval.wandb_sink import send
from tests.results_kit import make_results

ROOT = Path(__file__).resolve().parents[2]
CELLS = {f"infinity_rope@cut_delta={d}": {"cut_delta": d} for d in (6, 45)}

needs_client = pytest.mark.skipif(
    find_spec("wandb") is None, reason="wandb is not installed: pip install -c constraints.txt -e '.[wandb]'"
)


def runs_of(results: Results, folder: Path) -> list[Content]:
    (folder / "table.csv").write_text("made up\n")
    columns = list(dict.fromkeys(results.frame["metric"]))
    return contents(results, [experiment_table(results, columns=columns)], files={"table.csv": folder / "table.csv"})


def made(folder: Path, change: float = 0.0) -> Results:
    def value(method, axes, prompt, seed, seconds, metric):
        return 0.5 + int(prompt[1:]) / 100 + change * (prompt == "p3" and axes["cut_delta"] == 6)

    results = make_results(folder / "results", CELLS, value=value)
    results.cells[0].videos[0].video.write_bytes(b"the bytes of an mp4")
    return results


def offline_runs(folder: Path) -> dict[str, Path]:
    """Run id -> its file. There is one folder for each id."""
    files = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))
    found = {file.stem.removeprefix("run-"): file for file in files}
    assert len(found) == len(files)
    return found


def records(file: Path) -> list[dict[str, Any]]:
    """The client's own reading of its file, by the program that ``wandb leet inspect`` starts."""
    spec = find_spec("wandb")
    assert spec is not None
    assert spec.origin is not None
    core = Path(spec.origin).with_name("bin") / "wandb-core"
    command = [core, "leet", "inspect", "--no-observability", "--json", "--run-file", file, file.parent.parent]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def of(kind: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record[kind] for record in found if record["type"] == kind]


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: value for record in of("summary", found) for key, value in record.get("update", {}).items()}


@pytest.fixture(scope="module")
def sent(tmp_path_factory) -> tuple[Path, list[Content], list[str]]:
    folder, said = tmp_path_factory.mktemp("sent"), []
    runs = runs_of(made(folder), folder)
    outcome = send(runs, folder / "wandb", say=said.append)
    assert (outcome.new, outcome.kept, outcome.problem) == (3, 0, "")
    return folder, runs, said


@needs_client
def test_a_run_for_each_cell_and_one_for_the_experiment(sent):
    folder, runs, said = sent
    files = offline_runs(folder / "wandb")
    assert set(files) == {run.id for run in runs}
    assert said[0] == "infinity_rope@cut_delta=6: with 1 of 10 videos"
    found = records(files[runs[0].id])
    (run,) = of("run", found)
    assert (run["run_id"], run["display_name"]) == (runs[0].id, "infinity_rope@cut_delta=6")
    assert (run["run_group"], run["job_type"], run["project"]) == ("delta_ablation-quick", "embedded", "irope")
    assert run["tags"] == ["quick", "embedded", "tiny/stable"]
    config = run["config"]["update"]
    assert config["axes"] == {"cut_delta": 6}
    assert config["config"] == {"method": "infinity_rope"}
    assert config["better"]["imaging"] == "higher"
    assert run["host"] == "-"
    assert str(folder) not in json.dumps(run)


@needs_client
def test_scores_curves_and_videos_of_a_cell(sent):
    folder, runs, _ = sent
    found = records(offline_runs(folder / "wandb")[runs[0].id])
    numbers = summary(found)
    assert numbers["imaging/40s/mean"] == pytest.approx(0.545)
    assert numbers["imaging/40s/n"] == 10
    assert numbers["imaging/40s/low"] < 0.545 < numbers["imaging/40s/high"]
    metrics = {record.get("name"): record for record in of("metric", found)}
    assert metrics["imaging/40s/mean"]["summary"] == {"max": True}
    curve = [record["item"] for record in of("history", found) if "curve/imaging" in record["item"]]
    assert [row["second"] for row in curve] == [row["_step"] for row in curve] == list(range(40))
    assert curve[0]["curve/imaging"] == pytest.approx(0.545)
    assert (numbers["videos.nrows"], numbers["videos.ncols"]) == (10, 8)
    (table,) = [artifact for artifact in of("artifact", found) if artifact["type"] == "run_table"]
    entries = {entry["path"]: Path(entry["local_path"]) for entry in table["manifest"]["contents"]}
    (video,) = [path for path in entries if path.endswith(".mp4")]
    assert entries[video].read_bytes() == b"the bytes of an mp4"
    assert all(path.is_relative_to(folder) for path in entries.values())  # what a later sync needs is in one folder
    content = json.loads(entries["videos.table.json"].read_text())
    assert content["columns"][:4] == ["prompt", "seed", "command", "video"]
    assert content["data"][3][0] == "p3"
    assert content["data"][3][content["columns"].index("imaging 40 s")] == pytest.approx(0.53)


@needs_client
def test_the_results_are_an_artifact(sent):
    folder, runs, _ = sent
    found = records(offline_runs(folder / "wandb")[runs[-1].id])
    assert of("run", found)[0]["job_type"] == "report"
    (artifact,) = [artifact for artifact in of("artifact", found) if artifact["type"] == "results"]
    assert artifact["name"] == "delta_ablation-quick"
    assert {entry["path"] for entry in artifact["manifest"]["contents"]} == {"table.csv", "scores.zip"}
    assert summary(found)["results.nrows"] == 2 * 4  # cells x metrics


@needs_client
def test_sending_again_sends_what_has_changed_to_the_same_runs(sent, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(sent[0], folder, symlinks=True)
    before = offline_runs(folder / "wandb")
    assert send(sent[1], folder / "wandb") == sink.Sent(0, 3)
    assert offline_runs(folder / "wandb") == before
    outcome = send(runs_of(made(folder, change=0.1), folder), folder / "wandb")
    assert (outcome.new, outcome.kept, outcome.problem) == (2, 1, "")  # the cell and the experiment
    after = offline_runs(folder / "wandb")
    assert after.keys() == before.keys()
    assert [after[run.id] == before[run.id] for run in sent[1]] == [False, True, False]
    assert summary(records(after[sent[1][0].id]))["imaging/40s/mean"] == pytest.approx(0.555)
    artifact = [of("artifact", records(file))[-1]["digest"] for file in (before_file(sent), after[sent[1][2].id])]
    assert artifact[0] != artifact[1]


def before_file(sent: tuple[Path, list[Content], list[str]]) -> Path:
    return offline_runs(sent[0] / "wandb")[sent[1][2].id]


@needs_client
def test_a_killed_client_is_one_line_and_the_same_call_continues(tmp_path):
    runs = runs_of(made(tmp_path), tmp_path)

    def kill(line: str) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    outcome = send(runs, tmp_path / "wandb", say=kill)
    assert outcome.new in (1, 2)  # the second may have been on its way
    assert "the client died" in outcome.problem
    assert "\n" not in outcome.problem
    again = send(runs, tmp_path / "wandb")
    assert (again.new, again.kept, again.problem) == (3 - outcome.new, outcome.new, "")
    assert all(is_whole(file) for file in offline_runs(tmp_path / "wandb").values())


@needs_client
def test_without_a_server_it_ends_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    outcome = send(runs_of(made(tmp_path), tmp_path)[-1:], tmp_path / "wandb", online=True, connect=1.0)
    assert outcome.new == 0
    assert "connection refused" in outcome.problem
    assert "\n" not in outcome.problem
    assert not (tmp_path / "wandb" / sink.LEDGER).exists()


@needs_client
def test_a_silent_client_is_given_up(tmp_path):
    start = time.monotonic()
    outcome = send(runs_of(made(tmp_path), tmp_path), tmp_path / "wandb", silence=0.01)
    assert "nothing heard from the client" in outcome.problem
    assert time.monotonic() - start < 60
    assert not multiprocessing.active_children()


@needs_client
def test_a_file_that_was_cut_short_is_noticed(sent, tmp_path):
    """What a full disk leaves behind: the client itself says that all went well."""
    whole = next(iter(offline_runs(sent[0] / "wandb").values())).read_bytes()
    assert len(whole) > 5000
    for length in (0, 3, 7, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        assert not is_whole(tmp_path / "cut"), length
    (tmp_path / "cut").write_bytes(whole)
    assert is_whole(tmp_path / "cut")
    assert not is_whole(tmp_path / "none")


def test_a_run_whose_file_is_cut_short_was_not_sent(tmp_path, monkeypatch):
    """A client that says all went well, and has written half, as the real one on a full disk."""
    place = tmp_path / "wandb" / "offline-run-1-x"
    run = MagicMock(dir=str(place / "files"))
    client = MagicMock(init=lambda **given: run)
    client.Settings.model_fields = {}
    monkeypatch.setitem(sys.modules, "wandb", client)
    monkeypatch.setenv("WANDB_DATA_DIR", "set by the call, and taken back by the test")
    monkeypatch.setattr("eval.wandb_client.FLUSH_SECONDS", 0.0)
    place.mkdir(parents=True)
    content = replace(runs_of(made(tmp_path), tmp_path)[1], id="x")
    (place / "run-x.wandb").write_bytes(b":W&B\xe1\xbe\x00")
    with pytest.raises(ClientError, match="offline-run-1-x was cut short; is the disk full"):
        send_run(content, tmp_path, online=False)
    run.finish.assert_called_once()
    assert send_run(content, tmp_path, online=True) is None  # online there is no such file


def test_without_the_client_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(sink, "installed", lambda: False)
    outcome = send(runs_of(made(tmp_path), tmp_path), tmp_path / "wandb")
    assert outcome == sink.Sent(0, 0, "wandb is not installed; run: pip install -c constraints.txt -e '.[wandb]'")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "wandb").write_text("in the way")
    outcome = send(runs_of(made(tmp_path), tmp_path), tmp_path / "wandb")
    assert outcome.new == 0
    assert str(tmp_path / "wandb") in outcome.problem or "wandb is not installed" in outcome.problem


def test_a_damaged_ledger_means_sending_again(tmp_path):
    (tmp_path / sink.LEDGER).write_text('{"half a')
    assert sink.Ledger(tmp_path).entries == {}
    ledger = sink.Ledger(tmp_path)
    (tmp_path / "wandb" / "offline-run-1-a").mkdir(parents=True)
    ledger.note("a", "d1", tmp_path / "wandb" / "offline-run-1-a", online=False)
    assert sink.Ledger(tmp_path).holds("a", "d1", online=False)
    assert not sink.Ledger(tmp_path).holds("a", "d2", online=False)
    assert not sink.Ledger(tmp_path).holds("a", "d1", online=True)  # it has not reached the server
    shutil.rmtree(tmp_path / "wandb")
    assert not sink.Ledger(tmp_path).holds("a", "d1", online=False)  # lost
