"""Score, table and compare as a user runs them, on a folder with good and bad files."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from irope.cli.main import main
from tests.cli.conftest import Irope
from tests.video_kit import moving, write_audio, write_exact


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_exact(tmp_path / "a prompt-0.mkv", moving(2, 24, 32, seed=0))
    return tmp_path / "a prompt-0.mkv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two methods, nine prompts each; ``noisy`` has noise on top."""
    root = tmp_path / "my videos"
    rng = np.random.default_rng(0)
    for number in range(9):
        clean = moving(18, 24, 32, seed=number)
        noise = rng.integers(-40, 41, clean.shape)
        for method, frames in (("clean", clean), ("noisy", np.clip(clean + noise, 0, 255).astype(np.uint8))):
            (root / method).mkdir(parents=True, exist_ok=True)
            write_exact(root / method / f"prompt_{number} é-0.mkv", frames)
    return root


def test_score_table_and_compare_a_folder_of_videos(irope: Irope, folder: Path):
    few = "score.scorers=[flicker,motion]"
    done = irope("score", str(folder), few)
    assert done.returncode == 0, done.stderr
    assert "18 of 18 videos, 36 new scores" in done.stdout
    assert "video 18/18" in done.stderr
    assert "frames/s  ETA" in done.stderr
    again = irope("score", str(folder), few)
    assert "0 new scores, 36 were there" in again.stdout
    shown = irope("table", str(folder)).stdout
    assert "protocol embedded, videos of unknown origin" in shown
    assert re.search(r"clean +9 ", shown), "n beside the method"
    assert "a frozen video wins this; read it beside Motion" in shown
    rows = list(csv.DictReader(irope("table", str(folder), "--format", "csv").stdout.splitlines()))
    assert {(row["method"], row["n"]) for row in rows} == {("clean", "9"), ("noisy", "9")}
    assert "tied: no difference shown" in irope("compare", "clean", "noisy", str(folder)).stdout
    found = json.loads(irope("compare", "clean", "noisy", str(folder), "--json").stdout)
    (flicker,) = [record for record in found if record["metric"] == "flicker"]
    assert (flicker["verdict"], flicker["prompts"]) == ("better", 9)
    assert not [record for record in found if record["metric"] == "motion"], "motion ranks nothing"


def test_bad_files_are_named_one_by_one_and_the_rest_is_scored(irope: Irope, folder: Path):
    (folder / "clean/empty.mp4").write_bytes(b"")
    (folder / "clean/notes.mp4").write_text("no video")
    write_audio(folder / "clean/sound.mp4")
    for name in ("prompt_1 é-0.mp4",):
        (folder / "clean" / name).write_bytes(b"x")  # the name of a file that is there
    done = irope("score", str(folder / "clean"), "score.scorers=[flicker]")
    assert done.returncode == 1
    for name in ("empty.mp4", "notes.mp4", "sound.mp4", "prompt_1 é-0.mp4", "prompt_1 é-0.mkv"):
        assert name in done.stderr, name
    assert "8 of 11 videos, 8 new scores" in done.stdout
    listed = {f"prompt_{n} é-0.mkv": f"a prompt {n}" for n in range(2, 8)}
    (folder / "clean/prompts.json").write_text(json.dumps(listed))
    done = irope("score", str(folder / "clean"), "score.scorers=[flicker]")
    assert done.returncode == 1
    assert "warning" in done.stderr
    assert "no prompt for it in" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "nowhere"], ["nowhere: no such file or folder"]),
        (["score", "protocol=vbnch"], ["unknown protocol", "did you mean 'vbench'"]),
        (["score", ".", "score.scorers=[flickr]"], ["unknown scorer 'flickr'", "did you mean 'flicker'"]),
        (["score", ".", "score.scorers=flicker"], ["score.scorers=flicker", "expected a list"]),
        (["score", ".", "score.windows=[5,-1]"], ["score.windows=", "expected seconds"]),
        (["score", ".", "score.precision=fp8"], ["score.precision=fp8", "half"]),
        (["score", ".", "protocol=vbench_long", "+score.protocol.settings.second=2"], ["'second'", "'seconds'"]),
        (["score", ".", "score.prompts=none.csv"], ["none.csv: cannot be read"]),
        (["table", "nowhere"], ["nowhere: no such folder"]),
        (["table", "."], ["nothing was scored here; run: irope score"]),
        (["list", "scorer"], ["did you mean 'scorers'"]),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(
    video: Path,
    arguments: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(video.parent)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("scorers", ["flicker", "[vbench; higher is better]", "source: VBench"]),
        ("protocols", ["embedded", "they are not VBench", "vbench_long"]),
        ("published", ["table1", "arXiv 2511.20649", "n 25", "second hand"]),
    ],
)
def test_list_says_what_there_is_and_where_it_comes_from(
    kind: str, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["list", kind]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(word in said for word in words), said
