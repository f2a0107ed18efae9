"""What a reader gets: the terminal at 100 columns, Markdown, LaTeX, CSV, JSON, the videos behind a cell."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from eval.experiment_table import experiment_table
from eval.overall import quality
from eval.published import tables as published_tables
from eval.results import Results
from eval.table_cells import CellError, Name, find_cell, fitting
from eval.table_formats import as_markdown
from eval.table_grid import grid_of, published_grid
from eval.table_latex import as_latex, escaped, standalone
from eval.table_why import videos_behind
from irope.cli.main import main
from tests.results_kit import make_results
from tests.table_kit import DELTA, PROMPTS, VBENCH, scored, serve, vbench_results

Shown = Callable[..., str]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Results:
    gone = {("infinity_rope@cut_delta=45", "p3"), ("infinity_rope@cut_delta=45", "p4")}
    folder = tmp_path_factory.mktemp("large")
    return vbench_results(folder, published=DELTA, leave_out=lambda label, prompt, seed: (label, prompt) in gone)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return make_results(tmp_path_factory.mktemp("tiny"), published=DELTA)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], large: Results, tiny: Results) -> Shown:
    """Run a verb on the two experiments at 100 columns: its output, or what it says is wrong."""
    serve(monkeypatch, {"large": large, "tiny": tiny})
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str) -> str:
        code = main(arguments)
        out, err = capsys.readouterr()
        assert code == (2 if err else 0), err
        return out + err

    return run


def test_a_terminal_of_100_columns_shows_everything_without_a_broken_line(shown: Shown, large: Results):
    text = shown("table", "large", "--against", "=6")
    assert max(map(len, text.splitlines())) <= 100
    heads = [line for line in text.splitlines() if line.startswith("method")]
    assert all(line.split()[:3] == ["method", "cut_delta", "n"] for line in heads), "no column is squeezed out"
    for heading in ("Subj°", "Bg°", "(Mot)°", "(Flick)°", "Overall", "DD"):
        assert heading in text
    assert "delta_ablation, tier quick: protocol vbench, videos of the model wan_1_3b/self-forcing" in text
    assert "20 prompts × 1 seed" in " ".join(text.split())
    cell = experiment_table(large).rows[0].cells["subject_consistency"]
    difference = cell.interval.estimate - 0.9074
    word = "in" if cell.interval.low <= 0.90745 and cell.interval.high >= 0.90735 else "out"
    assert f"{'−' if difference < 0 else '+'}{abs(difference):.3f} {word}" in text
    for words in ("published, ∞-RoPE", "ours − published", "− reference", "tied", "worse", "lacks 2 of 20"):
        assert words in text
    assert re.search(r"infinity_rope +45 +18 ", text), "n of the row that lacks two"


def test_the_embedded_models_table_is_its_own(shown: Shown):
    text = shown("table", "tiny")
    assert "videos of the model tiny/stable" in text
    assert "90.74" not in text
    assert "0.9074" not in text
    assert "1.3B model" in text
    below = shown("table", "tiny", "--published")
    ours, _, theirs = below.partition("PUBLISHED, not ours: ∞-RoPE, jump index Δ")
    assert "90.74" in theirs
    assert "90.74" not in ours
    rows = list(csv.DictReader(shown("table", "tiny", "--format", "csv", "--published").splitlines()))
    assert {(row["origin"], bool(row["mean"]), bool(row["published"])) for row in rows} == {
        ("ours", True, False), ("published", False, True),
    }  # fmt: skip


def test_every_format_holds_the_same_numbers(shown: Shown, large: Results, tmp_path: Path):
    table = experiment_table(large)
    records = json.loads(shown("table", "large", "--format", "json"))
    assert len(records) == len(table.rows) * len(table.metrics)
    by = {(record["method"], record["metric"]): record for record in records}
    for row in table.rows:
        for metric in table.metrics:
            record, cell = by[row.label, metric], row.cells[metric]
            assert (record["mean"], record["n"], record["planned"]) == (cell.interval.estimate, cell.interval.n, 20)
            assert record["cut_delta"] == row.axes["cut_delta"]
            if cell.published:
                assert record["difference"] == pytest.approx(cell.interval.estimate - cell.published.value)
    out = tmp_path / "new" / "t.md"
    assert shown("table", "large", "--format", "markdown", "--out", str(out)) == f"wrote {out}\n"
    text = out.read_text(encoding="utf-8")
    assert text == as_markdown(table) + "\n"
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| ")}
    assert len(widths) == 1, "every line has as many cells"
    assert "| 40 s | published, ∞-RoPE |  |  | 0.9074 | 0.8898 | 0.98 | 0.98 |" in text


def test_published_tables_are_printed_with_all_their_digits():
    text = as_latex(published_grid(published_tables()["table1"]), "published-table1")
    assert r"$\infty$-RoPE & 5 & 17.01 & 0.6308 & 0.9720 & 0.48 &" in text
    assert r"\caption{PUBLISHED, not ours:" in text
    for paper in published_tables().values():
        grid = published_grid(paper)
        assert all(
            len(line.head) + len(line.entries) == len(grid.head) + len(grid.columns) for line in grid.groups[0][1]
        )


def test_latex_is_whole(large: Results, tmp_path: Path):
    grid = grid_of(experiment_table(large, against="=6"))
    text = as_latex(grid, "delta_ablation")
    (columns,) = re.findall(r"\\begin\{tabular\}\{([lrc]+)\}", text)
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.split(r"(?<!\\)&", line)) for line in rows} == {len(columns)}
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert text.isascii()
    assert not re.search(r"(?<!\\)[%#]", text)
    interval = grid.groups[0][1][0].entries[0].bounds
    assert interval is not None
    assert rf"{{\scriptsize [{interval.low:.3f}, {interval.high:.3f}]}}" in text
    assert r"$\infty$-RoPE & 6 & 20 &" in text
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed: only braces and columns were checked")
    (tmp_path / "t.tex").write_text(standalone(text, as_latex(published_grid(published_tables()["lol"]), "x")))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_special_characters_are_escaped():
    assert escaped(r"50 % of a_b & c#1 {x} ~ ^ \ $") == (
        r"50 \% of a\_b \& c\#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \$"
    )
    assert escaped("∞-RoPE −1 é --against 1–2") == r"$\infty$-RoPE $-$1 e -{}-against 1--2"


NAMES = [Name(f"{m}@cut_delta={d}", m, {"cut_delta": d}) for m in ("infinity_rope", "rolling") for d in (6, 90)]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("infinity_rope@cut_delta=6", ["infinity_rope@cut_delta=6"]),
        ("rolling", ["rolling@cut_delta=6", "rolling@cut_delta=90"]),
        ("cut_delta=6", ["infinity_rope@cut_delta=6", "rolling@cut_delta=6"]),
        ("rolling@delta=6", ["rolling@cut_delta=6"]),
        ("Infinity-RoPE,cut_delta=90", ["infinity_rope@cut_delta=90"]),
        ("roll@=90", ["rolling@cut_delta=90"]),
        ("rolling@cut_delta=9", []),  # never 90
        ("kv_recache", []),
    ],
)
def test_a_part_of_a_name_is_enough_and_a_value_is_never_shortened(text: str, labels: list[str]):
    assert [name.label for name in fitting(text, NAMES)] == labels


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("infinity_rope@cut_delta=6:subject_consistency:40", "subject_consistency"),
        ("40 s:Subj:cut_delta=6", "subject_consistency"),
        ("=6:subject consistency", "subject_consistency"),
        ("=6:imag", "imaging_quality"),
        ("cut_delta=6:Overall", "quality"),
        ("=6:without_dyn", "overall_without_dynamic"),
    ],
)
def test_a_cell_is_named_by_its_parts_in_any_order(large: Results, text: str, metric: str):
    found = videos_behind(large, text).cell
    assert (found.label, found.metric, found.length) == ("infinity_rope@cut_delta=6", metric, "40 s")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("=6", "leaves several metrics, add one: subject_consistency"),
        ("subj", "leaves several rows, add one: infinity_rope@cut_delta=6"),
        ("=7:subj", "'=7' is no row, metric or length"),
        ("=6:subjct_consistency", "did you mean 'subject_consistency'"),
        ("=6:subj:60", "'60' is no row, metric or length.*lengths: 40 s"),
        ("=6:=90:subj", "no row is all of this at once"),
    ],
)
def test_a_name_that_fits_nothing_says_what_there_is(large: Results, text: str, words: str):
    with pytest.raises(CellError, match=f"(?s){words}"):
        find_cell(text, experiment_table(large))


@pytest.mark.parametrize("metric", ["imaging_quality", "freeze", "motion"])
def test_the_videos_behind_a_cell_come_worst_first(large: Results, metric: str):
    why = videos_behind(large, f"=45:{metric}")
    known = {p: scored("infinity_rope", {"cut_delta": 45}, p, 0, 40, metric) for p in PROMPTS if p not in ("p3", "p4")}
    order = sorted(known, key=lambda prompt: known[prompt], reverse=metric == "freeze")  # of frozen, less is better
    assert [video.prompt for video in why.videos] == [*order, "p3", "p4"]
    assert [video.value for video in why.videos[:-2]] == [known[prompt] for prompt in order]
    assert {video.skipped for video in why.videos[-2:]} == {"not made"}
    assert ("worst first" in why.order) == (metric != "motion")
    worst = why.videos[0]
    assert Path(worst.file).name == f"{worst.prompt}-seed0-0123abcd.mp4"
    assert worst.command == f"irope generate id={worst.prompt}-seed0-0123abcd"


def test_a_video_that_failed_names_its_record(tmp_path: Path):
    results = make_results(tmp_path, {"m": {}}, leave_out=lambda label, prompt, seed: prompt in ("p1", "p2"))
    error = tmp_path / "m" / "p1-seed0-0123abcd.error.json"
    error.write_text("{}")
    reasons = {video.prompt: video.skipped for video in videos_behind(results, "m:imaging").videos if video.skipped}
    assert reasons == {"p1": f"failed, see {error}", "p2": "not made"}


def test_the_overalls_videos_have_their_own_overall(large: Results):
    axes = {"cut_delta": 6}
    each = {p: quality({m: scored("infinity_rope", axes, p, 0, 40, m) for m in VBENCH}) for p in PROMPTS}
    found = videos_behind(large, "=6:quality").videos
    assert [(v.prompt, pytest.approx(v.value)) for v in found] == sorted(each.items(), key=lambda item: item[1])


def test_the_same_label_may_stand_for_videos_of_several_lengths(tmp_path: Path):
    """A schedule whose longer videos do not begin with the shorter ones has a cell for each length."""
    parts = [make_results(tmp_path / str(s), {"m": {}}, seconds=(float(s),)) for s in (5, 60)]
    both = replace(parts[0], cells=(*parts[0].cells, *parts[1].cells))
    assert [(row.length, row.n) for row in experiment_table(both).rows] == [("5 s", 10), ("60 s", 10)]
    files = {length: videos_behind(both, f"m:imaging:{length}").videos[0].file for length in (5, 60)}
    assert all(str(tmp_path / str(length)) in file for length, file in files.items())


def test_why_and_compare_on_the_command_line(shown: Shown):
    text = shown("table", "large", "--why", "=45:imaging:40")
    assert "delta_ablation, infinity_rope@cut_delta=45, Imaging, 40 s: 18 of 20 videos, worst first" in text
    assert "–  (not made)  p3, seed 0" in text
    found = json.loads(shown("table", "large", "--why", "=45:imaging:40", "--format", "json"))
    assert (len(found), found[-1]["value"], found[-1]["skipped"]) == (20, None, "not made")
    assert "is better" not in shown("table", "large", "--why", "=45:motion")
    compared = {r["metric"]: r for r in json.loads(shown("compare", "delta=6", "=90", "large", "--json"))}
    assert compared["imaging_quality"]["verdict"] == "better"
    assert compared["quality"]["verdict"] in ("better", "tied")
    assert "lacks 2 of 20" in shown("compare", "=6", "=90", "large")
    assert "may be infinity_rope@cut_delta=6, infinity_rope@cut_delta=21" in shown(
        "compare", "cut_delta", "=6", "large"
    )
    assert "did you mean 'infinity_rope@cut_delta=6'" in shown("compare", "infinity_rope@cut_dleta=6", "=90", "large")


def test_the_table_of_an_experiment_that_measures_is_the_one_it_wrote(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    words = ["latency", "tier=smoke", f"sys.out={tmp_path}"]
    assert main(["table", *words]) == 2
    assert (
        f"no latency of tier=smoke yet; run: irope run latency tier=smoke sys.out={tmp_path}" in capsys.readouterr().err
    )
    written = tmp_path / "measured/latency/latency-0123.json"
    written.parent.mkdir(parents=True)
    written.write_text('{"command": "irope run latency tier=smoke"}')
    written.with_suffix(".md").write_text("| R | ms |\n")
    assert main(["table", *words]) == 0
    assert capsys.readouterr().out == "| R | ms |\n"
    assert main(["table", "attention_maps", "tier=smoke", f"sys.out={tmp_path}"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: no such folder, and no experiment"),
        (["large", "--columns", "imagin_quality"], "did you mean 'imaging_quality'"),
        (["large", "--against", "rolling"], "is no row of this table"),
        (["large", "--protocol", "vbench"], "--protocol is for folders"),
        (["."], "nothing was scored here"),
        ([".", "tier=quick"], "settings are of experiments"),
        ([".", "--why", "x"], "--why needs an experiment"),
        ([".", "--published"], "--published needs an experiment"),
        (["large", "--digits", "-1"], "expected 0 or more"),
    ],
)
def test_what_cannot_be_shown_is_said(
    shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
):
    monkeypatch.chdir(tmp_path)
    text = shown("table", *arguments)
    assert text.startswith("irope: error:")
    assert words in text
