"""Random weights of the right shapes, shared by all processes and runs, and small clips of many kinds.

The weights (2 GB, made once in under 30 s) lie in $IROPE_TEST_CACHE, by default ~/.cache/irope-tests. Every test that
needs them is skipped where the vbench package is not installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from eval.scorer import VideoFacts
from eval.vbench.packages import missing
from eval.vbench.random_weights import write_random_weights

VERSION = 1
"""Of the random weights: another number makes new ones."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vbench)


@pytest.fixture(scope="session")
def weights() -> Iterator[Callable[..., dict[str, str]]]:
    """`weights("motion_smoothness", ...)` writes what these dimensions need and points vbench and torch to it."""
    if reason := missing():
        pytest.skip(f"vbench: {reason}")
    root = Path(os.environ.get("IROPE_TEST_CACHE") or Path.home() / ".cache" / "irope-tests") / f"vbench-{VERSION}"
    with pytest.MonkeyPatch.context() as patch:

        def write(*dimensions: str) -> dict[str, str]:
            for name, value in {"VBENCH_CACHE_DIR": root / "vbench", "TORCH_HOME": root / "torch"}.items():
                patch.setenv(name, str(value))  # vbench reads the first already while it is imported
            return dict(write_random_weights(root, dimensions))

        yield write


Clip = NDArray[np.uint8]


def moving(frames: int, height: int, width: int, seed: int = 0, step: int = 3) -> Clip:
    """A smooth random picture that slides by ``step`` pixels a frame while a disc crosses it and changes its colour."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16 + 3, width // 16 + 3 + step * frames // 16 + 1, 3)).astype(np.float64)
    large = np.kron(coarse, np.ones((16, 16, 1)))
    rows, columns = np.mgrid[:height, :width]
    video = []
    for at in range(frames):
        picture = large[:height, step * at : step * at + width].copy()
        disc = (rows - height / 2) ** 2 + (columns - width * (at + 1) / (frames + 1)) ** 2 < (height / 5) ** 2
        picture[disc] = [255 * at / frames, 60, 255 - 200 * at / frames]
        video.append(picture)
    return np.stack(video).astype(np.uint8)


def static(frames: int, height: int, width: int) -> Clip:
    return np.repeat(moving(1, height, width, seed=5), frames, axis=0)


def noise(frames: int, height: int, width: int) -> Clip:
    return np.random.default_rng(9).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


CLIPS: dict[str, Clip] = {
    "landscape": moving(5, 120, 208),
    "portrait": moving(4, 160, 96, seed=1),
    "odd": moving(3, 241, 277, seed=2, step=5),
    "two": moving(2, 112, 112, seed=3, step=9),
    "static": static(3, 96, 128),
    "noise": noise(3, 80, 112),
}
"""Clips for comparison with the stock package, by name: smaller than what the networks see, and (odd) larger."""


@pytest.fixture(scope="session")
def clip_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`CLIPS` as mp4 files, without loss (RGB in H.264), so that every decoder gives the same frames."""
    folder = tmp_path_factory.mktemp("clips")
    return {name: write_mp4(folder / f"{name}.mp4", clip) for name, clip in CLIPS.items()}


def write_mp4(path: Path, frames: Clip, fps: int = 16) -> Path:
    import av

    with av.open(path, "w") as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"crf": "0", "preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def facts(name: str, frames: Clip, fps: float = 16.0) -> VideoFacts:
    return VideoFacts(name, len(frames), fps, frames.shape[1], frames.shape[2])
