"""Curves: one value a frame, and what can be said of them. Pure functions of arrays; NaN is a frame without a value."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Curve = NDArray[np.float64]


def frames_of(seconds: float, fps: float) -> int:
    """Frames in that many seconds, at least one."""
    return max(1, round(seconds * fps))


def window_means(curve: Curve, size: int) -> Curve:
    """Means of consecutive windows of ``size`` frames, NaN for a window without values; an incomplete last one is left
    out."""
    count = len(curve) // size
    windows = np.asarray(curve[: count * size], np.float64).reshape(count, size)
    known = ~np.isnan(windows)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, windows, 0).sum(1) / known.sum(1))


def mean(curve: Curve) -> float:
    """Mean of the values there are; NaN without any."""
    known = np.asarray(curve, np.float64)[~np.isnan(curve)]
    return float(known.mean()) if known.size else float("nan")


def first_and_last(curve: Curve, size: int) -> tuple[float, float]:
    """Means of the first and of the last ``size`` frames."""
    return mean(curve[:size]), mean(curve[-size:])


def slopes(curve: Curve, size: int, fps: float) -> tuple[float, float]:
    """Change per minute, from the means of windows of ``size`` frames: (median of the slopes of all pairs, least
    squares).

    The first is the Theil-Sen estimator (Sen, JASA 63, 1968), which a few odd windows do not move. Raises ValueError
    for fewer than two windows with values.
    """
    means = window_means(curve, size)
    minutes = (np.arange(len(means)) * size / fps / 60)[~np.isnan(means)]
    means = means[~np.isnan(means)]
    if len(means) < 2:
        raise ValueError("a slope needs two windows")
    from scipy.stats import theilslopes

    fit = np.polynomial.Polynomial.fit(minutes, means, 1).convert()
    return float(theilslopes(means, minutes).slope), float(fit.coef[1] if len(fit.coef) > 1 else 0.0)


def runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Stretches [start, stop) of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def jumps(steps: Curve, near: int, reach: int, ratio: float, floor: float) -> list[int]:
    """Frames that differ abruptly from the one before.

    A jump is the largest step within ``near`` frames (a change spread over a few frames counts once), above ``floor``,
    and above ``ratio`` times every step that lies between ``near`` and ``reach`` frames away: fast motion has many
    large steps, a cut has one.

    Args:
        steps: differences of every frame from the one before it; what the first one holds is ignored.
    """
    known = np.nan_to_num(np.asarray(steps, np.float64), nan=0.0)
    known[:1] = 0
    around = sliding_window_view(np.pad(known, reach), 2 * reach + 1)  # [F, 2 reach + 1], the frame in the middle
    close = around[:, reach - near : reach + near + 1]
    far = np.concatenate([around[:, : reach - near], around[:, reach + near + 1 :]], axis=1).max(1, initial=0.0)
    first_largest = close.argmax(1) == near
    return [int(at) for at in np.flatnonzero(first_largest & (known > floor) & (known > ratio * far))]
