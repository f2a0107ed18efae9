"""The report folder: what is in it, that it can be deleted and made again, and the verb."""

import csv
import json
import sys
import types
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from eval.experiment_table import experiment_frame
from eval.plots.all import Drawn
from eval.report import write_report
from eval.report_facts import ranked
from eval.results import Results
from eval.table import better
from irope.cli import report as verb
from irope.cli.main import main
from irope.cli.report import wandb_mode
from irope.errors import UserError
from tests.results_kit import make_results

CELLS = {f"infinity_rope@cut_delta={d}": {"cut_delta": d} for d in (6, 45)}
NASTY = "<script>alert(1)</script>"
METRICS = ("feature_consistency", "imaging", "world_prompt")


def value(method, axes, prompt, seed, seconds, metric):
    """p2 of the second cell is the worst in every metric, p7 of the first the best."""
    worst, best = (prompt == "p2" and axes["cut_delta"] == 45), (prompt == "p7" and axes["cut_delta"] == 6)
    return 0.1 if worst else 0.9 if best else 0.5 + int(prompt[1]) / 100 + axes["cut_delta"] / 10000


def made(folder: Path, **more) -> Results:
    results = make_results(folder / "runs", CELLS, value=value, metrics=METRICS, **more)
    for cell in results.cells:
        for video in cell.videos:
            if video.scores.is_file():
                video.video.write_bytes(b"mp4")
    return results


class Page(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def no_plots(monkeypatch):
    """Drawing takes most of a report's time."""
    monkeypatch.setattr("eval.plots.all.draw", lambda results: Drawn((), {"drift": "left out by a test"}))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Results, Path]:
    folder = tmp_path_factory.mktemp("report")
    results = made(folder)
    write_report(results, folder / "out")
    return results, folder / "out"


def test_the_page_opens_from_disk_without_scripts_and_its_links_lead_somewhere(written):
    _, folder = written
    page = Page((folder / "index.html").read_text())
    assert "script" not in page.tags
    beside = [link for link in page.links if not link.startswith("data:image/png;base64,")]
    assert len(page.links) - len(beside) == len(list((folder / "plots").glob("*.png"))) > 0
    assert all((folder / unquote(link)).is_file() for link in beside)
    assert "They say nothing about the 1.3B model" in page.text
    assert "20 of 20 videos scored" in " ".join(page.text.split())


def test_numbers_of_the_page_are_those_of_the_files(written):
    _, folder = written
    page = Page((folder / "index.html").read_text())
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert len(rows) == 2 * len(METRICS)
    assert json.loads((folder / "table.json").read_text())[0]["mean"] == pytest.approx(float(rows[0]["mean"]))
    for row in rows:
        assert row["n"] == "10"
        assert f"{float(row['mean']):.3f}" in page.text
        assert f"{float(row['mean']):.3f}" in (folder / "table.md").read_text()
    assert r"\begin{table}" in (folder / "table.tex").read_text()


def test_the_worst_and_the_best_video_are_found(written):
    results, folder = written
    found, metrics = ranked(experiment_frame(results))
    assert metrics == len(METRICS)
    assert (found[0].label, found[0].prompt) == ("infinity_rope@cut_delta=45", "p2")
    assert found[0].place == pytest.approx(1 / 20)
    assert (found[-1].label, found[-1].prompt) == ("infinity_rope@cut_delta=6", "p7")
    assert found[-1].place == 1
    page = (folder / "index.html").read_text()
    worst, best = page.index("The worst videos"), page.index("The best videos")
    assert worst < page.index("cut_delta%3D45/p2-seed0") < best < page.index("cut_delta%3D6/p7-seed0")


def test_lower_is_better_turns_the_rank(tmp_path):
    def drift(method, axes, prompt, seed, seconds, metric):
        return int(prompt[1]) / 10

    results = make_results(tmp_path, CELLS, value=drift, metrics=("loops",))
    assert better("loops") == "lower"
    found, _ = ranked(experiment_frame(results))
    assert found[0].prompt == "p9"


def test_provenance_names_every_video_and_no_folder(written):
    _, folder = written
    text = (folder / "provenance.json").read_text()
    found = json.loads(text)
    assert [len(cell["videos"]) for cell in found["cells"]] == [10, 10]
    assert found["cells"][0]["videos"][0]["key"] == "0123abcd"
    assert found["made by"][0]["videos"] == 20
    assert str(folder.parent) not in text


