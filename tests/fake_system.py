"""A program as a user's environment would run it, without a model: makes clips in which every frame counts one up.

How it behaves is in the file `behaviour` of its checkout: `good`, or one way to go wrong.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "baselines" / "systems" / "runners"))
import protocol


class Frame:
    """One frame of one colour, with what the protocol asks of an array [1, height, width, 3]."""

    def __init__(self, value: int, height: int, width: int) -> None:
        self.value, self.shape = value, (1, height, width, 3)

    def __len__(self) -> int:
        return 1

    def tobytes(self) -> bytes:
        return bytes([self.value % 256]) * (self.shape[1] * self.shape[2] * 3)


def main() -> None:
    request = protocol.start()
    behaviour, _, number = Path("behaviour").read_text().strip().partition(" ")
    with Path("runs").open("a") as runs:
        runs.write(f"{os.getpid()} {[clip['index'] for clip in request['clips']]}\n")
    print("a project may print what it likes")
    protocol.beat("loading the weights")
    protocol.info(versions={"fake": "1.0"}, device="none")
    if behaviour == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        Path("child").write_text(str(child.pid))
    for clip in request["clips"]:
        go_wrong(behaviour if clip["index"] >= int(number or 0) else "good")
        few = 2 if behaviour == "few" else 0
        height = request["height"] + (2 if behaviour == "tall" else 0)
        first = protocol.start_frame(request, clip)
        value = first[0] if first else clip["seed"]

        def pieces(value: int = value, frames: int = clip["frames"] - few, height: int = height) -> Iterator[Frame]:
            return (Frame(value + i, height, request["width"]) for i in range(frames))

        if behaviour.startswith("mp4"):
            write_mp4(behaviour, clip, request, value)
        else:
            protocol.write_clip(clip, pieces())
    if behaviour == "nothing":
        Path(request["clips"][-1]["file"]).unlink()


def write_mp4(behaviour: str, clip: dict[str, Any], request: dict[str, Any], value: int) -> None:
    """An mp4 that has lost nothing, or one that is not what was asked for."""
    import av
    import numpy as np

    path = protocol.mp4_path(clip)
    size = (request["height"] + (2 if behaviour == "mp4-tall" else 0), request["width"], 3)
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("libx264rgb", rate=request["fps"] + (behaviour == "mp4-fast"))
        stream.height, stream.width, stream.pix_fmt, stream.options = *size[:2], "rgb24", {"qp": "0"}
        for i in range(clip["frames"] - (2 if behaviour == "mp4-few" else 0)):
            frame = av.VideoFrame.from_ndarray(np.full(size, (value + i) % 256, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if behaviour == "mp4-broken":
        os.truncate(path, 100)
    if behaviour == "mp4-elsewhere":
        protocol.say(clip=clip["index"], mp4=str(Path(path).parents[1] / "clip.mp4"))
    elif behaviour == "mp4-other":
        protocol.say(clip=7, mp4=Path(path).name)
    else:
        protocol.give_mp4(clip)


def go_wrong(behaviour: str) -> None:
    if behaviour == "crash":
        print("loading", "x" * 20, file=sys.stderr)
        raise RuntimeError("CUDA out of memory, says the fake")
    if behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour in ("hang", "stubborn"):
        if behaviour == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        Path("child").write_text(str(child.pid))
        time.sleep(60)
    if behaviour == "talk":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        protocol.beat("talking")
        Path("child").write_text(str(child.pid))
        while True:
            protocol.beat("talking")
            time.sleep(0.05)
    if behaviour == "garbage":
        for line in (b"\xff\xfe\x00 not text", b"[1, 2]", b"{", b'{"clip": "one"}', b"plain"):
            os.write(protocol._out.fileno(), line + b"\n")
    if behaviour == "leave":
        sys.exit(0)


if __name__ == "__main__":
    main()
