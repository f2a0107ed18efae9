"""Which videos a folder holds, and what is known of each: sidecars, manifests, file names; and everything odd."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.scorer import Span
from eval.videos import ManifestError, find_videos, read_manifest
from irope.errors import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def sidecar(**changes: object) -> str:
    segment = {"start_block": 0, "stop_block": 7, "start_frame": 0, "stop_frame": 81, "prompt": "a red circle"}
    facts = {
        "key": "k",
        "record": {"policy": {"window": 6}},
        "id": "p1",
        "method": "infinity_rope",
        "model": "tiny",
        "seed": 3,
        "files": {"mp4": "a.mp4", "frames": "a.mkv"},
        "segments": [segment, segment | {"start_frame": 81, "stop_frame": 165, "prompt": "b", "cut": True}],
    }
    return json.dumps(facts | changes)


def test_a_generated_video_is_read_from_its_sidecar_and_scored_from_its_lossless_frames(tmp_path: Path):
    touch(tmp_path, "m/a.mp4", "m/a.mkv", "m/b.mp4", "m/c.parts/00000.mp4", "scores/embedded/x.mp4", "m/.hidden.mp4")
    (tmp_path / "m/a.json").write_text(sidecar())
    (tmp_path / "m/b.json").write_text(sidecar(files={"mp4": "b.mp4", "frames": "b.mkv"}, id="p2"))
    videos, problems = find_videos(tmp_path)
    assert not problems
    assert [v.name for v in videos] == ["m/a", "m/b"]
    first, second = videos
    assert (first.source.name, first.method, first.model, first.prompt, first.seed) == (
        "a.mkv", "infinity_rope", "tiny", "p1", 3,
    )  # fmt: skip
    assert first.facts(150, 16.0, 64, 64).spans == (Span(0, 81, "a red circle"), Span(81, 150, "b", True))
    assert first.facts(81, 16.0, 64, 64).spans == (Span(0, 81, "a red circle"),)
    assert second.source.name == "b.mp4"
    assert "b.mkv is gone" in second.notes[0]


def test_file_names_are_prompts_as_vbench_reads_them(tmp_path: Path):
    touch(tmp_path, "ours/a_blue ball, rolling-0.mp4", "ours/a_blue ball, rolling-1.mp4", "theirs/Käse-am-Meer.mp4")
    videos, problems = find_videos(tmp_path)
    assert not problems
    assert [(v.method, v.prompt, v.seed, v.text) for v in videos] == [
        ("ours", "a_blue ball, rolling", 0, "a_blue ball, rolling"),
        ("ours", "a_blue ball, rolling", 1, "a_blue ball, rolling"),
        ("theirs", "Käse-am-Meer", 0, "Käse-am-Meer"),
    ]
    assert videos[0].facts(30, 8.0, 9, 9).spans == (Span(0, 30, "a_blue ball, rolling"),)


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_a_manifest_names_prompts_and_what_it_leaves_out_is_said(tmp_path: Path, kind: str):
    touch(tmp_path, "one.mp4", "two.mp4", "three.mp4")
    texts = {
        "json": '{"one.mp4": "a, b", "two.mp4": "c"}',
        "jsonl": '{"file": "one.mp4", "prompt": "a, b", "seed": 7}\n\n{"file": "two.mp4", "prompt": "c"}\n',
        "csv": 'file,prompt,seed\none.mp4,"a, b",7\ntwo.mp4,c,\n',
    }
    (tmp_path / f"prompts.{kind}").write_text(texts[kind])
    videos, problems = find_videos(tmp_path)
    assert [(v.name, v.text) for v in videos] == [("one", "a, b"), ("three", None), ("two", "c")]
    assert videos[0].seed == (0 if kind == "json" else 7)
    assert [(p.path.name, p.scored) for p in problems] == [("three.mp4", True)]
    assert "no prompt for it in" in problems[0].message
    assert videos[1].facts(9, 8.0, 9, 9).spans == ()


def test_what_cannot_be_told_apart_is_named_and_the_rest_stays(tmp_path: Path):
    touch(tmp_path, "a.mp4", "a.mkv", "b.mp4", "c-0.mp4", "c.mp4")
    videos, problems = find_videos(tmp_path)
    assert [v.name for v in videos] == ["b"]
    said = {p.path.name: p.message for p in problems}
    assert set(said) == {"a.mp4", "a.mkv", "c-0.mp4", "c.mp4"}
    assert "have one name" in said["a.mkv"]
    assert "c.mp4 has the same prompt and sample number" in said["c-0.mp4"]


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("p.json", '{"a.mp4": "x", "a.mp4": "y"}', "a.mp4 is listed a second time"),
        ("p.json", '{"a.mp4": }', "p.json:1: not valid JSON"),
        ("p.json", '["a.mp4"]', 'expected {"file.mp4": "prompt"'),
        ("p.json", '{"a.mp4": 3}', 'expected a "file" and a "prompt"'),
        ("p.json", '{"a.mp4": " "}', 'expected a "file" and a "prompt"'),
        ("p.jsonl", '{"file": "a", "prompt": "b"}\n{"file": "a"}', "p.jsonl:2: expected"),
        ("p.jsonl", '{"file": "a", "prompt": "b"}\noops', "p.jsonl:2: not valid JSON"),
        ("p.jsonl", "7", "p.jsonl:1: expected"),
        ("p.csv", "name,prompt\na,b", "p.csv:2: expected"),
        ("p.csv", "file,prompt,seed\na,b,x", "p.csv:2: seed=x"),
        ("p.json", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_broken_manifest_names_file_and_line(tmp_path: Path, name: str, text: str | bytes, where: str):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert where in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_folder_without_videos_and_a_missing_one(tmp_path: Path):
    with pytest.raises(UserError, match="no videos"):
        find_videos(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        find_videos(tmp_path / "nothing")
    touch(tmp_path, "v/one.mp4")
    assert [v.name for v in find_videos(tmp_path / "v/one.mp4")[0]] == ["one"]
