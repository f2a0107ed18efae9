"""Scoring a folder: the numbers on disk, what is made again and what is kept, and files that are no good."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.protocol import Whole
from eval.registry import make_scorer
from eval.score import Outcome, Plan, score_video
from eval.scores import read_scores, windowed
from eval.videos import Video, find_videos
from irope.errors import UserError
from tests.video_kit import cut, moving, write_audio, write_clip, write_exact

FLICKER = {"temporal_flickering": make_scorer("temporal_flickering")}


def flickering(frames: np.ndarray) -> float:
    return float(1 - np.abs(np.diff(frames.astype(np.float64), axis=0)).mean() / 255)


def plan(folder: Path, **changes: Any) -> Plan:
    return replace(Plan("vbench", Whole(), FLICKER, folder / "scores"), **changes)


def only(folder: Path) -> Video:
    (video,) = find_videos(folder)[0]
    return video


def on_disk(folder: Path, name: str) -> dict[str, Any]:
    found = read_scores(folder / "scores" / "vbench" / f"{name}.json")
    assert found is not None
    return found


def test_the_value_on_disk_is_the_formulas(tmp_path: Path):
    frames = moving(40)
    write_exact(tmp_path / "a b_ü-0.mkv", frames)
    outcome = score_video(only(tmp_path), plan(tmp_path))
    assert (outcome.scored, outcome.kept, outcome.frames) == (1, 0, 40)
    found = on_disk(tmp_path, "a b_ü-0")
    score = found["windows"]["0-40"]["scores"]["temporal_flickering"]
    assert score["value"] == pytest.approx(flickering(frames), abs=1e-12)
    assert score["terms"] == 39
    assert score["curve"]["seconds"] == 1.0
    assert score["curve"]["values"][1] == pytest.approx(flickering(frames[15:32]), abs=1e-6)
    assert found["video"]["prompt"] == "a b_ü"


def test_windows_are_scored_as_videos_of_their_own_in_one_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    frames = moving(64)
    write_exact(tmp_path / "a.mkv", frames)
    outcome = score_video(only(tmp_path), plan(tmp_path, windows=(1.0, 2.5, 9.0)))
    windows = on_disk(tmp_path, "a")["windows"]
    assert set(windows) == {"0-16", "0-40"}
    for name, window in windows.items():
        stop = int(name.split("-")[1])
        assert window["scores"]["temporal_flickering"]["value"] == pytest.approx(flickering(frames[:stop]), abs=1e-12)
    assert outcome.frames == 40, "frames beyond the last window are not decoded"
    assert any("no window of 9 s" in note for note in outcome.notes)


def test_only_what_is_missing_is_scored_again(tmp_path: Path):
    write_exact(tmp_path / "a.mkv", moving(20))
    first = score_video(only(tmp_path), plan(tmp_path))
    again = score_video(only(tmp_path), plan(tmp_path))
    assert (first.scored, again.scored, again.kept, again.frames) == (1, 0, 1, 0)
    wider = FLICKER | {"flicker": make_scorer("flicker")}
    more = score_video(only(tmp_path), plan(tmp_path, scorers=wider))
    assert (more.scored, more.kept) == (1, 1), "a new scorer runs alone"
    both = on_disk(tmp_path, "a")["windows"]["0-20"]["scores"]
    assert set(both) == {"temporal_flickering", "flicker"}
    window = score_video(only(tmp_path), plan(tmp_path, scorers=wider, windows=(1.0,)))
    assert window.scored == 2
    assert set(on_disk(tmp_path, "a")["windows"]) == {"0-20", "0-16"}


def test_another_file_or_other_prompts_make_every_score_anew(tmp_path: Path):
    write_exact(tmp_path / "a.mkv", moving(20))
    score_video(only(tmp_path), plan(tmp_path, windows=(1.0,)))
    score_video(only(tmp_path), plan(tmp_path))
    (tmp_path / "prompts.json").write_text('{"a.mkv": "another"}')
    assert score_video(only(tmp_path), plan(tmp_path)).scored == 1
    write_exact(tmp_path / "a.mkv", moving(20, seed=5))
    assert score_video(only(tmp_path), plan(tmp_path)).scored == 1
    found = on_disk(tmp_path, "a")["windows"]
    assert set(found) == {"0-20"}, "the window of the old file is gone"
    value = found["0-20"]["scores"]["temporal_flickering"]["value"]
    assert value == pytest.approx(flickering(moving(20, seed=5)), abs=1e-12)


@dataclass(frozen=True)
class Other(Whole):
    strength: float = 1.0


def test_two_settings_of_a_protocol_never_share_a_file(tmp_path: Path):
    write_exact(tmp_path / "a.mkv", moving(20))
    score_video(only(tmp_path), plan(tmp_path, protocol=Other()))
    with pytest.raises(UserError, match=r"other settings of the protocol vbench; give yours a name"):
        score_video(only(tmp_path), plan(tmp_path, protocol=Other(2.0)))
    assert score_video(only(tmp_path), plan(tmp_path, protocol=Other(2.0), name="mine")).scored == 1


def test_a_scorer_that_cannot_run_says_why_and_keeps_what_it_once_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_exact(tmp_path / "a.mkv", moving(20))
    monkeypatch.setattr(type(FLICKER["temporal_flickering"]), "unavailable", lambda self: "its weights are missing")
    outcome = score_video(only(tmp_path), plan(tmp_path))
    assert outcome.skipped == {"temporal_flickering": "its weights are missing"}
    entry = on_disk(tmp_path, "a")["windows"]["0-20"]["scores"]["temporal_flickering"]
    assert entry["skipped"] == "its weights are missing"
    assert "value" not in entry
    monkeypatch.undo()
    assert score_video(only(tmp_path), plan(tmp_path)).scored == 1
    monkeypatch.setattr(type(FLICKER["temporal_flickering"]), "unavailable", lambda self: "its weights are missing")
    score_video(only(tmp_path), plan(tmp_path))
    assert "value" in on_disk(tmp_path, "a")["windows"]["0-20"]["scores"]["temporal_flickering"]


def test_a_number_is_kept_although_a_score_derived_from_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_exact(tmp_path / "a.mkv", moving(20))
    imaging = {"imaging": make_scorer("imaging")}
    score_video(only(tmp_path), plan(tmp_path, scorers=imaging))
    monkeypatch.setattr(type(imaging["imaging"]), "unavailable", lambda self: "its weights are missing")
    both = imaging | {"imaging_drift": make_scorer("imaging_drift", {"of_score": "imaging"})}
    outcome = score_video(only(tmp_path), plan(tmp_path, scorers=both))
    scores = on_disk(tmp_path, "a")["windows"]["0-20"]["scores"]
    assert "value" in scores["imaging"]
    assert scores["imaging_drift"]["skipped"] == "imaging was skipped: its weights are missing"
    assert set(outcome.skipped) == {"imaging", "imaging_drift"}


def test_a_bad_file_is_a_problem_of_its_own(tmp_path: Path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    write_audio(tmp_path / "sound.mp4")
    cut(write_clip(tmp_path / "cut.mp4", moving(30), index_first=True), 0.6)
    write_exact(tmp_path / "one.mkv", moving(1))
    write_exact(tmp_path / "odd.mkv", moving(9, 47, 63))
    outcomes = {video.name: score_video(video, plan(tmp_path)) for video in find_videos(tmp_path)[0]}
    bad = {name: outcome.problem for name, outcome in outcomes.items() if outcome.problem is not None}
    assert set(bad) == {"empty", "text", "sound", "cut"}
    assert all(problem.path.name in problem.message for problem in bad.values())
    assert "score.truncated=true" in bad["cut"].message
    video = next(video for video in find_videos(tmp_path)[0] if video.name == "cut")
    part = score_video(video, plan(tmp_path, truncated=True))
    assert part.scored == 1
    assert 2 <= part.frames < 30
    assert any("truncated" in note for note in part.notes)
    assert outcomes["one"].skipped == {"temporal_flickering": "one frame has no neighbour"}
    assert outcomes["odd"].scored == 1
    assert not (tmp_path / "scores/vbench/empty.json").exists()


def test_a_broken_score_file_is_named(tmp_path: Path):
    write_exact(tmp_path / "a.mkv", moving(20))
    score_video(only(tmp_path), plan(tmp_path))
    path = tmp_path / "scores/vbench/a.json"
    for text in ("{", json.dumps({"some": "json"})):
        path.write_text(text)
        problem = score_video(only(tmp_path), plan(tmp_path)).problem
        assert problem is not None
        assert str(path) in problem.message
        assert path.read_text() == text, "nothing is overwritten that may be somebody's"


def test_curves_keep_the_mean_of_every_second():
    curve = np.array([np.nan, 1.0, 3.0, np.nan, np.nan, np.nan, 5.0])
    assert windowed(curve, fps=2.0) == [1.0, 3.0, None, 5.0]
    ntsc = np.arange(60, dtype=np.float64)
    assert len(windowed(ntsc, fps=24000 / 1001)) == 3
    assert windowed(ntsc, fps=24000 / 1001)[0] == pytest.approx(np.arange(24).mean())


def test_progress_reaches_the_end(tmp_path: Path):
    write_exact(tmp_path / "a.mkv", moving(70))
    seen: list[tuple[int, int]] = []
    outcome: Outcome = score_video(only(tmp_path), plan(tmp_path), lambda done, total: seen.append((done, total)))
    assert outcome.problem is None
    assert seen[-1] == (70, 70)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
