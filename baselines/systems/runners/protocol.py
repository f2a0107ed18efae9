"""What the runners share: they get a request, say that they live, and hand over clips. Must run under Python 3.8.

A runner is started as `python RUNNER REQUEST`, where REQUEST is a JSON file:

    {"repo": folder of the project, "weights": folder of its weights, "settings": {...}, "options": {...},
     "height": 480, "width": 768, "fps": 12,
     "clips": [{"index": 0, "prompt": "...", "seed": 0, "frames": 33, "file": "clip-0000.rgb", "start": null},
               {"index": 1, ..., "start": {"file": "clip-0000.rgb", "frame": 32}}]}

`start` is the frame that a clip continues from. A clip is a file of raw frames, uint8 [frames, height, width, 3], RGB,
which gets its name when it is whole (`write_clip`). A project that only writes mp4 files gives one instead, in the same
folder, of the same frames, size and rate (`give_mp4`); it is decoded and removed, and has lost what H.264 loses. What a
runner says are JSON objects, one a line on the standard output it was started with: {"beat": "denoising", "clip": 1,
"step": "3/9"}, {"clip": 1, "frames": 33, "height": 480, "width": 768}, {"clip": 1, "mp4": "clip-0001.mp4"}, {"info":
{...}}. What the project prints goes to the standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

_out = sys.stdout


def start() -> dict[str, Any]:
    """The request; from here on the standard output is ours alone and the project's modules can be imported."""
    global _out
    _out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if os.environ.get("IROPE_WATCHED"):
        threading.Thread(target=_watch, daemon=True).start()
    request: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.path[0] = request["repo"]  # instead of the folder of the runners
    os.chdir(request["repo"])
    return request


def _watch() -> None:
    """Our standard input ends when whoever started us is gone."""
    while os.read(0, 1 << 16):
        pass
    _end()


def _end() -> None:
    """Nobody is left who would end us, and what we have started, when we are done or hang."""
    if os.environ.get("IROPE_WATCHED"):
        os.killpg(0, signal.SIGKILL)


def say(**message: Any) -> None:
    """A message."""
    try:
        _out.write(json.dumps(message) + "\n")
        _out.flush()
    except BrokenPipeError:  # seen before the end of our standard input is
        _end()
        raise


def beat(doing: str, **where: Any) -> None:
    """A sign of life: what is being done, and where in it (clip, step)."""
    say(beat=doing, **where)


def info(**facts: Any) -> None:
    """What is worth recording about the run."""
    say(info=facts)


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages."""
    from importlib import metadata

    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def start_frame(request: dict[str, Any], clip: dict[str, Any]) -> bytes | None:
    """The frame that a clip continues from, height * width * 3 bytes; None for the first clip."""
    if clip["start"] is None:
        return None
    size = request["height"] * request["width"] * 3
    while not Path(clip["start"]["file"]).exists():  # the clip before was an mp4, which is being decoded
        beat("waiting for the clip before", clip=clip["index"])
        time.sleep(0.1)
    with Path(clip["start"]["file"]).open("rb") as file:
        file.seek(clip["start"]["frame"] * size)
        return file.read(size)


def write_clip(clip: dict[str, Any], pieces: Iterable[Any]) -> None:
    """Hand over a clip: arrays uint8 [n, height, width, 3], one after the other."""
    frames, height, width = 0, 0, 0
    part = Path(clip["file"] + ".part")
    with part.open("wb") as file:
        for piece in pieces:
            file.write(piece.tobytes())
            frames += len(piece)
            height, width = piece.shape[1:3]
            beat("frames", clip=clip["index"], step=f"{frames}/{clip['frames']}")
        file.flush()
        os.fsync(file.fileno())
    part.replace(clip["file"])
    say(clip=clip["index"], frames=frames, height=height, width=width)


def mp4_path(clip: dict[str, Any]) -> str:
    """Where the project is to write a clip, if it writes mp4 files."""
    return str(Path(clip["file"]).with_suffix(".mp4"))


def give_mp4(clip: dict[str, Any]) -> None:
    """Hand over the clip that the project has written to `mp4_path`."""
    say(clip=clip["index"], mp4=Path(mp4_path(clip)).name)
