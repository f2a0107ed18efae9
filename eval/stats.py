"""Intervals a reviewer would accept: means and rates over prompts, with the seeds of a prompt kept together.

Videos of one prompt resemble each other, so the prompt is what is drawn at random and what an interval is about: **the
estimate is the mean over prompts of the mean over a prompt's seeds**, every prompt counting once, however many seeds it
has. More seeds sharpen a prompt's own mean; only more prompts say more about prompts that were not tried.

Means
    BCa bootstrap (Efron 1987) of the prompts' means by `scipy.stats.bootstrap`, with *expanded percentiles* (Hesterberg
    2015, "What Teachers Should Know about the Bootstrap"): resampling n prompts loses the factor sqrt((n - 1)/n) in
    width and the tails of Student's t, so percentiles further out are read off. Plain BCa, which ``method="BCa"``
    gives, is too narrow at the sizes used here. How often a 95 % interval held the true mean, in per cent (4,000
    samples each, so ±0.7; "× 3": three seeds a prompt, correlated by 0.75):

    ===========================  ====  ====  ====  ====  =============
    prompts                         8    12    25    50  25, plain BCa
    ===========================  ====  ====  ====  ====  =============
    normal                       93.9  94.0  95.0  95.1           93.5
    beta(5, 2)                   94.0  95.0  95.6  94.6           94.1
    beta(2, 0.5)                 93.6  94.8  95.5  95.2           93.8
    beta(8, 1)                   92.6  93.7  94.8  94.6           93.4
    beta(8, 1) × 3               92.6  93.9  94.9  95.6           93.0
    beta(20, 1)                  92.9  92.8  93.9  94.0           92.2
    beta(8, 1) minus beta(5, 2)  92.9  95.0  94.3  95.5           93.7
    lognormal(0, 1)              86.7  88.2  91.0  91.7           88.2
    ===========================  ====  ====  ====  ====  =============

    So from 12 prompts on it covers 93-97 % of bounded scores, a little less below; a few huge outliers among small
    values (lognormal, as distances without a bound may have) are beyond it, as beyond every interval of a mean.

Rates
    Wilson's interval (1927) with an effective number of videos p(1 - p)/variance of the mean over prompts, kept between
    the number of prompts and of videos. With one seed a prompt this is Wilson's own, and it needs no least size.
    Averaged over p from 0.1 to 0.9, for correlations between three seeds from 0 to 0.95, it covers 94.7-96.6 % (8
    prompts), 94.7-96.4 % (12), 94.4-95.9 % (25) and 94.9-95.9 % (50); at a single p the steps of a count make it swing
    by a few points (91.6 at worst from 12 prompts on), as with every interval of a rate.

Below `FEWEST` prompts a bootstrap would pretend: the range of the prompts' means is given and called so.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 8
"""Below this many prompts there is no bootstrap interval and no verdict."""
LEVEL = 0.95
RESAMPLES = 9_999

Samples: TypeAlias = "Mapping[Any, Any] | Sequence[float | None] | NDArray[Any] | pd.Series[Any]"
"""Scores of videos: ``{prompt: {seed: score}}``, ``{prompt: [score of seed 0, of seed 1, ...]}``, ``{prompt: score}``,
``{(prompt, seed): score}``, a pandas Series indexed likewise, or a plain sequence with one prompt an entry.

