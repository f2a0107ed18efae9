"""Optical flow on the CPU and what the embedded scorers make of it: how far things moved, and the frame in between.

Dense inverse search (Kroeger et al., arXiv 1603.03590) as OpenCV has it, preset ``fast``, on a picture whose short side
is brought to 128 to 256 pixels. Measured on the embedded world, where the true motion is known: at 128 pixels the
largest motions are right to 0.5 pixels of 64 (root mean square) in 0.3 ms a pair. At 64 pixels the preset works on a
quarter of the size, too coarse for the frame in between (a third more error); enlarged to 256 it takes five times as
long and the motions of flat shapes are off by 1.1 pixels.

Shapes: h x w the picture flow is computed on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.scorer import Frames, Part

SHORTEST, LONGEST = 128, 256
"""Bounds of the short side, in pixels, of the picture that flow is computed on."""

TOP = 0.05
"""Share of the pixels, those that move most, whose mean motion speaks for a pair; VBench's number."""

Flow = NDArray[np.float32]


def flow_identity() -> dict[str, str]:
    """What the flow depends on besides the pictures; JSON types."""
    import cv2

    return {"opencv": str(cv2.__version__)}


def working(frame: Frames) -> Frames:
    """A frame [H, W, 3] at the size that flow is computed on, shape kept; [h, w, 3]."""
    import cv2

    high, wide = frame.shape[:2]
    short = min(high, wide)
    side = min(max(short, SHORTEST), LONGEST)
    if side == short:
        return frame
    size = (max(1, round(wide * side / short)), max(1, round(high * side / short)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA if side < short else cv2.INTER_LINEAR))


@cache
def _search() -> Any:
    import cv2

    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)


def flow(first: Frames, second: Frames) -> Flow:
    """Where the pixels of ``first`` lie in ``second``, both [h, w, 3]: pixels (x, y), [h, w, 2]."""
    import cv2

    grey = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second))
    return np.asarray(_search().calc(*grey, None), np.float32)


def top_motion(moved: Flow) -> float:
    """Mean length of the longest `TOP` of the vectors, pixels."""
    length = np.hypot(moved[..., 0], moved[..., 1]).ravel()
    count = max(1, int(TOP * length.size))
    return float(np.partition(length, length.size - count)[-count:].mean(dtype=np.float64))


def between(first: Frames, second: Frames, moved: Flow) -> Frames:
    """The frame half-way, uint8 [h, w, 3]: both pictures moved half of the flow towards each other, and averaged."""
    import cv2

    high, wide = moved.shape[:2]
    x, y = np.meshgrid(np.arange(wide, dtype=np.float32), np.arange(high, dtype=np.float32))
    half = moved / 2
    before = cv2.remap(first, x - half[..., 0], y - half[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    after = cv2.remap(second, x + half[..., 0], y + half[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.addWeighted(before, 0.5, after, 0.5, 0))


def working_rows(part: Part) -> Frames:
    """The frames of a part at the working size, [n, h, w, 3]; computed once a chunk."""
    rows: Frames = part.rows(("working",), lambda frames: np.stack([working(frame) for frame in frames]))
    return rows


def pair_flow(part: Part, first: int, second: int, before: Frames, after: Frames) -> Flow:
    """`flow` of two working frames of a take, indices counted from its start; computed once for all who ask."""
    key, start = "dis flow", part.take.start
    found: Flow | None = part.pairs.get(key, start + first, start + second)
    if found is None:
        found = flow(before, after)
        part.pairs.put(key, start + first, start + second, found)
    return found
