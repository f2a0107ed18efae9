"""What lies in a results folder by name, and what is left will cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irope.claims import Claims
from irope.cost import MODEL, Work, duration, estimate
from irope.history import History, Made, Scored
from irope.inventory import Count, Inventory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cell = tmp_path / "rolling"
    (tmp_path / "scores/embedded/rolling").mkdir(parents=True)
    cell.mkdir()
    for name in ("a", "b"):
        (cell / f"{name}.json").touch()
        (cell / f"{name}.mp4").touch()
    (tmp_path / "scores/embedded/rolling/a.json").touch()
    (cell / "c.error.json").touch()
    (cell / "d.mp4").touch()  # without its sidecar it is nobody's
    return tmp_path


def test_counts(folder: Path):
    claim = Claims(folder).take("key-d", "rolling/d")
    assert claim is not None
    inventory = Inventory(folder, folder / "scores/embedded")
    videos = [(name, f"key-{name}") for name in "abcd"]
    count = inventory.count("rolling", videos)
    assert count == Count(videos=4, made=2, done=1, failed=1, working=1)
    assert count.todo == 3
    assert inventory.count("absent", [("a", "k")]) == Count(1, 0, 0, 0, 0)
    assert inventory.labels() == ["rolling"]
    assert count + count == Count(8, 4, 2, 2, 2)


def test_history_survives_what_kills_a_worker(tmp_path: Path):
    history = History(tmp_path)
    records = [
        Made("tiny/stable", "rolling", "cpu", 240, 3.0, 1000),
        Scored("tiny/stable", "embedded", "cpu", 957, 6.0),
    ]
    for record in records:
        history.add(record)
    (file,) = history.folder.glob("*.jsonl")
    file.write_text(file.read_text() + '{"kind": "Made", "model": "ti')
    (history.folder / "other.jsonl").write_text(json.dumps({"kind": "Unknown"}) + "\nnonsense\n")
    assert list(history) == records
    assert list(History(tmp_path / "nowhere")) == []


def test_estimates_follow_what_was_measured():
    work = [
        Work("tiny/stable", "rolling", 240, 957),
        Work("tiny/stable", "full", 21, 81),
        Work("tiny/stable", "full", 0, 81),
    ]
    unknown = estimate(work, [], "embedded")
    rates = MODEL["tiny"]
    assert unknown.seconds == pytest.approx(261 * rates.latent + (957 + 162) * rates.frame)
    assert unknown.size == pytest.approx(261 * rates.size)
    assert unknown.measured == 0
    assert unknown.source
    past = [Made("tiny/stable", "rolling", "cpu", 100, t, 5000) for t in (1.0, 2.0, 9.0)]
    past += [Scored("tiny/stable", "embedded", "cpu", 100, 4.0), Scored("tiny/stable", "vbench", "cpu", 100, 400.0)]
    known = estimate(work, [*past, Made("tiny/base", "rolling", "cpu", 1, 999.0, 1)], "embedded")
    assert known.seconds == pytest.approx(261 * 0.02 + (957 + 162) * 0.04), "medians; full has none of its own"
    assert known.longest == pytest.approx(240 * 0.02 + 957 * 0.04)
    assert known.size == pytest.approx(261 * 50)
    assert known.measured == 3
    assert known.wall(2) == pytest.approx(max(known.seconds / 2, known.longest))
    assert estimate(work, past, "vbench").seconds > known.seconds
    assert estimate(work, past, "embedded", device="another").measured == 0


def test_an_estimate_for_a_gpu_says_so_until_there_are_own_numbers():
    work = [Work("wan_1_3b/self_forcing_dmd", "full", 21, 81)]
    assert estimate(work, [], "vbench").gpu == "H100"
    made = Made(work[0].model, "full", "cpu", 21, 9.0, 1)
    assert estimate(work, [made], "vbench").gpu == "H100", "scoring is still guessed"
    own = [made, Scored(work[0].model, "vbench", "cpu", 81, 4.0)]
    assert (estimate(work, own, "vbench").gpu, estimate(work, own, "vbench").measured) == ("", 1)
    assert estimate([Work("tiny/stable", "full", 21, 81)], [], "embedded").gpu == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (6000, "1.7 h"), (48 * 3600, "2.0 days")]
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
