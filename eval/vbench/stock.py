"""The stock vbench package, run as it is in a process of its own: the reference that the scorers here are held to.

The process keeps to itself what the package does to its surroundings (root logger, prints, the decord bridge, caches,
gradients that stay in memory), and an audit hook refuses it the network and every program that downloads.

From the command line: ``python -m eval.vbench.stock REQUEST ANSWER``, two JSON files; `stock_scores` writes the first
and reads the second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.vbench.packages import VBenchError, cache_dir, load
from eval.vbench.weights import copy_vocabulary, lacking

STOCK_DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "temporal_flickering",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
    "overall_consistency",
)
"""The dimensions that the stock package computes for any video."""

_DOWNLOADERS = {"wget", "curl", "git", "unzip"}


@dataclass(frozen=True)
class StockScore:
    """What the package says of one dimension.

    Attributes:
        overall: its value over all videos.
        videos: its value of each video, by path as given; imaging quality is 0..100 here and 0..1 above.
        seconds: wall time of the evaluation, loading the network included.
        cpu_seconds: the same in CPU time of all threads.
    """

    overall: float
    videos: Mapping[Path, float]
    seconds: float
    cpu_seconds: float


def stock_scores(
    paths: Sequence[Path],
    dimensions: Sequence[str],
    prompts: Mapping[Path, str] | None = None,
    cache: Path | None = None,
    device: str = "cpu",
) -> dict[str, StockScore]:
    """Score mp4 files with the stock package, one dimension after the other.

    Args:
        paths: at least one file; names must differ.
        prompts: by path; a file without one takes its own name, as the package does.
        cache: where the weights lie, by default $VBENCH_CACHE_DIR; DINO's second copy is found by $TORCH_HOME.

    Raises:
        VBenchError: something is missing, or the package failed; the message ends with what it printed last.
    """
    place = cache or cache_dir()
    for dimension in dimensions:
        if dimension not in STOCK_DIMENSIONS:
            raise VBenchError(f"the stock package has no dimension {dimension!r} for any video")
    with tempfile.TemporaryDirectory() as folder:
        links = _linked(paths, Path(folder) / "videos")
        request = {
            "videos": str(Path(folder) / "videos"),
            "prompts": {links[path].name: (prompts or {}).get(path, path.stem) for path in paths},
            "dimensions": list(dimensions),
            "device": device,
        }
        Path(folder, "request.json").write_text(json.dumps(request), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", __name__, "request.json", "answer.json"],
            cwd=folder,
            env=os.environ | {"VBENCH_CACHE_DIR": str(place.resolve()), "PYTHONPATH": _search_path()},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
            raise VBenchError(f"the stock vbench package failed:\n{last}")
        answer = json.loads(Path(folder, "answer.json").read_text(encoding="utf-8"))
    given = {str(link): path for path, link in links.items()}
    return {
        name: StockScore(
            found["overall"],
            {given[path]: value for path, value in found["videos"].items()},
            found["seconds"],
            found["cpu_seconds"],
        )
        for name, found in answer.items()
    }


def _search_path() -> str:
    """Where the process finds this package, whether it is installed or a checkout."""
    return os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])


def _linked(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """The package takes a whole flat folder, so it gets one of its own."""
    folder.mkdir()
    links = {path: folder / path.name for path in paths}
    if len(set(links.values())) < len(links):
        raise VBenchError("the stock package cannot take two videos of one name at a time")
    for path, link in links.items():
        if path.suffix != ".mp4":
            raise VBenchError(f"{path}: the stock package reads .mp4 files for every dimension")
        link.symlink_to(path.resolve())
    return links


def _main(request_path: str, answer_path: str) -> None:
    sys.addaudithook(_refuse_downloads)
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    copy_vocabulary()
    for dimension in request["dimensions"]:
        if reason := lacking(dimension, stock=True):
            raise VBenchError(f"{dimension}: {reason}")
    info = str(Path(load("vbench").__file__ or "").with_name("VBench_full_info.json"))
    for dimension in request["dimensions"]:
        load(f"vbench.{dimension}")
    vbench = load("vbench").VBench(request["device"], info, "out")
    answer = {}
    for dimension in request["dimensions"]:
        start, cpu_start = time.perf_counter(), time.process_time()
        with _trusting_torch_load(dimension == "motion_smoothness"):
            vbench.evaluate(
                videos_path=request["videos"],
                name=dimension,
                prompt_list=request["prompts"],
                dimension_list=[dimension],
                local=True,
                mode="custom_input",
            )
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        overall, videos = json.loads(Path("out", f"{dimension}_eval_results.json").read_text())[dimension]
        answer[dimension] = {
            "overall": float(overall),
            "videos": {video["video_path"]: float(video["video_results"]) for video in videos},
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
        }
    Path(answer_path).write_text(json.dumps(answer), encoding="utf-8")


@contextmanager
def _trusting_torch_load(wanted: bool) -> Iterator[None]:
    """AMT's checkpoint holds more than tensors; torch.load refuses that since 2.6, which vbench 0.1.5 does not know."""
    name = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    if wanted:
        os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _refuse_downloads(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and Path(str(arguments[0])).name in _DOWNLOADERS:
        raise VBenchError(f"vbench wanted to download: {arguments[1]}; see `irope vbench weights`")
    if event == "socket.connect" and isinstance(arguments[1], tuple):  # an address of the network, no local socket
        raise VBenchError(f"vbench wanted to connect to {arguments[1][0]}; see `irope vbench weights`")


if __name__ == "__main__":
    _main(*sys.argv[1:])
