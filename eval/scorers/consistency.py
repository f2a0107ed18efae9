"""The consistency of features over time, as VBench defines it; the same formula for every network."""

from __future__ import annotations

import numpy as np

from eval.scorer import Measurement, Rows, Skip


class ConsistencyTerms:
    """Collects one feature a frame, part by part, and holds two of them.

    Frame i > 0 has the term (max(0, cos(f[i-1], f[i])) + max(0, cos(f[0], f[i]))) / 2; the value is their mean
    (VBench, arXiv 2311.17982, subject_consistency.py and background_consistency.py). Cosines are taken in float64.

    Args:
        frames: F, of the whole take.

    Raises:
        Skip: a take of one frame, for which stock VBench divides by zero.
    """

    def __init__(self, frames: int) -> None:
        if frames < 2:
            raise Skip("one frame cannot be consistent or inconsistent with itself")
        self.to_previous, self.to_first = np.full((2, frames), np.nan)
        self._done = 0
        self._first: Rows | None = None
        self._last: Rows | None = None

    def push(self, rows: Rows) -> None:
        """Features [n, D] of the next n frames; their length does not matter."""
        unit = rows.astype(np.float64)
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
        if self._first is None or self._last is None:
            self._first = self._last = unit[:1]
        before = np.concatenate([self._last, unit[:-1]])
        here = slice(self._done, self._done + len(unit))
        self.to_previous[here] = np.maximum(0, np.einsum("nd,nd->n", before, unit))
        self.to_first[here] = np.maximum(0, unit @ self._first[0])
        self._last, self._done = unit[-1:], here.stop

    def close(self) -> Measurement:
        """Value, F - 1 terms, the course of the terms (NaN at frame 0), and ``to_previous`` and ``to_first`` alone."""
        self.to_previous[0] = self.to_first[0] = np.nan
        curve = (self.to_previous + self.to_first) / 2
        halves = {"to_previous": float(self.to_previous[1:].mean()), "to_first": float(self.to_first[1:].mean())}
        return Measurement(float(curve[1:].mean()), len(curve) - 1, curve, halves)
