"""Measures of single pictures without any network: how sharp, how noisy, how far clipped and how colourful.

Shapes: n frames, H x W pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from eval.scorer import Accumulator, Frames, Measurement, Part, Rows, Runtime, Scorer, Take

COLUMNS = ("sharpness", "noise", "clipped", "colourful")
REBLUR = 9
"""Pixels of the box that a picture is blurred with to see how much sharpness it has to lose (the paper's number)."""

NOISE_BLOCK = 8
LOWEST, HIGHEST = 1, 254
"""A channel at or beyond these values has lost detail."""

Grey = NDArray[np.float32]


def measures(frames: Frames) -> Rows:
    """One row a frame, float64 [n, 4], the columns named in `COLUMNS`; frames uint8 [n, H, W, 3]."""
    import cv2

    rows = np.empty((len(frames), len(COLUMNS)))
    for row, frame in zip(rows, frames, strict=True):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
        row[:] = sharpness(grey), noise(grey), clipped(frame), colourful(frame)
    return rows


def sharpness(grey: Grey) -> float:
    """1 - the blur of Crété-Roffet et al. (2007, "The blur effect"), 0..1; whatever the contrast.

    The picture is blurred once more: where it was sharp, neighbouring pixels then differ much less. The value is the
    share of their differences that is lost, in the blurrier direction; 0 for a flat picture. Noise is lost as well, so
    it counts as sharp here: read it beside `noise`.
    """
    import cv2

    lost = []
    for axis, box in ((0, (1, REBLUR)), (1, (REBLUR, 1))):
        before = np.abs(np.diff(grey, axis=axis))
        after = np.abs(np.diff(cv2.blur(grey, box), axis=axis))
        total = float(before.sum(dtype=np.float64))
        lost.append(float(np.maximum(before - after, 0).sum(dtype=np.float64)) / total if total > 0 else 0.0)
    return min(lost)


def noise(grey: Grey) -> float:
    """Standard deviation of the noise in grey levels (Immerkær 1996, "Fast noise variance estimation").

    His mean over the picture is taken in blocks and their median is the value: edges, which a few blocks hold, do not
    count as noise. Fine texture all over the picture does.
    """
    import cv2

    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    rest = np.abs(cv2.filter2D(grey, cv2.CV_32F, mask, borderType=cv2.BORDER_REFLECT_101))
    high, wide = (max(1, side // NOISE_BLOCK) for side in grey.shape)
    blocks = rest[: high * NOISE_BLOCK, : wide * NOISE_BLOCK]
    means = cv2.resize(blocks, (wide, high), interpolation=cv2.INTER_AREA)
    return float(np.sqrt(np.pi / 2) / 6 * np.median(means))


def clipped(frame: Frames) -> float:
    """Share of the pixels of which a channel is at an end of its range: over-exposed, black or over-saturated."""
    import cv2

    ends = cv2.LUT(frame, _ENDS)
    return float(ends.max(axis=2).mean(dtype=np.float64))


_ENDS = np.array([level <= LOWEST or level >= HIGHEST for level in range(256)], np.uint8)


def colourful(frame: Frames) -> float:
    """Colourfulness of Hasler and Süsstrunk (2003), M^(3): 0 for grey, above 80 for garish."""
    red, green, blue = np.moveaxis(frame.astype(np.float32), 2, 0)
    across, along = red - green, (red + green) / 2 - blue
    spread = np.hypot(across.std(dtype=np.float64), along.std(dtype=np.float64))
    return float(spread + 0.3 * np.hypot(across.mean(dtype=np.float64), along.mean(dtype=np.float64)))


@dataclass(frozen=True)
class PictureScorer(Scorer):
    """Mean over the frames of something computed from `measures`, at the full size of the video."""

    family = "embedded"

    def unavailable(self) -> str | None:
        return need_cv2()

    @abstractmethod
    def of(self, rows: Rows) -> Rows:
        """One value a frame, [n], from rows [n, 4] of `measures`."""

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        return _Mean(self, take.frames)


class _Mean:
    def __init__(self, scorer: PictureScorer, frames: int) -> None:
        self.scorer, self.curve = scorer, np.full(frames, np.nan)

    def push(self, part: Part) -> None:
        values = self.scorer.of(part.rows(("picture",), measures))
        self.curve[part.start : part.start + len(values)] = values

    def close(self) -> Measurement:
        return Measurement(float(self.curve.mean()), len(self.curve), self.curve)


def need_cv2() -> str | None:
    """Why OpenCV cannot be used, or None."""
    return None if find_spec("cv2") else "OpenCV is missing: pip install opencv-python-headless"
