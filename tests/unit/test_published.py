"""Published numbers: cells typed a second time from the papers' facts, look-up, and broken files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from eval.overall import QUALITY
from eval.published import (
    FOLDER,
    PublishedError,
    claims,
    forbid_published,
    published,
    published_frame,
    published_value,
    tables,
)
from eval.published_file import read_table
from irope.config import group_options

# (table, model, seconds, metric, value in 0..1 where it is a share), typed apart from the files.
CELLS = [
    ("table1", "LTX-Video", 5, "fps", 8.98),
    ("table1", "MAGI-1", 5, "imaging_quality", 0.6022),
    ("table1", "Rolling-Forcing", 60, "aesthetic_quality", 0.635),
    ("table1", "∞-RoPE", 60, "quality", 0.8298),
    ("table2", "NOVA", 120, "subject_consistency", 0.7394),
    ("table2", "Self-Forcing", 240, "background_consistency", 0.7973),
    ("table2", "∞-RoPE", 240, "dynamic_degree", 0.64),
    ("user_study_long", "NOVA", 60, "rating_average", 1.31),
    ("user_study_long", "∞-RoPE", 60, "rating_temporal", 3.708),
    ("user_study_action", "LongLive", None, "rating_motion", 3.10),
    ("user_study_action", "∞-RoPE", None, "rating_quality", 3.38),
    ("longlive_table4", "KV recache", 10, "clip_score", 27.87),
    ("longlive_table4", "No KV cache", 10, "subject_consistency", 0.8959),
    ("longlive_30s", "FramePack", 30, "semantic", 0.7532),
    ("longlive_30s", "LongLive", 30, "fps", 20.7),
    ("longlive_interactive", "Self-Forcing", 60, "clip_last_segment", 23.19),
    ("longlive_interactive", "LongLive", 60, "quality", 0.8438),
    ("context_forcing", "∞-RoPE", 60, "semantic", 0.743),
    ("context_forcing", "LongLive", 5, "total", 0.8487),
    ("context_forcing", "Context Forcing", 60, "subject_consistency", 0.9488),
    ("recency_forcing", "∞-RoPE", 60, "dynamic_degree", 0.5622),
    ("recency_forcing", "Recency Forcing", 60, "quality", 0.8402),
    ("flowlong", "∞-RoPE", 30, "mean_of_seven", 0.7958),
    ("flowlong", "Self-Forcing", 30, "dynamic_degree", 0.5455),
    ("echo_infinity", "∞-RoPE", 240, "user_preference", 0.141),
    ("echo_infinity", "LongLive", 30, "quality", 0.8359),
    ("echo_infinity_interactive", "∞-RoPE", 60, "clip_first_segment", 33.15),
    ("echo_infinity_interactive", "Echo-Infinity", 60, "clip_last_segment", 30.74),
    ("slotmemory", "∞-RoPE", 60, "clip_score", 22.31),
    ("slotmemory", "SlotMemory", 60, "quality", 0.8161),
    ("memrope", "∞-RoPE", 240, "mean_of_dimensions", 0.8521),
    ("memrope", "MemRoPE", 240, "mean_of_dimensions", 0.8622),
    ("untitled_240s", "∞-RoPE", 240, "temporal_flickering", 0.9808),
    ("untitled_240s", "Rolling Forcing", 240, "dynamic_degree", 0.53),
    ("shotstream", "∞-RoPE", None, "inter_shot_subject", 0.453),
    ("shotstream", "ShotStream", None, "transition_control", 0.978),
    ("deep_forcing", "CausVid", 60, "imaging_quality", 0.6584),
    ("deep_forcing", "Deep Forcing", 60, "fps", 15.75),
    ("reward_forcing", "SkyReels-V2", 60, "imaging_drift_std", 0.0732),
    ("reward_forcing", "Reward Forcing", 60, "total", 0.8141),
    ("rolling_forcing", "Self-Forcing", 30, "imaging_drift_first_last", 0.0166),
    ("rolling_forcing", "Rolling Forcing", 120, "imaging_quality", 0.6896),
    ("rolling_forcing", "CausVid", 30, "latency", 0.78),
    ("rolling_sink", "LongLive without LoRA", 60, "dynamic_degree", 0.759),
    ("rolling_sink", "Self-Forcing", 300, "imaging_quality", 0.57),
    ("lol", "RIFLEx", 100, "sink_collapse_max", 70.95),
    ("lol", "PI", 100, "dynamic_degree", 0.0035),
    ("self_forcing_plus_plus", "MAGI-1", 100, "visual_stability", 0.394),
    ("self_forcing_plus_plus", "Self-Forcing++", 100, "text_alignment", 26.04),
    ("commit_forcing", "Self-Forcing", 60, "subject_consistency_within_clips", 0.969),
    ("commit_forcing", "LongLive", 60, "subject_consistency_clip_to_clip", 0.86),
]


@pytest.mark.parametrize(("table", "model", "seconds", "metric", "value"), CELLS)
def test_cell(table: str, model: str, seconds: float | None, metric: str, value: float) -> None:
    assert published_value(table, metric, model=model, seconds=seconds) == value


@pytest.mark.parametrize(
    ("delta", "subject", "background", "smooth"), [(6, 0.9074, 0.8898, 0.98), (90, 0.8769, 0.8227, 0.95)]
)
def test_delta_ablation(delta: int, subject: float, background: float, smooth: float) -> None:
    rows = published(table="delta_ablation", method="infinity_rope", seconds=40)
    rows = rows[rows["setting"].str.startswith(f"delta={delta},")]
    assert list(rows["metric"]) == ["subject_consistency", "background_consistency", "temporal_smoothness"]
    assert list(rows["value"]) == [subject, background, smooth]


def test_every_table_is_spot_checked_twice() -> None:
    numeric = {name for name, table in tables().items() if table.kind == "scores"} - {"delta_ablation"}
    typed = [cell[0] for cell in CELLS]
    assert {name for name in typed if typed.count(name) > 1} == numeric


def test_claims_without_numbers() -> None:
    protocols = claims("protocols").set_index("paper")
    assert len(protocols) == 12
    assert protocols.loc["LongLive", "arxiv"] == "2509.22622"
    assert protocols.loc["Reward Forcing", "prompts"] == "first 128 MovieGen"
    assert "{6, 9, 12, 15, 18, 21}" in claims("f0_ablation")["setting"][0]
    assert len(claims("cache_size_ablation")) == 2
    assert "7.84 -> 1.33" in claims("headlines").set_index("paper").loc["TetherCache", "claim"]
    with pytest.raises(PublishedError, match="did you mean 'protocols'"):
        claims("protocol")


def test_every_row_says_that_it_is_published_and_whence() -> None:
    frame = published_frame()
    assert set(frame["origin"]) == {"published"}
    assert frame["source"].str.len().min() > 5
    assert not frame.duplicated(["table", "model", "seconds", "setting", "metric"]).any()
    shares = frame[frame["unit"] == "unit"]
    assert shares["value"].between(0, 1).all()
    assert set(QUALITY) < set(frame["metric"])
    with pytest.raises(PublishedError, match="published numbers among the scores"):
        forbid_published(frame)
    ours = frame[["metric", "value"]]
    assert forbid_published(ours) is ours


def test_second_hand_and_inferred_are_marked() -> None:
    found = tables()
    second_hand = {name for name, table in found.items() if table.second_hand and table.kind == "scores"}
    assert second_hand == {
        *("recency_forcing", "flowlong", "echo_infinity", "echo_infinity_interactive"),
        *("slotmemory", "memrope", "untitled_240s", "rolling_forcing"),
    }
    for name in ("table1", "table2"):
        assert (found[name].protocol, found[name].protocol_inferred, found[name].n) == ("vbench", True, 25)
        assert "Inferred" in found[name].n_note
        assert found[name].uncertainty is None
    note = found["recency_forcing"].footnote()
    assert note.startswith("published: Recency Forcing (arXiv 2609.19729); second hand; protocol vbench_long")
    assert "arXiv 2511.20649 v3, Table 1" in found["table1"].footnote()


def test_percent_is_converted_and_the_printed_number_kept() -> None:
    row = published("context_forcing", "infinity_rope", 60, "quality").iloc[0]
    assert (row["value"], row["printed"], row["unit"]) == (0.8081, 80.81, "unit")


def test_names_of_the_papers_lead_to_our_methods() -> None:
    frame = published_frame()
    named = dict(frame[["model", "method"]].dropna().itertuples(index=False))
    assert named == {
        "∞-RoPE": "infinity_rope",
        "Self-Forcing": "rolling",
        "Rolling-Forcing": "rolling_forcing",
        "Rolling Forcing": "rolling_forcing",
        "CausVid": "causvid",
        "LongLive": "kv_recache",
        "KV recache": "kv_recache",
        "SkyReels-V2": "skyreels_v2",
        "MAGI-1": "magi_1",
        "NOVA": "nova",
        "Pyramid Flow": "pyramid_flow",
        "Wan2.1-1.3B": "wan_2_1",
        "LTX-Video": "ltx_video",
    }
    assert set(named.values()) <= set(group_options("method"))
    assert frame.loc[frame["model"] == "FramePack", "method"].isna().any()
    assert not frame.loc[frame["model"] == "NOVA", "method"].isna().any()


def test_lookup() -> None:
    assert published_value("table1", "quality", method="infinity_rope", seconds=60) == 0.8298
    assert published_value("table1", "overall", method="infinity_rope_paper", seconds=60) == 0.8298
    assert set(published(table="table1", method="rolling")["seconds"]) == {5, 60}
    assert list(published("table1", seconds=60, metric="quality", model="rolling forcing")["value"]) == [0.8146]
    assert len(published(method="infinity_rope", metric="quality", seconds=240)) == 2


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"table": "tabel1"}, "table=tabel1; did you mean 'table1'"),
        ({"table": "table1", "method": "infinity_ropes"}, "for table=table1 with method=infinity_ropes; did you mean"),
        ({"table": "table1", "seconds": 120}, "with seconds=120; choices: 5, 60"),
        ({"table": "table2", "seconds": 120, "metric": "imaging"}, "seconds=120 with metric=imaging; did you mean"),
        ({"table": "lol", "method": "rolling"}, "for table=lol with method=rolling; no row has a method"),
    ],
)
def test_a_miss_says_what_there_is(question: dict[str, Any], message: str) -> None:
    with pytest.raises(PublishedError) as error:
        published(**question)
    assert message in str(error.value)


def test_one_value_means_one() -> None:
    with pytest.raises(PublishedError, match="17 numbers match"):
        published_value("table1", "quality")


def broken(**changes: Any) -> dict[str, Any]:
    data = yaml.safe_load((FOLDER / "slotmemory.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in {**data, **changes}.items() if value != "DROP"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": "DROP"}, "n: expected this key to be there"),
        ({"n": 2.5}, "n: expected a whole number"),
        ({"n_note": None}, "n_note: expected text"),
        ({"uncertainty_note": None}, "uncertainty_note: expected text"),
        ({"second_hand": "yes please"}, "second_hand: expected true or false"),
        ({"kind": ["scores"]}, "kind: expected scores or claims"),
        ({"colums": {}}, "unknown key 'colums'; did you mean 'columns'"),
        ({"protocol": "vbench_lon"}, "did you mean 'vbench_long'"),
        ({"columns": {"quality": "per cent", "clip_score": "score"}}, "columns.quality: unknown unit 'per cent'"),
        ({"source": {"paper": "x"}}, "source: expected a mapping with exactly paper, arxiv, version, table"),
        (
            {"source": {"paper": "x", "arxiv": 2605.3, "version": None, "table": None}},
            "source.arxiv: expected a quoted",
        ),
        ({"seconds": "DROP"}, "seconds: expected either in keys"),
        ({"seconds": "long"}, "seconds: expected a length above 0"),
        ({"rows": [["A", 1.0]]}, "rows, row 1: expected 3 cells"),
        ({"rows": [["A", 1.0, 2.0], ["A", 1.0, 2.0]]}, "rows, row 2 (A): expected model that no other row has"),
        ({"rows": [["A", 120.0, 2.0]]}, "rows, row 1 (A), quality: expected null or a number in 0..100 (percent)"),
        ({"rows": [["A", "80", 2.0]]}, "quality: expected null or a number in 0..100 (percent), not '80'"),
        ({"rows": []}, "rows: expected a list with at least one row"),
    ],
)
def test_a_broken_file_is_named_with_its_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(broken(**changes), sort_keys=False), encoding="utf-8")
    with pytest.raises(PublishedError) as error:
        tables(tmp_path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["rows: [", "- 1", "", "\x00"])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PublishedError) as error:
        read_table(path)
    assert str(path) in str(error.value)


def test_a_folder_without_tables_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PublishedError, match="no published tables"):
        tables(tmp_path)
