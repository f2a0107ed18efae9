"""Rows made by different generators: equal seconds, what is said of rates and sizes, and what never shares a table."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from eval.comparison import comparisons
from eval.experiment_table import experiment_table
from eval.frame import SYSTEMS, MixedError, with_systems
from eval.score import in_blocks, windows_of
from eval.scorer import VideoFacts
from eval.table import Table, caption, tables
from tests.results_kit import make_results

PROMPTS = [f"p{i}" for i in range(10)]


def rows(method: str, model: str, fps: float, system: bool, level: float, picture: str = "832x480") -> list[Any]:
    return [
        {
            "protocol": "embedded",
            "model": model,
            "length": "5 s",
            "method": method,
            "prompt": prompt,
            "seed": 0,
            "video": f"{method}/{prompt}",
            "metric": "sharpness",
            "value": level + 0.01 * number,
            "terms": 1,
            "clips": 1,
            "skipped": None,
            "fps": fps,
            "picture": picture,
            "system": system,
        }
        for number, prompt in enumerate(PROMPTS)
    ]


OURS = rows("infinity_rope", "wan_1_3b/dmd", 16.0, False, 0.5)
THEIRS = rows("skyreels_v2", "skyreels_v2", 24.0, True, 0.4, "960x544")
TINY = rows("rolling", "tiny/stable", 16.0, False, 0.1, "64x64")


def of(found: list[Table], model: str) -> Table:
    return next(table for table in found if table.model == model)


def test_a_system_stands_beside_the_large_model_and_never_beside_the_embedded_one():
    found = tables(pd.DataFrame(OURS + THEIRS + TINY))
    assert {table.model: [row.label for row in table.rows] for table in found} == {
        "tiny/stable": ["rolling"],
        "wan_1_3b/dmd": ["infinity_rope", "skyreels_v2"],
    }
    both = of(found, "wan_1_3b/dmd")
    assert "frame rates differ: infinity_rope 16, skyreels_v2 24 fps; motion scores depend on them" in both.notes
    assert any(
        note.startswith("sizes of frames differ: infinity_rope 832x480, skyreels_v2 960x544") for note in both.notes
    )
    assert any(note.startswith("skyreels_v2: other systems with weights of their own") for note in both.notes)
    assert not [note for note in of(found, "tiny/stable").notes if "differ" in note]


def test_systems_alone_share_a_table():
    more = rows("nova", "nova", 12.0, True, 0.3)
    (table,) = tables(pd.DataFrame(THEIRS + more))
    assert [row.label for row in table.rows] == ["nova", "skyreels_v2"]
    assert table.model == SYSTEMS
    assert caption("embedded", SYSTEMS) == "protocol embedded, videos of other systems"
    assert [t.model for t in tables(pd.DataFrame(THEIRS + TINY))] == ["skyreels_v2", "tiny/stable"]


def test_every_large_model_has_them_and_a_frame_without_the_column_stays():
    frame = pd.DataFrame(OURS + rows("rolling", "wan_1_3b/longlive", 16.0, False, 0.2) + THEIRS)
    counts = with_systems(frame).groupby("model")["method"].nunique().to_dict()
    assert counts == {"wan_1_3b/dmd": 2, "wan_1_3b/longlive": 2}
    plain = frame.drop(columns="system")
    assert with_systems(plain) is plain


def test_ours_against_a_system_is_paired_by_prompt():
    (group,) = comparisons(pd.DataFrame(OURS + THEIRS), "infinity_rope", "skyreels_v2")
    _, _, compared = group.metrics["sharpness"]
    assert compared.paired.difference.n == len(PROMPTS)
    assert compared.paired.difference.estimate == pytest.approx(0.1)


def facts(frames: int, fps: float) -> VideoFacts:
    return VideoFacts("v", frames, fps, 8, 8, ())


@pytest.mark.parametrize(
    ("fps", "blocks", "seconds", "frames"),
    [(16, True, 5, 81), (16, False, 5, 80), (24, False, 5, 120), (12, False, 60, 720), (23.976, False, 5, 120)],
)
def test_windows_are_equal_in_seconds(fps: float, blocks: bool, seconds: float, frames: int):
    ((take,), too_long) = windows_of(facts(6000, fps), blocks, [seconds])
    assert (take.start, take.stop, too_long) == (0, frames, [])
    assert take.stop / fps == pytest.approx(seconds, abs=1.5 / fps)


def test_only_videos_of_a_policy_come_in_blocks():
    assert in_blocks({"model": {}, "policy": {}})
    assert not in_blocks({"model": {}, "system": {"name": "nova"}})
    assert not in_blocks(None)


def test_an_experiment_with_the_embedded_model_and_a_system_is_refused(tmp_path: Path):
    results = make_results(tmp_path, {"infinity_rope": {}, "nova": {}}, model="tiny/stable")
    cells = tuple(replace(cell, system="nova" if cell.label == "nova" else "") for cell in results.cells)
    with pytest.raises(MixedError, match="never stand beside those of the embedded model"):
        experiment_table(replace(results, cells=cells))
