"""Small pictures of frames and how neighbouring ones differ: what the cheap long-video measures look at.

Averages over cells hide codec noise and grain. They are made of exact integer sums, so that no result depends on the
size of the chunks.

Shapes: n frames, H x W pixels, r x c cells.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from eval.scorer import Frames, Part

Cells = NDArray[np.float32]

_SMALLEST, _MOST = 8, 32
"""Pixels a side of a cell, at least; cells a side, at most."""


def cells(frames: Frames, rows: int, columns: int) -> Cells:
    """Mean colours of a grid of cells, grey levels 0..255, float32 [n, rows, columns, 3].

    Cell borders fall on whole pixels, so that cells may differ by one pixel a side. ``rows`` and ``columns`` must not
    exceed H and W.
    """
    height, width = frames.shape[1:3]
    down, right = np.arange(rows + 1) * height // rows, np.arange(columns + 1) * width // columns
    bands = [frames[:, a:b].sum(axis=1, dtype=np.uint32) for a, b in pairwise(down)]
    sums = np.add.reduceat(np.stack(bands, axis=1), right[:-1], axis=2)
    area = np.diff(down)[:, None] * np.diff(right)[None, :]
    return (sums / area[None, :, :, None]).astype(np.float32)


def cell_rows(part: Part) -> Cells:
    """Cells of at least 8 pixels a side, at most 32 x 32 of them: float32 [n, r, c, 3]."""
    height, width = part.take.video.height, part.take.video.width
    rows, columns = (min(_MOST, max(1, side // _SMALLEST)) for side in (height, width))
    found: Cells = part.rows(("cells", rows, columns), lambda frames: cells(frames, rows, columns))
    return found


def grey_rows(part: Part, side: int = 16) -> NDArray[np.uint8]:
    """Thumbnails of at most ``side`` x ``side`` cells, luma (BT.601), rounded: uint8 [n, cells], 256 bytes a frame."""

    def make(frames: Frames) -> NDArray[np.uint8]:
        rows, columns = min(side, frames.shape[1]), min(side, frames.shape[2])
        luma = cells(frames, rows, columns).astype(np.float64) @ np.array([0.299, 0.587, 0.114])
        return np.asarray(np.rint(luma), np.uint8).reshape(len(frames), -1)

    found: NDArray[np.uint8] = part.rows(("grey", side), make)
    return found


class Neighbours:
    """Differences of every frame from the one before it, over the borders of chunks."""

    def __init__(self) -> None:
        self._last: Cells | None = None

    def differences(self, rows: Cells) -> Cells:
        """|row - the one before|, float32 [n, ...]; NaN for the first row of all."""
        before = np.full_like(rows[:1], np.nan) if self._last is None else self._last
        self._last = rows[-1:].copy()
        return np.abs(rows - np.concatenate([before, rows[:-1]]))


class Steps:
    """Gathers the mean difference of every frame from the one before it, grey levels; NaN for the first."""

    def __init__(self, frames: int) -> None:
        self.curve = np.full(frames, np.nan)
        self._neighbours = Neighbours()

    def push(self, part: Part) -> None:
        differences = self._neighbours.differences(cell_rows(part))
        self.curve[part.start : part.start + len(differences)] = differences.reshape(len(differences), -1).mean(
            axis=1, dtype=np.float64
        )
