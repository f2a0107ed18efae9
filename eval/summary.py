"""Mean and spread of a few videos, said honestly: no interval where there are too few to have one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FEWEST = 8
"""Below this many videos a bootstrap interval would pretend; the range is shown instead."""


def spread(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high): a 95 % percentile bootstrap interval, or the range below `FEWEST` values; NaN is left out.

    All three are NaN without values.
    """
    known = np.asarray([value for value in values if not np.isnan(value)], dtype=np.float64)
    if known.size == 0:
        return float("nan"), float("nan"), float("nan")
    if known.size < FEWEST:
        return float(known.mean()), float(known.min()), float(known.max())
    rng = np.random.default_rng(seed)
    means = rng.choice(known, (10_000, known.size)).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(known.mean()), float(low), float(high)


def cell(values: Sequence[float]) -> str:
    """``0.93 (0.88–1.00)``, the value alone where there is one, a dash where there is none."""
    mean, low, high = spread(values)
    if np.isnan(mean):
        return "–"
    if len(values) == 1:
        return f"{mean:.2f}"
    return f"{mean:.2f} ({low:.2f}–{high:.2f})"
