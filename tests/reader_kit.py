"""Reading whole files with either backend, and with OpenCV, for the tests of the reader."""

import threading
from pathlib import Path

import numpy as np
import pytest

from eval import decoders
from eval.reader import open_video
from tests.video_kit import (
    Frames,
)

needs_decord = pytest.mark.skipif(not decoders.has_decord(), reason="decord is not installed")
BOTH = ["pyav", pytest.param("decord", marks=needs_decord)]


def read(path: Path, backend: str = "auto", size: int = 7, **options) -> Frames:
    with open_video(path, backend, **options) as video:
        chunks = [frames for _, frames in video.chunks(size)]
    assert sum(map(len, chunks)) == video.frames
    return np.concatenate(chunks)


def read_opencv(path: Path) -> Frames:
    cv2 = pytest.importorskip("cv2")
    capture, frames = cv2.VideoCapture(str(path)), []
    while (got := capture.read())[0]:
        frames.append(got[1][..., ::-1])
    return np.stack(frames)


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]
