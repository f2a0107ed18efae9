"""Importing videos that exist: by a list, by VBench's names and others', what is refused, and how tables see them."""

import csv
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from baselines.systems.folder import Folder, FolderError
from eval.videos import find_videos, generated_video
from irope.config import load
from irope.errors import UserError
from irope.experiment import experiment_from
from irope.generate import generate
from irope.identity import file_digest
from irope.jobs import VideoJob, jobs_from
from irope.remake import remake
from irope.script import load_prompts
from irope.systems import ImpossibleError
from tests.video_kit import moving, write_clip

LABEL = "Some System (published)"


def video(path: Path, frames: int = 12, height: int = 32, width: int = 48, fps: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(path, moving(frames, height, width), fps=fps)


def imported(tmp_path: Path, *settings: str, more: tuple[str, ...] = ()) -> list[VideoJob]:
    given = [f"video.method.system.{setting}" for setting in settings]
    return jobs_from(
        load(["method=folder", f"video.method.system.folder={tmp_path}/in", f"sys.out={tmp_path}/out", *given, *more])
    )


def test_vbench_names_are_prompt_and_sample(tmp_path: Path):
    for name in ("a cat-0", "a cat-1", "a well-known dog-0"):
        video(tmp_path / "in" / f"{name}.mp4")
    jobs = imported(tmp_path, f'label="{LABEL}"')
    assert [(j.script.segments[0].prompt, j.seed) for j in jobs] == [
        ("a cat", 0),
        ("a cat", 1),
        ("a well-known dog", 0),
    ]
    for job in jobs:
        sidecar = generate(job, None)
        assert job.done
        assert (sidecar["fps"], sidecar["pixel_frames"], sidecar["size"]) == (12.0, 12, [32, 48])
        assert sidecar["imported"]["sha256"] == file_digest(tmp_path / "in" / sidecar["imported"]["file"])
        assert job.video.is_symlink()
    found, problems = find_videos(tmp_path / "out")
    assert not problems
    assert {(v.method, v.model, v.seed) for v in found} == {(LABEL, LABEL, 0), (LABEL, LABEL, 1)}
    assert {v.segments[0].prompt for v in found} == {"a cat", "a well-known dog"}
    assert remake(jobs[0].stem, tmp_path / "again").same


def test_the_imported_file_is_never_touched_and_a_changed_one_is_another_video(tmp_path: Path):
    path = video(tmp_path / "in" / "a cat-0.mp4")
    before = file_digest(path)
    (job,) = imported(tmp_path)
    generate(job, None)
    assert file_digest(path) == before
    video(path, frames=13)
    (other,) = imported(tmp_path)
    assert other.key != job.key
    assert not job.done


def test_a_list_gives_prompts_seeds_and_segments(tmp_path: Path):
    video(tmp_path / "in" / "x" / "1.mp4", frames=24)
    video(tmp_path / "in" / "2.mkv", frames=24)
    segments = [{"prompt": "a cat", "seconds": 0.5}, {"prompt": "a dog", "cut": True}]
    lines = [
        {"file": "x/1.mp4", "prompt": "two scenes", "seed": 3, "segments": segments, "frames": 24, "fps": 12},
        {"file": "2.mkv", "prompt": "a bird"},
    ]
    (tmp_path / "in" / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    bird, scenes = sorted(imported(tmp_path), key=lambda job: len(job.timeline.segments))
    assert [(s.start_block, s.stop_block, s.prompt, s.cut) for s in scenes.timeline.segments] == [
        (0, 6, "a cat", False),
        (6, 24, "a dog", True),
    ]
    assert scenes.seed == 3
    assert generate(bird, None)["files"] == {"mp4": None, "frames": f"{bird.name}.mkv"}
    assert generated_video(bird.video, tmp_path / "out").source.name == f"{bird.name}.mkv"


def test_prompts_take_the_ids_of_the_prompt_set(tmp_path: Path):
    (tmp_path / "set.jsonl").write_text(
        json.dumps({"id": "cat", "segments": [{"prompt": "a cat " + "walks on and on " * 9}]})
        + "\n"
        + json.dumps({"id": "dog", "segments": [{"prompt": "a dog"}]})
    )
    scripts = load_prompts(tmp_path / "set.jsonl")
    video(tmp_path / "in" / f"{scripts[0].segments[0].prompt[:100]}-0.mp4")
    video(tmp_path / "in" / "a dog-1.mp4")
    video(tmp_path / "in" / "dog-0.mp4")
    more = (f"video.prompts.file={tmp_path}/set.jsonl",)
    assert [(j.script.id, j.seed) for j in imported(tmp_path, more=more)] == [("cat", 0), ("dog", 0), ("dog", 1)]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("self_forcing", "1-4_regular"), ("longlive", "rank0-1-4_lora"), ("irope", "dog-seed4"), ("{seed}_{id}", "4_dog")],
)
def test_names_of_other_projects(tmp_path: Path, pattern: str, name: str):
    (tmp_path / "set.txt").write_text("a cat\n" + json.dumps({"id": "dog", "segments": [{"prompt": "a dog"}]}))
    video(tmp_path / "in" / f"{name}.mp4")
    (job,) = imported(tmp_path, f'pattern="{pattern}"', more=(f"video.prompts.file={tmp_path}/set.txt",))
    assert (job.script.id, job.seed) == ("dog", 4)


