"""Combined scores against the published tables, worked numbers and the properties of an affine formula."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from eval.overall import (
    QUALITY,
    SEMANTIC,
    TEMPORAL_SMOOTHNESS,
    ScoreError,
    combined,
    mean_scores,
    missing_dimensions,
    overall_without_dynamic,
    quality,
    semantic,
    total,
)
from eval.published import published


def printed_rows(*tables: str) -> dict[tuple[str, float], dict[str, float]]:
    rows: dict[tuple[str, float], dict[str, float]] = {}
    for table in tables:
        for cell in published(table=table).itertuples():
            rows.setdefault((cell.model, cell.seconds), {})[cell.metric] = cell.value
    return rows


PAPER = printed_rows("table1", "table2")
HALF = dict.fromkeys([*QUALITY, *SEMANTIC], 0.25)


def test_the_paper_has_29_rows() -> None:
    assert len(PAPER) == 29
    assert sorted({seconds for _, seconds in PAPER}) == [5, 60, 120, 240]


@pytest.mark.parametrize("row", list(PAPER), ids=str)
def test_quality_is_the_overall_of_tables_1_and_2(row: tuple[str, float]) -> None:
    assert round(quality(PAPER[row]), 4) == PAPER[row]["quality"]


def test_quality_of_vbench_long_in_another_paper() -> None:
    rows = {name: row for name, row in printed_rows("recency_forcing").items() if "dynamic_degree" in row}
    assert len(rows) == 4
    for row in rows.values():
        assert quality(row) == pytest.approx(row["quality"], abs=0.0001)  # of dimensions rounded to 0.0001


@pytest.mark.parametrize(
    ("seconds", "rolling_forcing", "infinity_rope"),
    [(5, 0.8693, 0.8675), (60, 0.8525, 0.8557), (120, 0.8475, 0.8456), (240, 0.8352, 0.8468)],
)
def test_without_dynamic_degree_the_order_flips_at_120_s(
    seconds: float, rolling_forcing: float, infinity_rope: float
) -> None:
    rival, ours = PAPER["Rolling-Forcing", seconds], PAPER["∞-RoPE", seconds]
    assert round(overall_without_dynamic(rival), 4) == rolling_forcing
    assert round(overall_without_dynamic(ours), 4) == infinity_rope
    assert quality(ours) > quality(rival)
    assert (infinity_rope > rolling_forcing) == (seconds in (60, 240))


@pytest.mark.parametrize("row", list(PAPER), ids=str)
def test_dynamic_degree_is_a_share_of_25_videos(row: tuple[str, float]) -> None:
    assert math.isclose(PAPER[row]["dynamic_degree"] * 25, round(PAPER[row]["dynamic_degree"] * 25))


def test_one_video_of_25_moves_the_paper_overall_by_a_third_of_a_point() -> None:
    scores = PAPER["∞-RoPE", 60]
    moved = quality({**scores, "dynamic_degree": scores["dynamic_degree"] + 1 / 25})
    assert round(moved - quality(scores), 4) == 0.0031


def test_total_on_an_example_worked_in_fractions() -> None:
    quarter = Fraction(1, 4)

    def norm(low: str, high: str) -> Fraction:
        return (quarter - Fraction(low)) / (Fraction(high) - Fraction(low))

    six = [norm("0.1462", "1"), norm("0.2615", "1"), norm("0.6293", "1"), norm("0.706", "0.9975"), quarter, quarter]
    nine = [quarter] * 5 + [norm("0", "0.8222"), norm("0.0009", "0.2855"), *[norm("0", "0.364")] * 2]
    worked_quality = (sum(six) + quarter / 2) / Fraction(13, 2)
    worked_semantic = sum(nine) / 9
    assert quality(HALF) == pytest.approx(float(worked_quality), abs=1e-12)
    assert overall_without_dynamic(HALF) == pytest.approx(float(sum(six) / 6), abs=1e-12)
    assert semantic(HALF) == pytest.approx(float(worked_semantic), abs=1e-12)
    assert total(HALF) == pytest.approx(float((4 * worked_quality + worked_semantic) / 5), abs=1e-12)


def test_total_of_quality_and_semantic_in_the_longlive_paper() -> None:
    for row in printed_rows("longlive_30s").values():
        assert (4 * row["quality"] + row["semantic"]) / 5 == pytest.approx(row["total"], abs=0.0001)


def test_a_missing_dimension_is_named_and_never_a_number() -> None:
    scores = {**PAPER["∞-RoPE", 60], "motion_smoothness": None, "imaging_quality": float("nan")}
    del scores["dynamic_degree"]
    with pytest.raises(ScoreError, match="missing: motion_smoothness, imaging_quality, dynamic_degree"):
        quality(scores)
    with pytest.raises(ScoreError, match=r"missing: motion_smoothness, imaging_quality$"):
        overall_without_dynamic(scores)
    with pytest.raises(ScoreError, match=r"16 dimensions.*object_class"):
        total(PAPER["∞-RoPE", 60])
    with pytest.raises(ScoreError, match="missing"):
        quality({}, missing="misspelt")  # type: ignore[arg-type]
    assert missing_dimensions(scores, QUALITY) == ["motion_smoothness", "imaging_quality", "dynamic_degree"]


def test_zero_does_as_the_script_does_and_normalises_a_raw_zero() -> None:
    scores = PAPER["∞-RoPE", 60]
    lacking = {name: value for name, value in scores.items() if name != "motion_smoothness"}
    lost = (0.9901 - 0.706) / 0.2915 + 0.706 / 0.2915
    assert quality(lacking, missing="zero") == pytest.approx(quality(scores) - lost / 6.5, abs=1e-12)
    assert semantic({}, missing="zero") == pytest.approx(-0.0009 / 0.2846 / 9, abs=1e-12)
    assert total(scores, missing="zero") == pytest.approx((4 * quality(scores) + semantic({}, missing="zero")) / 5)


def test_combined_leaves_out_what_cannot_be_known() -> None:
    seven = combined(PAPER["∞-RoPE", 60])
    assert seven["quality"] == quality(PAPER["∞-RoPE", 60])
    assert seven["overall_without_dynamic"] is not None
    assert seven["semantic"] is None
    assert seven["total"] is None
    assert None not in combined(HALF).values()


@pytest.mark.parametrize("value", [96.5, -2.0, math.inf])
def test_percent_is_refused(value: float) -> None:
    with pytest.raises(ScoreError, match=r"subject_consistency is .*0\.\.1"):
        quality({**HALF, "subject_consistency": value})


def test_the_score_of_the_means_is_the_mean_of_the_scores() -> None:
    rng = np.random.default_rng(3)
    videos = [
        {**{name: float(value) for name, value in zip(QUALITY, rng.random(7), strict=True)}, "dynamic_degree": moving}
        for moving in (True, False, True)
    ]
    assert quality(mean_scores(videos)) == pytest.approx(np.mean([quality(video) for video in videos]), abs=1e-12)
    assert mean_scores(videos)["dynamic_degree"] == pytest.approx(2 / 3)


def test_means_over_different_videos_are_refused() -> None:
    with pytest.raises(ScoreError, match="motion_smoothness is missing in 1 of 2 videos"):
        mean_scores([HALF, {**HALF, "motion_smoothness": None}])
    with pytest.raises(ScoreError, match="no video"):
        mean_scores([])


def test_temporal_smoothness_is_shown_as_both_it_may_mean() -> None:
    assert set(TEMPORAL_SMOOTHNESS) == {"motion_smoothness", "temporal_flickering"}
    assert set(TEMPORAL_SMOOTHNESS) < set(QUALITY)
    assert len(set(TEMPORAL_SMOOTHNESS.values())) == 2
