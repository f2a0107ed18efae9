"""Clips that a program hands over as mp4 files: the same video as from raw frames, and held to what was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from baselines.systems.program import ProgramError
from tests.subprocess_kit import SEED, Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """In a folder below the present one, as results are, while the program runs elsewhere."""
    monkeypatch.chdir(tmp_path)
    return Run(Path())


def test_a_video_of_mp4_clips_is_that_of_raw_ones(run: Run) -> None:
    """Each clip starts from the last frame of the one before, which the program finds decoded."""
    info = run("mp4", frames=12)
    assert run.frames[:12] == [SEED + i for i in range(12)]
    assert info.calls == 3
    assert run.clips == ["clip-0000.rgb", "clip-0001.rgb", "clip-0002.rgb"]
    assert run.beats > 6


def test_it_continues_after_its_last_whole_clip(run: Run) -> None:
    with pytest.raises(ProgramError):
        run("crash 1")
    run("mp4")
    assert run.runs == [[0, 1, 2], [1, 2]]
    assert run.frames[:12] == [SEED + i for i in range(12)]


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("mp4-few", "handed over clip 0 with 3 frames of 6x4 where clip 0 with 5 frames of 6x4 was asked for"),
        ("mp4-tall", "handed over clip 0 as an mp4 of 6x6 at 8 fps where 6x4 at 8 fps was asked for"),
        ("mp4-fast", "handed over clip 0 as an mp4 of 6x4 at 9 fps where 6x4 at 8 fps was asked for"),
        ("mp4-broken", r"handed over an mp4 that cannot be read: .*clip-0000\.mp4"),
        ("mp4-elsewhere", r"handed over .*/work/clip\.mp4, which is not in .*/work/clips"),
        ("mp4-other", "handed over clip 7 with 5 frames of 6x4 where clip 0 with 5 frames of 6x4 was asked for"),
    ],
)
def test_size_rate_and_length_are_held_to_what_was_asked_for(run: Run, behaviour: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message) as caught:
        run(behaviour)
    assert "\n" not in str(caught.value)
    assert "clip-0000.rgb" not in run.clips, "nothing a later run would take for a clip"
    assert run.nothing_is_left()
