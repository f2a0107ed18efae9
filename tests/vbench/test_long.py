"""Cuts and fusion against the code of the official VBench-Long; what it fails to import is not needed for them."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from eval.mapping import tables
from eval.reader import open_video
from eval.scorer import Frames, Runtime, Take, VideoFacts
from eval.vbench.packages import load, missing
from eval.vbench_long import Clips
from irope.video import VideoWriter
from tests.vbench_long_kit import Consistency, consistency, pan


@pytest.fixture
def official(monkeypatch):
    if missing() is not None or find_spec("vbench2_beta_long") is None:
        pytest.skip("vbench is not installed")
    written: list[Frames] = []
    absent = ("scenedetect", "scenedetect.detectors", "scenedetect.video_splitter", "moviepy", "moviepy.editor")
    for name in absent:
        stub = ModuleType(name)
        vars(stub).update(dict.fromkeys(("open_video", "SceneManager", "split_video_ffmpeg", "ContentDetector")))
        stub.VideoFileClip = None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, stub)
    io = load("torchvision.io")
    monkeypatch.setattr(io, "write_video", lambda _, frames, fps: written.append(np.asarray(frames, np.uint8)), False)
    load("vbench.utils")
    package = Path(str(find_spec("vbench2_beta_long").origin)).parent  # type: ignore[union-attr]
    spec = spec_from_file_location("vbench_long_utils", package / "utils.py")
    assert spec is not None
    assert spec.loader is not None
    utils = module_from_spec(spec)
    spec.loader.exec_module(utils)
    return utils, written


@pytest.mark.parametrize("frames", [20, 32, 33, 64, 70])
def test_the_official_tool_cuts_and_fuses_alike(official, tmp_path, frames):
    utils, written = official
    with VideoWriter(tmp_path / "a.mp4", fps=16) as writer:
        writer.write(pan(frames))
        writer.finish()
    utils.split_video_into_clips(str(tmp_path / "a.mp4"), str(tmp_path), 2)
    scorer = Consistency()
    with open_video(tmp_path / "a.mp4") as reader:
        facts = VideoFacts("a", reader.frames, float(reader.fps), reader.height, reader.width)
        pixels = np.concatenate([chunk for _, chunk in reader.chunks()])
        protocol = Clips(features="same")
        windows = [Take(facts, 0, reader.frames)]
        (done,) = protocol.score(reader, windows, {"subject_consistency": scorer}, Runtime())
    takes = [take for take in scorer.opened if take.video == facts]
    assert len(takes) == len(written)
    assert all((pixels[take.start : take.stop] == clip).all() for take, clip in zip(takes, written, strict=True))
    found = done.outcomes["subject_consistency"]
    (tmp_path / "weights.yaml").write_text("{w_inclip_sb: 0.5, w_clip2clip_sb: 0.5}")
    table = {i / 100: float(value) for i, value in enumerate(tables()["subject_consistency"])}
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(table))
    between = [{"video_path": "a.mp4", "video_results": found.extra["clip2clip"]}] if len(written) > 1 else []
    total, detail = utils.fuse_inclip_clip2clip(
        consistency(pixels),
        between[0]["video_results"] if between else None,
        [{"video_path": "a.mp4", "video_results": consistency(clip)} for clip in written],
        between,
        "subject_consistency",
        slow_fast_eval_config=str(tmp_path / "weights.yaml"),
        sb_mapping_file_path=str(tmp_path / "table.yaml"),
        dev_flag=True,
    )
    assert found.value == pytest.approx(total, abs=1e-9)
    if between:
        assert found.extra["mapped_clip2clip"] == pytest.approx(detail[0]["mapped_clip2clip_score"], abs=1e-12)
