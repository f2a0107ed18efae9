"""Tables and comparisons from score files made by hand: means, weights, overall, and what must never be mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eval.comparison import comparisons
from eval.frame import MixedError, length_name, load_frame
from eval.overall import quality
from eval.stats import wilson
from eval.table import tables
from eval.table_formats import as_csv, as_json, as_markdown
from irope.errors import UserError

ROW = {
    "aesthetic_quality": 0.6208, "background_consistency": 0.9530, "dynamic_degree": 1.0, "imaging_quality": 0.7289,
    "motion_smoothness": 0.9941, "subject_consistency": 0.9501, "temporal_flickering": 0.9812,
}  # fmt: skip


def write(
    folder: Path,
    method: str,
    prompt: str,
    scores: dict[str, Any],
    seed: int = 0,
    protocol: str = "vbench",
    frames: int = 81,
    record: Any = None,
    model: str | None = "tiny/stable",
) -> None:
    name = f"{method}/{prompt}-{seed}-{frames}"
    entries = {
        m: v if isinstance(v, dict) else {"key": "k", "value": v, "terms": frames - 1} for m, v in scores.items()
    }
    content = {
        "protocol": {"name": protocol, "settings": {}},
        "video": {"name": name, "method": method, "model": model, "prompt": prompt, "seed": seed, "fps": 16.0,
                  "record": record},
        "windows": {f"0-{frames}": {"scores": entries}},
    }  # fmt: skip
    path = folder / protocol / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_overall_is_vbenchs_quality_and_needs_every_dimension(tmp_path: Path):
    for prompt in "abcdefgh":
        write(tmp_path, "m", prompt, ROW)
    write(tmp_path, "lacking", "a", ROW | {"imaging_quality": {"key": "", "skipped": "its weights are missing"}})
    (table,) = tables(load_frame(tmp_path))
    row = table.row("5 s", "m").cells
    assert row["quality"].interval.estimate == pytest.approx(quality(ROW))
    assert "quality" not in table.row("5 s", "lacking").cells
    assert row["dynamic_degree"].interval.method == "Wilson"
    assert (row["dynamic_degree"].interval.low, row["dynamic_degree"].interval.high) == pytest.approx(wilson(1.0, 8))
    assert any("its weights are missing" in note for note in table.notes)
    assert row["quality"].interval.n == 8


def test_overall_is_of_vbenchs_means_or_of_the_videos_that_have_all(tmp_path: Path):
    lengths, subject = np.array([80, 82, 84]), np.array([0.9, 0.6, 0.3])
    for prompt, frames, s in zip("abc", lengths, subject, strict=True):
        write(tmp_path, "m", prompt, ROW | {"subject_consistency": float(s)}, frames=int(frames))
    (table,) = tables(load_frame(tmp_path))
    means = ROW | {"subject_consistency": float(np.average(subject, weights=lengths - 1.0))}
    assert table.row("5 s", "m").cells["quality"].interval.estimate == pytest.approx(quality(means), abs=1e-12)
    write(tmp_path, "m", "d", {"imaging_quality": 0.0, "subject_consistency": 0.0}, frames=80)
    (table,) = tables(load_frame(tmp_path))
    found = table.row("5 s", "m").cells["quality"].interval
    each = [quality(ROW | {"subject_consistency": float(s)}) for s in subject]
    assert (found.n, found.estimate) == (3, pytest.approx(np.mean(each), abs=1e-12))


def test_single_process_vbench_weighs_consistency_by_frames(tmp_path: Path):
    lengths, subject, imaging = [80, 82, 84], [0.9, 0.6, 0.3], [0.8, 0.5, 0.2]
    for prompt, frames, s, i in zip("abc", lengths, subject, imaging, strict=True):
        write(tmp_path, "m", prompt, {"subject_consistency": s, "imaging_quality": i}, frames=frames)
    frame = load_frame(tmp_path)
    weights = np.array(lengths) - 1.0
    (stock,) = tables(frame)
    (videos,) = tables(frame, "videos")
    (frames_,) = tables(frame, "frames")
    at = ("5 s", "m")
    weighted = float(np.average(subject, weights=weights))
    assert stock.row(*at).cells["subject_consistency"].interval.estimate == pytest.approx(weighted, abs=1e-12)
    assert stock.row(*at).cells["imaging_quality"].interval.estimate == pytest.approx(0.5)
    assert videos.row(*at).cells["subject_consistency"].interval.estimate == pytest.approx(0.6)
    assert frames_.row(*at).cells["imaging_quality"].interval.estimate == pytest.approx(
        np.average(imaging, weights=weights)
    )


def test_protocols_and_models_never_share_a_table(tmp_path: Path):
    write(tmp_path, "m", "a", {"imaging": 0.1}, protocol="embedded")
    write(tmp_path, "m", "a", {"imaging_quality": 0.2})
    write(tmp_path, "m", "b", {"imaging_quality": 0.9}, model="wan")
    found = tables(load_frame(tmp_path))
    assert [(t.protocol, t.model) for t in found] == [
        ("embedded", "tiny/stable"), ("vbench", "tiny/stable"), ("vbench", "wan"),
    ]  # fmt: skip
    assert all(len(table.rows) == 1 for table in found)
    assert "protocol embedded, videos of the model tiny/stable" in as_markdown(found[0])


def test_lengths_stay_apart_and_best_is_marked_within_each(tmp_path: Path):
    for prompt in "abcdefghij":
        for method, value in (("good", 0.9), ("bad", 0.4)):
            write(tmp_path, method, prompt, {"imaging_quality": value}, frames=81)
            write(tmp_path, method, prompt, {"imaging_quality": value / 2}, frames=957)
    (table,) = tables(load_frame(tmp_path))
    assert [(row.length, row.label) for row in table.rows] == [
        ("5 s", "bad"),
        ("5 s", "good"),
        ("60 s", "bad"),
        ("60 s", "good"),
    ]
    assert [row.cells["imaging_quality"].best for row in table.rows] == [False, True, False, True]
    text = as_markdown(table)
    assert "| 60 s | good | 10 | **0.450** |" in text
    records = json.loads(as_json([table]))
    assert len(records) == len(pd.read_csv(__import__("io").StringIO(as_csv([table])))) == 4
    assert {record["n"] for record in records} == {10}


def test_two_videos_for_one_cell_are_refused_with_what_differs(tmp_path: Path):
    write(tmp_path, "m", "a", ROW, frames=81, record={"policy": {"window": 6}})
    write(tmp_path, "m", "a", ROW, frames=82, record={"policy": {"window": 21}})
    with pytest.raises(MixedError, match=r"they differ in policy\.window: give one a method name"):
        load_frame(tmp_path)


def test_numbers_of_other_weights_or_precision_never_share_a_column(tmp_path: Path):
    made = {"settings": {}, "depends": {"weights": "aa"}, "precision": "float32"}
    entry = {"key": "k", "value": 0.5, "terms": 80, "made": made}
    write(tmp_path, "m", "a", {"imaging_quality": entry})
    write(tmp_path, "m", "b", {"imaging_quality": entry | {"made": made | {"precision": "half"}}})
    with pytest.raises(MixedError, match=r"imaging_quality of m/a-0-81 and of m/b-0-81 differ in precision"):
        load_frame(tmp_path)
    write(tmp_path, "m", "b", {"imaging_quality": {"key": "", "skipped": "its weights are missing"}})
    assert len(load_frame(tmp_path)) == 2


def test_a_comparison_is_paired_by_prompt_and_seed(tmp_path: Path):
    rng = np.random.default_rng(0)
    for prompt in range(12):
        base = rng.uniform(0.2, 0.8)
        for seed in range(2):
            write(tmp_path, "A", f"p{prompt}", {"imaging_quality": base + 0.05 + rng.normal(0, 0.01)}, seed)
            write(tmp_path, "B", f"p{prompt}", {"imaging_quality": base + rng.normal(0, 0.01)}, seed)
    (group,) = comparisons(load_frame(tmp_path), "A", "B")
    a, b, found = group.metrics["imaging_quality"]
    assert found.verdict == "better"
    assert found.paired.difference.estimate == pytest.approx(a.estimate - b.estimate)
    assert 0.03 < found.paired.difference.low < 0.05 < found.paired.difference.high < 0.07
    assert a.low < b.estimate, "unpaired, the two could not be told apart"
    (swapped,) = comparisons(load_frame(tmp_path), "B", "A")
    assert swapped.metrics["imaging_quality"][2].verdict == "worse"
    (record,) = group.records()
    assert (record["pairs"], record["prompts"], record["verdict"]) == (24, 12, "better")


def test_what_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(UserError, match="irope score"):
        load_frame(tmp_path)
    write(tmp_path, "kv_recache", "a", ROW)
    frame = load_frame(tmp_path)
    with pytest.raises(UserError, match="did you mean 'kv_recache'"):
        comparisons(frame, "kv_recache", "kv_recach")
    write(tmp_path, "other", "b", ROW)
    with pytest.raises(UserError, match="no prompt of the same length in common"):
        comparisons(load_frame(tmp_path), "kv_recache", "other")


def test_lengths_are_named_by_whole_seconds():
    assert [length_name(s) for s in (81 / 16, 957 / 16, 2.0, 0.5)] == ["5 s", "60 s", "2.0 s", "0.5 s"]
