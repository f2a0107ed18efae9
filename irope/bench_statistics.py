"""Statistics of a series of blocks: spread, drift, flatness, and the curve of cost and memory over a long video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]


def theil_sen(values: Sequence[float] | Series, most: int = 1000) -> float:
    """Median slope over all pairs, per step: robust against the hiccups of a shared machine.

    Series longer than ``most`` are reduced to medians of neighbours first, which keeps the pairs countable.
    """
    y = np.asarray(values, dtype=np.float64)
    if len(y) < 2:
        return 0.0
    width = -(-len(y) // most)
    y = np.median(y[: len(y) // width * width].reshape(-1, width), axis=1)
    first, second = np.triu_indices(len(y), k=1)
    return float(np.median((y[second] - y[first]) / (second - first))) / width if len(y) > 1 else 0.0


def decile_ratio(values: Sequence[float] | Series) -> float:
    """Median of the last tenth over the median of the first tenth."""
    y = np.asarray(values, dtype=np.float64)
    tenth = max(1, len(y) // 10)
    return float(np.median(y[-tenth:]) / np.median(y[:tenth]))


def drift(values: Series) -> float:
    """Theil-Sen slope x length, in percent of the median: how far the series moves from its begin to its end."""
    return 100 * theil_sen(values) * len(values) / float(np.median(values))


@dataclass(frozen=True)
class Quantiles:
    """Median, tenth and ninetieth percentile of ``n`` numbers."""

    median: float
    p10: float
    p90: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float] | Series) -> Quantiles:
        p10, median, p90 = (float(value) for value in np.percentile(values, (10, 50, 90)))
        return cls(median, p10, p90, len(values))


@dataclass(frozen=True)
class Spread:
    """Median, tenth and ninetieth percentile, in milliseconds per block."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, seconds: Sequence[float] | Series) -> Spread:
        p10, median, p90 = (float(value) for value in np.percentile(np.asarray(seconds) * 1e3, (10, 50, 90)))
        return cls(median, p10, p90)


@dataclass(frozen=True)
class Flatness:
    """Cost of a block over one length of video, of the blocks after the window is full.

    Every repeat does the same work block by block, so what a block costs on an undisturbed machine is best known by its
    smallest CPU time among the repeats; whether the cost changes is judged on those minima.

    Attributes:
        seconds: length of video asked for; ``blocks`` of it were counted in each repeat.
        cpu, wall: cost of a block, from the repeat with the smallest median CPU time.
        total_cpu, total_wall: seconds for the whole video, warm-up blocks included, smallest of the repeats.
        slope: Theil-Sen slope x blocks of the minima, in percent of their median.
        ratio: median of the last tenth of the minima over that of the first.
        slopes, ratios: the same of every repeat.
    """

    seconds: float
    blocks: int
    cpu: Spread
    wall: Spread
    total_cpu: float
    total_wall: float
    slope: float
    ratio: float
    slopes: tuple[float, ...]
    ratios: tuple[float, ...]

    @classmethod
    def of(cls, seconds: float, skip: int, cpu: Sequence[Series], wall: Sequence[Series]) -> Flatness:
        """From seconds of every block, one series per repeat; the first ``skip`` blocks fill the window."""
        settled = [series[skip:] for series in cpu]
        slopes = tuple(map(drift, settled))
        ratios = tuple(map(decile_ratio, settled))
        minima = np.minimum.reduce(settled)
        best = min(range(len(cpu)), key=lambda repeat: float(np.median(cpu[repeat][skip:])))
        return cls(
            seconds=seconds,
            blocks=len(cpu[0]) - skip,
            cpu=Spread.of(cpu[best][skip:]),
            wall=Spread.of(wall[best][skip:]),
            total_cpu=min(float(s.sum()) for s in cpu),
            total_wall=min(float(s.sum()) for s in wall),
            slope=drift(minima),
            ratio=decile_ratio(minima),
            slopes=slopes,
            ratios=ratios,
        )


@dataclass(frozen=True)
class Curve:
    """Cost and memory along one video, in up to ``most`` bins of neighbouring blocks; of repeats the smallest.

    Attributes:
        seconds: of video, at the middle of every bin.
        cpu_ms: median cost of a block.
        resident: median bytes in memory.
    """

    seconds: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    resident: tuple[float, ...]

    @classmethod
    def of(cls, cpu: Sequence[Series], resident: Sequence[Series], per_block: float, most: int = 200) -> Curve:
        """From seconds and bytes of every block, one series per repeat; a block is ``per_block`` seconds of video."""
        width = -(-len(cpu[0]) // most)
        count = len(cpu[0]) // width

        def binned(series: Sequence[Series]) -> Series:
            least = np.minimum.reduce(list(series))[: count * width]
            return np.asarray(np.median(least.reshape(count, width), axis=1))

        middle = (np.arange(count) + 0.5) * width * per_block
        return cls(tuple(middle.tolist()), tuple((1e3 * binned(cpu)).tolist()), tuple(binned(resident).tolist()))