NaN and None are skipped videos: left out and counted.
"""
Bootstrap = Literal["expanded BCa", "BCa"]
Method = Literal["expanded BCa", "BCa", "Wilson", "Agresti-Min", "range", "constant", "one prompt", "no values"]


@dataclass(frozen=True)
class Interval:
    """An estimate with what is known of its error.

    ``n`` videos (or pairs) of ``clusters`` prompts went in; ``skipped`` had no value. ``low`` and ``high`` bound a 95 %
    interval if `is_interval`; they are the prompts' range for method "range", the estimate itself for "constant" and
    NaN for "one prompt" and "no values". ``note`` says why there is no interval, and is empty otherwise.
    """

    estimate: float
    low: float
    high: float
    n: int
    clusters: int
    method: Method
    skipped: int = 0
    note: str = ""

    @property
    def is_interval(self) -> bool:
        """Whether ``low`` and ``high`` bound a 95 % confidence interval."""
        return self.method in ("expanded BCa", "BCa", "Wilson", "Agresti-Min")

    def text(self, digits: int = 2) -> str:
        """``0.93 (0.88–0.97)``, ``0.93 [0.88–1.00]`` for a range, the estimate alone, or a dash without values."""
        if self.method == "no values":
            return "–"
        if self.method in ("one prompt", "constant"):
            return f"{self.estimate:.{digits}f}"
        dash = " to " if self.low < 0 else "–"
        bounds = f"{self.low:.{digits}f}{dash}{self.high:.{digits}f}"
        return f"{self.estimate:.{digits}f} " + (f"[{bounds}]" if self.method == "range" else f"({bounds})")


def by_prompt(samples: Samples) -> tuple[dict[Hashable, dict[Hashable, float]], int]:
    """``{prompt: {seed: score}}`` of what has a score, and how many videos have none.

    Entries of a sequence are prompts 0, 1, ...; scores without a seed are a prompt's seeds 0, 1, ... in their order.

    Raises:
        ValueError: a score is infinite, or a prompt and seed come twice.
    """
    found: dict[Hashable, dict[Hashable, float]] = {}
    skipped = 0
    for prompt, seed, score in _entries(samples):
        value = float("nan") if score is None else float(score)
        if np.isinf(value):
            raise ValueError(f"prompt {prompt!r}, seed {seed!r}: the score is {value}")
        seeds = found.setdefault(prompt, {})
        if seed in seeds:
            raise ValueError(f"prompt {prompt!r}, seed {seed!r}: two scores, {seeds[seed]} and {value}")
        seeds[seed] = value
        skipped += int(np.isnan(value))
    kept = {p: {s: v for s, v in seeds.items() if not np.isnan(v)} for p, seeds in found.items()}
    return {prompt: seeds for prompt, seeds in kept.items() if seeds}, skipped


def mean_interval(
    samples: Samples, *, seed: int = 0, method: Bootstrap = "expanded BCa", resamples: int = RESAMPLES
) -> Interval:
    """Mean over prompts of the mean over seeds, with a 95 % interval bootstrapped over prompts.

    The same samples and ``seed`` give the same interval, whatever the order of the prompts.

    Raises:
        ValueError: as `by_prompt`.
    """
    kept, skipped = by_prompt(samples)
    means = [float(np.mean(list(seeds.values()))) for seeds in kept.values()]
    n = sum(map(len, kept.values()))
    return bootstrap_interval(means, n, skipped, seed=seed, method=method, resamples=resamples)


def bootstrap_interval(
    cluster_means: Sequence[float],
    n: int,
    skipped: int = 0,
    *,
    seed: int = 0,
    method: Bootstrap = "expanded BCa",
    resamples: int = RESAMPLES,
) -> Interval:
    """`mean_interval` of one number a prompt, made from ``n`` videos, or the range, or the reason why there is none."""
    x = np.sort(np.asarray(cluster_means, dtype=np.float64))  # the order of the prompts must not matter
    if x.size < 2:
        return _without_interval(x, n, skipped)
    mean, low, high = float(x.mean()), float(x.min()), float(x.max())
    if x.size < FEWEST:
        note = f"{x.size} prompts are too few for an interval: this is their range"
        return Interval(mean, low, high, n, x.size, "range", skipped, note)
    if high - low <= 1e-12 * max(1.0, abs(mean)):  # the same number but for rounding; BCa divides by the spread
        note = "all prompts score the same: there is no spread to estimate an interval from"
        return Interval(mean, mean, mean, n, x.size, "constant", skipped, note)
    found = stats.bootstrap(
        (x,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 10_000_000 // x.size),  # at most 80 MB of resamples at a time
        confidence_level=expanded_level(x.size) if method == "expanded BCa" else LEVEL,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), n, x.size, method, skipped)


def expanded_level(n: int) -> float:
    """The level to ask of a bootstrap over n ≥ 2 values so that it covers `LEVEL`: 0.965 for n = 25, 0.989 for 8."""
    tail = (1 - LEVEL) / 2
    return float(1 - 2 * stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(tail, n - 1)))


def rate_interval(samples: Samples) -> Interval:
    """Share of videos that are true (1, not 0), the mean over prompts of the mean over seeds, with Wilson's interval.

    Below `FEWEST` prompts the seeds of a prompt count as one video: their resemblance cannot be estimated.

    Raises:
        ValueError: as `by_prompt`, or a score is neither 0 nor 1 (shares, e.g. of clips, belong to `mean_interval`).
    """
    kept, skipped = by_prompt(samples)
    require_binary(kept)
    x = np.asarray([np.mean(list(seeds.values())) for seeds in kept.values()], dtype=np.float64)
    n = sum(map(len, kept.values()))
    if x.size < 2:
        return _without_interval(x, n, skipped)
    p, effective = float(x.mean()), float(x.size)
    variance = float(x.var(ddof=1)) / x.size
    if x.size >= FEWEST and 0 < p < 1:
        effective = float(np.clip(p * (1 - p) / variance, x.size, n)) if variance > 0 else float(n)
    low, high = wilson(p, effective)
    return Interval(p, low, high, n, x.size, "Wilson", skipped)


def require_binary(kept: Mapping[Hashable, Mapping[Hashable, float]]) -> None:
    """Raises:
    ValueError: a score is neither 0 nor 1.
    """
    for prompt, seeds in kept.items():
        other = [value for value in seeds.values() if value not in (0, 1)]
        if other:
            raise ValueError(f"prompt {prompt!r}: a rate is of values 0 and 1, not {other[0]}; a share is a mean")


def wilson(p: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval (1927) of a rate ``p`` seen in ``n`` > 0 videos; n need not be whole."""
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)))
    return max(0.0, middle - half), min(1.0, middle + half)


def _without_interval(x: NDArray[np.float64], n: int, skipped: int) -> Interval:
    nan = float("nan")
    if x.size == 0:
        return Interval(nan, nan, nan, n, 0, "no values", skipped, "no video has a score")
    note = "one prompt: its videos say nothing of others"
    return Interval(float(x[0]), nan, nan, n, 1, "one prompt", skipped, note)


def _entries(samples: Samples) -> Iterable[tuple[Hashable, Hashable, float | None]]:
    """(prompt, seed, score) of every video."""
    named: Any = samples if hasattr(samples, "items") else dict(enumerate(samples))
    seen: dict[Hashable, int] = {}
    for key, value in named.items():
        if isinstance(value, Mapping):
            yield from ((key, seed, score) for seed, score in value.items())
        elif isinstance(value, Sequence | np.ndarray):
            yield from ((key, seed, score) for seed, score in enumerate(value))
        elif isinstance(key, tuple) and len(key) == 2:
            yield *key, value
        else:
            seen[key] = seen.get(key, -1) + 1
            yield key, seen[key], value
