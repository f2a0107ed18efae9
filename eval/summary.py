"""Mean and spread of a few videos, said honestly: no interval where there are too few to have one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.stats import FEWEST, mean_interval

__all__ = ["FEWEST", "cell", "spread"]


def spread(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high): `eval.stats`' 95 % bootstrap interval, or the range below `FEWEST` values; NaN is left out.

    All three are NaN without values.
    """
    known = np.asarray([value for value in values if not np.isnan(value)], dtype=np.float64)
    if known.size == 0:
        return float("nan"), float("nan"), float("nan")
    if known.size < FEWEST:
        return float(known.mean()), float(known.min()), float(known.max())
    found = mean_interval(known.tolist(), seed=seed)
    return found.estimate, found.low, found.high


def cell(values: Sequence[float]) -> str:
    """``0.93 (0.88–1.00)``, the value alone where there is one, a dash where there is none."""
    mean, low, high = spread(values)
    if np.isnan(mean):
        return "–"
    if len(values) == 1:
        return f"{mean:.2f}"
    return f"{mean:.2f} ({low:.2f}–{high:.2f})"
