"""Other systems from the command line: videos that exist are imported, scored and tabled; what is missing is named."""

import json
from pathlib import Path

import pytest

from irope.cli.main import main
from tests.video_kit import moving, write_clip

SCORERS = "score.scorers=[flicker,sharpness,motion]"
PROMPTS = ("a cat", "a dog")


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders of published videos: 12 and 24 frames a second, a little longer than 2 s."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IROPE_WEIGHTS", raising=False)
    for name, fps, height in (("a", 12, 48), ("b", 24, 64)):
        for seed, prompt in enumerate(PROMPTS):
            (tmp_path / name).mkdir(exist_ok=True)
            write_clip(tmp_path / name / f"{prompt}-0.mp4", moving(2 * fps + 3, height, 64, seed), fps=fps)
    return tmp_path


def bring(name: str) -> list[str]:
    return ["method=folder", f"video.method.system.folder={name}", f'video.method.system.label="System {name}"']


def test_imported_videos_from_import_to_table(two: Path, capsys: pytest.CaptureFixture[str]):
    for name in "ab":
        assert main(["generate", *bring(name)]) == 0
    assert capsys.readouterr().out.count("imported") == 4
    assert main(["generate", *bring("a")]) == 0
    assert capsys.readouterr().out.count("(was done already)") == 2
    assert main(["score", "results/runs", "score.windows=[2]", SCORERS]) == 0
    capsys.readouterr()
    assert main(["table", "results/runs", "--format", "markdown"]) == 0
    text = capsys.readouterr().out
    assert "frame rates differ: System a 12, System b 24 fps; motion scores depend on them" in text
    windows = {
        window
        for file in (two / "results/runs/scores").rglob("*.json")
        for window in json.loads(file.read_text())["windows"]
    }
    assert windows == {"0-24", "0-48"}, "equal in seconds"
    assert main(["compare", "System a", "System b", "results/runs"]) == 0
    assert "other systems" in capsys.readouterr().out
    assert main(["verify", "results/runs", "--all"]) == 0
    assert "4 of 4 made again" in capsys.readouterr().out


def test_an_experiment_makes_and_scores_them(two: Path, capsys: pytest.CaptureFixture[str]):
    (two / "set.txt").write_text("\n".join(PROMPTS))
    words = ["run", *bring("b"), "video.prompts.file=set.txt", "duration=2", "seed=0", SCORERS, "-m"]
    assert main(["plan", *words[1:]]) == 0
    planned = capsys.readouterr().out
    assert "to do: 2 of 2 videos" in planned
    assert "which counts as 0 s" in planned
    assert main([*words, "sys.worker=true"]) == 0
    assert "2 made, 2 scored, 0 failed" in capsys.readouterr().out
    assert main(["table", *words[1:], "--format", "csv"]) == 0
    assert "System b" in capsys.readouterr().out
    assert main(["status", *words[1:]]) == 0
    assert "complete" in capsys.readouterr().out


def test_a_window_of_an_imported_video_is_a_part_of_it_and_a_longer_one_is_no_gap(
    two: Path, capsys: pytest.CaptureFixture[str]
):
    (two / "set.txt").write_text("\n".join(PROMPTS))
    asked = ["duration=1,2,9", "seed=0", SCORERS, "video.prompts.file=set.txt", *bring("b"), "-m"]
    assert main(["run", *asked, "sys.worker=true"]) == 0
    assert "2 made, 2 scored, 0 failed" in capsys.readouterr().out
    assert main(["table", *asked, "--format", "markdown"]) == 0
    text = capsys.readouterr().out
    assert "System b at 9 s: 2 of its videos are shorter" in text
    assert "incomplete" not in text
    (file, _) = (two / "results/runs/scores").rglob("*.json")
    assert list(json.loads(file.read_text())["windows"]) == ["0-24", "0-48"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate", "method=skyreels_v2"], "hf download Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers --local-dir"),
        (["generate", "method=folder"], "give the folder of the videos"),
        (["generate", *bring("nowhere")], "no such folder"),
        (["generate", "method=wan_2_1", "duration=60"], "up to 81 frames"),
        (["generate", "method=skyreels_v2", "video.method.system.window=96"], "nearest valid: 97"),
        (["generate", "method=skyreels_v2", "video.method.system.windows=97"], "did you mean"),
        (["explain", "method=skyreels_v2"], "it has no cache policy"),
        (["generate", "method=ltx_video", "prompt=a cat[2s] | a dog[2s]"], "one prompt a video"),
    ],
)
def test_what_cannot_be_is_one_line(two: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str):
    assert main([*words, *(["prompt=a cat"] if not any("prompt=" in word for word in words) else [])]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
