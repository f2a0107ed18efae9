"""What a user sees of each verb, on a small model with random weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from eval.videos import find_videos
from irope.cli.main import main
from irope.video import frame_hash, probe, read_frames
from tests.cli.conftest import ROOT, Irope

GOLDEN = ROOT / "tests" / "golden" / "data"


@pytest.mark.parametrize(
    ("kind", "name"),
    [("policies", "rolling_forcing"), ("methods", "infinity_rope_paper"), ("models", "tiny"), ("prompts", "demo")],
)
def test_list_names_what_can_be_chosen(kind: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", kind]) == 0
    assert any(line.startswith(name) for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("command", [["list", "methods"], ["explain", "method=infinity_rope", "duration=60"]])
def test_list_and_explain_load_no_torch(command: list[str], tmp_path: Path) -> None:
    code = (
        f"import sys; from irope.cli.main import main; assert main({command!r}) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=60)


def test_explain_shows_switch_and_cut_in_text_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "method=infinity_rope", "duration=60", "--svg", str(tmp_path / "a.svg")]) == 0
    out = capsys.readouterr().out
    assert "45 46 47" in out
    assert "prompt switch" in out
    assert "scene cut" in out
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")


def test_explain_diff_says_when_two_methods_are_the_same_video(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a sink absolute and relative indices are the same: only differences count."""
    settings = ["duration=5", "prompts=basic"]
    assert main(["explain", "--diff", "rolling_w6", "rolling_sink1", *settings]) == 0
    assert "differ from block 2" in capsys.readouterr().out
    assert main(["explain", "--diff", "infinity_rope", "infinity_rope", *settings]) == 0
    assert "dentical" in capsys.readouterr().out


def test_verify_golden_prints_a_line_per_run_and_fails_on_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("weights", "infinity_rope"):
        shutil.copy(GOLDEN / f"{name}.safetensors", tmp_path)
    assert main(["verify", "golden", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("  ok" in line for line in lines) == len(lines) - 1 == 6
    weights = load_file(tmp_path / "weights.safetensors")
    weights["blocks.1.ffn.2.bias"] += 1e-3
    save_file(weights, tmp_path / "weights.safetensors")
    assert main(["verify", "golden", str(tmp_path)]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_verify_golden_counts_a_recording_of_an_unknown_system_as_a_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(GOLDEN / "weights.safetensors", tmp_path)
    shutil.copy(GOLDEN / "memrope.safetensors", tmp_path / "of_next_year.safetensors")
    assert main(["verify", "golden", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert out.count("FAIL") == out.count("unknown recording 'of_next_year'") == 2


def test_generate_writes_video_frames_and_a_sidecar_that_describes_them(
    irope: Irope, weights: Path, tmp_path: Path
) -> None:
    prompt = "prompt=a red circle moving left[3s] | a red circle moving up[3s#] ; to the left | up"
    arguments = ["generate", f"video.model.weights={weights}", "seed=3", "video.file.subtitles=true", prompt]
    first = irope(*arguments)
    assert first.returncode == 0, first.stderr
    assert "frames" in first.stdout
    (sidecar,) = tmp_path.glob("results/runs/infinity_rope/*.json")
    facts = json.loads(sidecar.read_text())
    mp4, mkv = sidecar.with_suffix(".mp4"), sidecar.with_suffix(".mkv")
    assert sorted(path.name for path in sidecar.parent.iterdir()) == sorted([sidecar.name, mp4.name, mkv.name])
    frames = np.concatenate(list(read_frames(mkv)))
    assert frames.shape == (facts["pixel_frames"], 64, 64, 3) == (93, 64, 64, 3)
    assert frame_hash(frames) == facts["frames_sha256_chain"]
    shown = probe(mp4)
    assert (shown.frames, shown.fps, shown.width) == (93, 16, 256)
    assert shown.height > 256  # the strip with the subtitle
    assert facts["config"]["video"]["method"]["policy"]["name"] == "infinity_rope"
    assert len(facts["seconds_per_block"]) == 8
    assert [plan["event"] for plan in facts["plans"] if plan["event"] != "block"] == ["scene_cut"]
    assert facts["cost"]["kv_page_bytes"] == 6 * 2 * 2 * 16 * 48 * 4  # pages, K and V, layers, tokens, width, float32
    assert {"git", "packages", "python", "device"} <= facts["environment"].keys()
    before = mp4.stat().st_mtime_ns
    again = irope(*arguments)
    assert again.returncode == 0
    assert "done already" in again.stdout
    assert mp4.stat().st_mtime_ns == before
    mkv.unlink()  # what is lost is made again, the same
    assert "done already" not in irope(*arguments).stdout
    assert frame_hash(np.concatenate(list(read_frames(mkv)))) == facts["frames_sha256_chain"]


def test_another_seed_is_another_video_and_the_same_one_the_same(irope: Irope, weights: Path, tmp_path: Path) -> None:
    prompt, model = "prompt=a red circle moving left", f"video.model.weights={weights}"
    for seed, out in ((0, "a"), (0, "b"), (1, "c")):
        done = irope(
            "generate", model, "duration=1.5", prompt, f"seed={seed}", f"sys.out={out}", "sys.checkpoint_blocks=1"
        )
        assert done.returncode == 0, done.stderr
    hashes = [json.loads(next(tmp_path.glob(f"{out}/*/*.json")).read_text())["frames_sha256_chain"] for out in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_dry_run_lists_the_videos_and_makes_none(irope: Irope, weights: Path, tmp_path: Path) -> None:
    done = irope("generate", "--dry-run", f"video.model.weights={weights}", "prompts=basic", "duration=5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("todo") == 8
    assert not (tmp_path / "results").exists()


def test_verify_tiny_measures_short_and_long_videos(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["verify", "tiny", "--weights", str(weights), "--prompts", "2"]
    sheet = tmp_path / "sheet.png"
    assert main([*small, "--sheet", str(sheet)]) == 0
    said = capsys.readouterr().out
    assert "visible" in said
    assert "dB PSNR" in said
    with Image.open(sheet) as picture:
        assert picture.height > 8 * 64  # eight strips
    assert main([*small, "--seconds", "9", "--at", "0", "4"]) == 0
    assert "streaks" in capsys.readouterr().out
    assert main([*small, "--seconds", "9", "--at", "5"]) == 2
    assert "nearest valid: 4" in capsys.readouterr().err
    assert main(["verify", "tiny", "--weights", "nowhere.safetensors"]) == 2
    assert "irope train tiny" in capsys.readouterr().err


def test_an_extended_prompt_is_generated_and_the_short_one_is_scored(irope: Irope, weights: Path, tmp_path: Path):
    (tmp_path / "all.txt").write_text("a circle\na square\n")
    (tmp_path / "long.txt").write_text("a red circle moving left\na blue square moving up\n")
    files = ["video.prompts.file=all.txt", "video.prompts.extended=long.txt"]
    done = irope("generate", *files, f"video.model.weights={weights}", "duration=1.5")
    assert done.returncode == 0, done.stderr
    videos, problems = find_videos(tmp_path / "results/runs")
    assert not problems
    assert sorted(video.segments[0].prompt for video in videos) == ["a circle", "a square"]
    sidecars = [json.loads(path.read_text()) for path in (tmp_path / "results/runs").glob("*/*.json")]
    assert sorted(facts["segments"][0]["prompt"] for facts in sidecars) == [
        *("a blue square moving up", "a red circle moving left")
    ]