def test_in_an_experiment_only_its_prompts_and_seeds_count(tmp_path: Path):
    (tmp_path / "set.txt").write_text("a cat\na dog\n")
    for name in ("a cat-0", "a cat-1", "a bird-0"):
        video(tmp_path / "in" / f"{name}.mp4")
    words = [
        "method=infinity_rope,folder",
        f"video.prompts.file={tmp_path}/set.txt",
        f"+video.method.system.folder={tmp_path}/in",
        f"sys.out={tmp_path}/out",
    ]
    folder = experiment_from(["method=folder", *words[1:2], words[2][1:], words[3]])
    (cell,) = folder.cells
    assert [(job.script.segments[0].prompt, job.seed) for job in folder.jobs(cell)] == [("a cat", 0)]
    other = experiment_from(["method=folder", *words[1:2], words[2][1:], words[3], "seed=7"])
    with pytest.raises(ImpossibleError, match="none of its 3 videos"):
        list(other.jobs(other.cells[0]))


def _mixed(folder: Path) -> None:
    video(folder / "a-0.mp4")
    video(folder / "b-0.mp4", fps=24)


def _double(folder: Path) -> None:
    video(folder / "x" / "a-0.mp4")
    video(folder / "y" / "a-0.mp4")


def _strange(folder: Path) -> None:
    video(folder / "final.mp4")


def _damaged(folder: Path) -> None:
    folder.mkdir()
    (folder / "a-0.mp4").write_bytes(b"not a video")


def _listed(folder: Path, **more: Any) -> None:
    video(folder / "a.mp4")
    with (folder / "prompts.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "prompt", *more])
        writer.writeheader()
        writer.writerow({"file": "a.mp4", "prompt": "a", **more})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_mixed, r"sizes or rates differ: 1 of 48x32 at 12 fps \(a-0.mp4\); 1 of 48x32 at 24 fps"),
        (_double, "a-0.mp4, a-0.mp4 are all prompt"),
        (_strange, "final.mp4 do not fit the pattern '{prompt}-{seed}'"),
        (_damaged, "a-0.mp4"),
        (lambda folder: folder.mkdir(), "no videos"),
        (lambda folder: None, "no such folder"),
        (lambda folder: _listed(folder, frames=99), "its list says frames=99, the file has 12"),
        (lambda folder: _listed(folder, seed="x"), "prompts.csv:2: seed=x"),
    ],
)
def test_what_is_refused_is_one_line(tmp_path: Path, make: Any, message: str):
    make(tmp_path / "in")
    with pytest.raises(UserError, match=message) as error:
        imported(tmp_path)
    assert "\n" not in str(error.value)


def test_mixed_ones_on_demand(tmp_path: Path):
    _mixed(tmp_path / "in")
    assert [job.found.fps for job in imported(tmp_path, "allow_mixed=true") if job.found] == [12.0, 24.0]


def test_a_rate_that_is_not_whole(tmp_path: Path):
    video(tmp_path / "in" / "a-0.mp4", fps=Fraction(24000, 1001))  # type: ignore[arg-type]
    (job,) = imported(tmp_path)
    assert generate(job, None)["fps"] == pytest.approx(23.976, abs=1e-3)


def test_patterns_and_labels_are_checked():
    with pytest.raises(FolderError, match="no field 'name'"):
        list(Folder(folder=".", pattern="{name}")._entries(Path("irope")))
    with pytest.raises(FolderError, match=r"one of \{prompt\}, \{id\}, \{index\} is needed"):
        list(Folder(folder=".", pattern="*{seed}")._entries(Path("irope")))
    with pytest.raises(UserError, match="nearest valid: 'a-b'"):
        Folder(label="a/b")