def test_a_deleted_report_is_made_again_byte_for_byte(written, tmp_path):
    results, folder = written
    again = tmp_path.parent / folder.parent.name / "again"
    write_report(results, again)
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert names == {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    assert len(names) > 8
    assert [name for name in names if (folder / name).read_bytes() != (again / name).read_bytes()] == []


def test_what_is_missing_is_said(tmp_path, no_plots):
    results = made(tmp_path, leave_out=lambda label, prompt, seed: label.endswith("45") and prompt == "p1")
    report = write_report(results, tmp_path / "out")
    assert [(gap.label, gap.missing, gap.planned) for gap in report.gaps] == [("infinity_rope@cut_delta=45", 1, 10)]
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert "infinity_rope@cut_delta=45, 40 s: 1 of 10 videos missing" in page.text
    assert results.command in page.text
    assert "No plot drift: left out by a test" in page.text
    cells = json.loads((tmp_path / "out" / "provenance.json").read_text())["cells"]
    assert [cell["missing"] for cell in cells] == [[], ["p1-seed0-0123abcd"]]


def test_prompts_are_text_on_the_page(tmp_path, no_plots):
    results = make_results(tmp_path / "runs", CELLS, prompts=(NASTY.replace("/", "|"), "b", "c"), metrics=METRICS)
    write_report(results, tmp_path / "out")
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert "script" not in page.tags
    assert NASTY.replace("/", "|") in page.text


@pytest.fixture
def command(tmp_path, monkeypatch, no_plots):
    """`irope report` over made-up results; gives a function of further arguments."""
    results = made(tmp_path)
    asked = []

    def results_of(arguments):
        asked.append(list(arguments))
        return results

    kit = types.SimpleNamespace(results_of=results_of, measured_kind=lambda words: None)
    monkeypatch.setitem(sys.modules, "irope.cli.experiments", kit)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return lambda *more: (verb.run(["delta_ablation", *more, "--out", str(tmp_path / "out")]), asked, tmp_path / "out")


def test_the_verb_writes_the_folder(command, capsys):
    code, asked, folder = command("tier=quick", "seed=1")
    assert (code, asked) == (0, [["delta_ablation", "tier=quick", "seed=1"]])
    assert (folder / "index.html").is_file()
    assert str(folder / "index.html") in capsys.readouterr().out
    assert not (folder / "wandb").exists()


def test_wandb_that_fails_leaves_the_report_and_is_one_line(command, capsys, monkeypatch):
    monkeypatch.setattr("eval.wandb_sink.installed", lambda: False)
    code, _, folder = command("--wandb")
    out = capsys.readouterr()
    assert code == 1
    assert (folder / "index.html").is_file()
    assert out.err.count("\n") == 1
    assert "pip install" in out.err


def test_wandb_disabled_sends_nothing(command, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    code, _, folder = command("--wandb")
    assert (code, (folder / "wandb").exists()) == (0, False)


def test_offline_unless_asked(written):
    results, _ = written
    assert wandb_mode(results, False, {}) == "offline"
    assert wandb_mode(results, True, {"WANDB_MODE": "offline"}) == "online"
    assert wandb_mode(results, False, {"WANDB_MODE": "online"}) == "online"
    with pytest.raises(UserError, match=r"WANDB_MODE=onlin: unknown mode; did you mean 'online'"):
        wandb_mode(results, False, {"WANDB_MODE": "onlin"})


def test_nothing_scored_says_what_to_run(tmp_path):
    results = make_results(tmp_path, CELLS, leave_out=lambda label, prompt, seed: True)
    with pytest.raises(UserError, match="irope run delta_ablation tier=quick"):
        write_report(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_measures_the_engine_has_no_report(capsys):
    assert main(["report", "latency", "tier=smoke"]) == 2
    assert "irope run shows its table" in capsys.readouterr().err


def test_help_is_printed(capsys):
    with pytest.raises(SystemExit):
        verb.run(["--help"])
    assert "results/reports" in capsys.readouterr().out
    assert main(["help"]) == 0
