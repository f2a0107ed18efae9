"""Tables of experiments against pandas, SciPy and the published files by hand; gaps, mixtures, differences."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from eval.experiment_table import experiment_table
from eval.frame import MixedError
from eval.overall import quality
from eval.plots.numbers import numbers
from eval.published import FOLDER
from eval.results import Results
from eval.stats import Interval
from eval.table_cells import CellError
from eval.table_published import Published
from irope.errors import UserError
from tests.results_kit import make_results
from tests.table_kit import DELTA, PROMPTS, VBENCH, scored, vbench_results

METHODS: dict[str, dict[str, Any]] = {"infinity_rope": {}, "rolling": {}, "causvid": {}, "full": {}}


def values(
    metric: str, axes: dict[str, Any], seconds: float = 40.0, method: str = "infinity_rope"
) -> np.ndarray[Any, Any]:
    return np.array([scored(method, axes, prompt, 0, seconds, metric) for prompt in PROMPTS])


def test_means_rates_and_overall_are_what_one_gets_by_hand(tmp_path: Path):
    table = experiment_table(vbench_results(tmp_path), columns=(*VBENCH, "quality", "overall_without_dynamic"))
    assert [(row.length, row.axes["cut_delta"]) for row in table.rows] == [("40 s", d) for d in (6, 21, 45, 90)]
    for row in table.rows:
        for metric in VBENCH:
            assert row.cells[metric].interval.estimate == pytest.approx(
                values(metric, dict(row.axes)).mean(), abs=1e-12
            )
        moving = values("dynamic_degree", dict(row.axes))
        wilson = stats.binomtest(int(moving.sum()), len(moving)).proportion_ci(method="wilson")
        rate = row.cells["dynamic_degree"].interval
        assert (rate.low, rate.high, rate.n) == pytest.approx((wilson.low, wilson.high, 20))
        subject = values("subject_consistency", dict(row.axes))
        t = stats.t.interval(0.95, 19, subject.mean(), stats.sem(subject))
        found = row.cells["subject_consistency"].interval
        assert (found.low, found.high) == pytest.approx(t, abs=0.1 * (t[1] - t[0])), "bell-shaped: near Student's"
        each = [quality({m: float(values(m, dict(row.axes))[i]) for m in VBENCH}) for i in range(len(PROMPTS))]
        assert row.cells["quality"].interval.estimate == pytest.approx(np.mean(each), abs=1e-12)
        assert row.cells["quality"].interval.n == 20
    assert [row.cells["subject_consistency"].best for row in table.rows] == [True, False, False, False]


def test_the_papers_columns_stand_in_its_order_with_its_numbers(tmp_path: Path):
    cells = {m: dict(axes) for m, axes in METHODS.items()}
    table = experiment_table(
        vbench_results(tmp_path, cells, name="table1", seconds=(5.0, 60.0), published={"table1": {}})
    )
    names = [table.heading(m).rstrip("° ↑↓") for m in table.metrics]
    assert names == ["Aes", "Bg", "DD", "Img", "Mot", "Subj", "Flick", "Overall", "Overall w/o DD"]
    assert [row.length for row in table.rows] == ["5 s"] * 4 + ["60 s"] * 4
    printed = yaml.safe_load((FOLDER / "table1.yaml").read_text(encoding="utf-8"))
    for method, model in (("infinity_rope", "∞-RoPE"), ("rolling", "Self-Forcing"), ("causvid", "CausVid")):
        for seconds in (5, 60):
            (line,) = [line for line in printed["rows"] if line[:2] == [model, seconds]]
            row = table.row(f"{seconds} s", method)
            for metric, value in zip(list(printed["columns"])[1:], line[3:], strict=True):
                known = row.cells[metric].published
                assert known is not None
                assert (known.value, known.model, known.table) == (value, model, "table1")
    assert not any(cell.published for cell in table.row("5 s", "full").cells.values())
    assert any("weights of its own" in note for note in table.notes)


def test_the_delta_table_shows_both_readings_of_temporal_smoothness(tmp_path: Path):
    table = experiment_table(vbench_results(tmp_path, published=DELTA))
    assert table.metrics[:4] == (
        "subject_consistency", "background_consistency", "motion_smoothness", "temporal_flickering"
    )  # fmt: skip
    assert "dynamic_degree" in table.metrics, "a measure of motion beside what a frozen video wins"
    for row, smooth, subject in zip(
        table.rows, (0.98, 0.98, 0.96, 0.95), (0.9074, 0.9004, 0.8847, 0.8769), strict=True
    ):
        for metric in ("motion_smoothness", "temporal_flickering"):
            assert table.heading(metric).startswith("Temp. smooth.")
            known = row.cells[metric].published
            assert known is not None
            assert (known.value, known.half) == (smooth, pytest.approx(0.005))
        known = row.cells["subject_consistency"].published
        assert known is not None
        assert (known.value, known.half) == (subject, pytest.approx(0.00005))


@pytest.mark.parametrize(
    ("low", "high", "value", "digits", "inside"),
    [
        (0.90, 0.92, 0.91, 4, True),
        (0.90, 0.92, 0.93, 4, False),
        (0.976, 0.979, 0.98, 2, True),  # .98 stands for .975 to .985
        (0.982, 0.984, 0.98, 2, True),
        (0.971, 0.974, 0.98, 2, False),
        (0.986, 0.990, 0.98, 2, False),
    ],
)
def test_a_published_value_counts_as_rounded(low: float, high: float, value: float, digits: int, inside: bool):
    interval = Interval((low + high) / 2, low, high, 20, 20, "expanded BCa")
    assert Published("t", "m", value, digits).inside(interval) is inside
    assert Published("t", "m", value, digits).inside(Interval(0.9, 0.8, 1.0, 3, 3, "range")) is None


@pytest.mark.parametrize(
    ("protocol", "model"), [("vbench", "tiny/stable"), ("vbench_long", "wan_1_3b/x"), ("vbench", "")]
)
def test_numbers_of_another_model_or_protocol_never_stand_beside_ours(tmp_path: Path, protocol: str, model: str):
    table = experiment_table(vbench_results(tmp_path, protocol=protocol, model=model, published=DELTA))
    assert not any(cell.published for row in table.rows for cell in row.cells.values())
    (note,) = [note for note in table.notes if note.startswith("not beside these numbers")]
    assert ("protocol" if protocol == "vbench_long" else "1.3B model") in note


def test_ratings_by_people_stand_beside_without_a_difference(tmp_path: Path):
    from eval.table_grid import grid_of

    cells: dict[str, dict[str, Any]] = {"infinity_rope": {}, "kv_recache": {}}
    table = experiment_table(vbench_results(tmp_path, cells, published={"user_study_action": {}}))
    known = table.row("40 s", "kv_recache").cells["rating_subject"].published
    assert known is not None
    assert (known.value, known.model, known.comparable) == (3.29, "LongLive", False)
    kinds = [line.kind for _, lines in grid_of(table).groups for line in lines]
    assert kinds == ["ours", "published", "ours", "published"]


def test_gaps_are_said_and_different_prompts_are_not_ranked(tmp_path: Path):
    def gone(label: str, prompt: str, seed: int) -> bool:
        return (label.endswith("=45") and prompt in ("p3", "p4")) or label.endswith("=90")

    results = vbench_results(tmp_path, leave_out=gone)
    table = experiment_table(results)
    note = next(note for note in table.notes if note.startswith("incomplete"))
    assert "cut_delta=45 at 40 s lacks 2 of 20" in note
    assert "cut_delta=90 at 40 s lacks 20 of 20" in note
    assert note.endswith("irope run delta_ablation tier=quick")
    assert [row.n for row in table.rows] == [20, 20, 18, 0]
    assert not any(cell.best for row in table.rows for cell in row.cells.values())
    assert any("none is called best" in note for note in table.notes)
    kept = [prompt not in ("p3", "p4") for prompt in PROMPTS]
    at45 = table.row("40 s", "infinity_rope@cut_delta=45").cells["imaging_quality"].interval
    assert at45.estimate == pytest.approx(values("imaging_quality", {"cut_delta": 45})[kept].mean())
    common = experiment_table(results, common=True).rows[0].cells["imaging_quality"]
    assert common.interval.n == 18
    assert common.interval.estimate == pytest.approx(values("imaging_quality", {"cut_delta": 6})[kept].mean())
    assert common.best


def test_nothing_scored_says_what_to_run(tmp_path: Path):
    results = vbench_results(tmp_path, leave_out=lambda label, prompt, seed: True)
    with pytest.raises(UserError, match="nothing was scored yet; run: irope run delta_ablation tier=quick"):
        experiment_table(results)


def rewritten(file: Path, change: dict[str, Any]) -> None:
    content = json.loads(file.read_text())
    for key, value in change.items():
        *path, last = key.split(".")
        at = content
        for part in path:
            at = at[part]
        at[last] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"video.record": {"version": 2}}, r"differ in record\.version \(None and 2\)"),
        ({"video.record": {"model": {"weights": "bb"}}}, r"differ in record\.model"),
        ({"protocol.settings": {"seconds": 2}}, r"differ in score\.protocol\.settings\.seconds"),
        ({"protocol.name": "mine"}, r"score\.protocol\.name is 'mine', the experiment's is 'vbench'"),
        ({"video.model": "tiny/stable"}, r"video\.model is 'tiny/stable'.*irope generate"),
    ],
)
def test_mixtures_are_refused_with_the_field_that_differs(tmp_path: Path, change: dict[str, Any], words: str):
    results = vbench_results(tmp_path, prompts=PROMPTS[:3])
    rewritten(results.cells[1].videos[2].scores, change)
    with pytest.raises(MixedError, match=words):
        experiment_table(results)


def with_weights(folder: Path, names: dict[str, str]) -> Results:
    """Two methods, each with weights of its own."""
    results = vbench_results(folder, {name: {} for name in names}, prompts=PROMPTS[:3])
    for cell in results.cells:
        facts = {"video.model": names[cell.label], "video.record": {"model": {"weights": names[cell.label]}}}
        for video in cell.videos:
            rewritten(video.scores, facts)
    return replace(results, cells=tuple(replace(cell, model=names[cell.label]) for cell in results.cells))


def test_methods_of_the_1_3b_model_may_have_the_weights_they_were_published_with(tmp_path: Path):
    names = {"rolling": "wan_1_3b/self_forcing_dmd", "causvid": "wan_1_3b/causvid"}
    results = with_weights(tmp_path, names)
    table = experiment_table(results)
    assert "weights differ: rolling: self_forcing_dmd; causvid: causvid" in table.notes
    assert not [note for note in experiment_table(vbench_results(tmp_path / "same")).notes if "weights differ" in note]
    rewritten(results.cells[1].videos[2].scores, {"video.record": {"model": {"weights": "of last week"}}})
    with pytest.raises(MixedError, match=r"differ in record\.model\.weights"):
        experiment_table(results)


def test_the_embedded_models_weights_never_share_a_table(tmp_path: Path):
    results = with_weights(tmp_path, {"rolling": "tiny/base", "causvid": "tiny/stable"})
    with pytest.raises(MixedError, match=r"differ in record\.model\.weights, video\.model"):
        experiment_table(results)


@pytest.mark.parametrize("own", [["infinity_rope"], []])
def test_other_systems_stand_beside_their_published_rows(tmp_path: Path, own: list[str]):
    """With and without a method of ours; imported videos are known by a label as the paper has it."""
    systems = {"skyreels_v2": "SkyReels-V2", "nova": "NOVA", "wan_2_1": "Wan2.1-1.3B", "MAGI-1": "MAGI-1"}
    cells: dict[str, dict[str, Any]] = {name: {} for name in (*own, *systems, "something else")}
    results = vbench_results(
        tmp_path, cells, name="table1", seconds=(5.0, 60.0), prompts=PROMPTS[:3], published={"table1": {}}
    )
    for cell in results.cells[len(own) :]:
        for video in cell.videos:
            rewritten(video.scores, {"video.model": cell.label, "video.system": True})
    made = [cell if cell.label in own else replace(cell, system=cell.label, model=cell.label) for cell in results.cells]
    model = results.model if own else ", ".join(cells)
    table = experiment_table(replace(results, cells=tuple(made), model=model, left_out=("ltx_video: not here",)))
    printed = yaml.safe_load((FOLDER / "table1.yaml").read_text(encoding="utf-8"))
    rows = {(line[0], line[1]): line[-1] for line in printed["rows"]}
    for row in table.rows:
        known = row.cells["quality"].published
        expected = rows.get((systems.get(row.label, ""), row.seconds)) if row.label not in own else None
        assert (known.value if known else None) == (rows["∞-RoPE", row.seconds] if row.label in own else expected)
    assert "left out: ltx_video: not here" in table.notes


def test_differences_from_a_row_are_paired_and_said_in_words(tmp_path: Path):
    results = vbench_results(tmp_path)
    table = experiment_table(results, against="delta=6")
    assert table.reference == "infinity_rope@cut_delta=6"
    assert not any(cell.against for cell in table.rows[0].cells.values())
    for row in table.rows[1:]:
        delta = values("imaging_quality", dict(row.axes)) - values("imaging_quality", {"cut_delta": 6})
        compared = row.cells["imaging_quality"].against
        assert compared is not None
        assert compared.paired.difference.estimate == pytest.approx(delta.mean(), abs=1e-12)
        assert compared.paired.p_value <= compared.p_adjusted
    far = table.rows[3].cells
    assert far["imaging_quality"].against is not None
    assert far["imaging_quality"].against.verdict == "worse"
    assert far["quality"].against is not None
    with pytest.raises(CellError, match=r"no row of this table.*choices: infinity_rope@cut_delta=21"):
        experiment_table(results, against="kv_recache")


def test_few_prompts_give_no_verdict(tmp_path: Path):
    table = experiment_table(vbench_results(tmp_path, prompts=PROMPTS[:4]), against="delta=6")
    verdicts = {cell.against.verdict for row in table.rows for cell in row.cells.values() if cell.against}
    assert verdicts == {"too few"}
    assert table.rows[0].cells["imaging_quality"].interval.method == "range"
    assert not any(cell.best for row in table.rows for cell in row.cells.values())
    assert "below 8 prompts there is no interval and none is called best" in table.notes


def test_a_reference_of_several_rows_is_the_one_of_the_same_settings(tmp_path: Path):
    cells = {f"{m}@window={w}": {"window": w} for m in ("infinity_rope", "rolling") for w in (6, 12)}
    results = vbench_results(tmp_path, cells)
    table = experiment_table(results, against="rolling")
    for window in (6, 12):
        row = table.row("40 s", f"infinity_rope@window={window}")
        ours, other = (values("imaging_quality", {"window": window}, method=m) for m in ("infinity_rope", "rolling"))
        compared = row.cells["imaging_quality"].against
        assert compared is not None
        assert compared.paired.difference.estimate == pytest.approx((ours - other).mean(), abs=1e-12)
    assert not any(cell.against for cell in table.row("40 s", "rolling@window=6").cells.values())


def test_videos_as_long_as_their_scripts_share_a_row(tmp_path: Path):
    long, short = (
        make_results(tmp_path, {"m": {}}, seconds=(seconds,), prompts=prompts)
        for seconds, prompts in ((30.0, PROMPTS[:10]), (20.0, PROMPTS[10:]))
    )
    videos = long.cells[0].videos + short.cells[0].videos
    cell = replace(long.cells[0], seconds=(), videos=videos)
    (row,) = experiment_table(replace(long, cells=(cell,))).rows
    assert (row.length, row.seconds, row.n) == ("scripted", None, 20)
    drawn = numbers(replace(long, cells=(cell,)))
    assert set(drawn["videos"]) == {20}, "one point of all scripts, not one for each length"
    assert set(drawn["seconds"]) == {25.0}
    (alike,) = experiment_table(replace(long, cells=(replace(long.cells[0], seconds=()),))).rows
    assert (alike.length, alike.n) == ("30 s", 10)
    assert alike.seconds == pytest.approx(30, abs=0.5)
