"""Is policy A better than policy B? Differences on the prompts that both have, and what may be said of them.

Every policy starts from the same noise for the same prompt and seed, so videos are compared pair by pair: the
difference of two policies is the mean over common prompts of the mean over common seeds of A minus B. Where a prompt
has no seed in common, the mean over A's seeds minus the mean over B's is taken and counted as unmatched.

The interval is `eval.stats`' bootstrap of the prompts' differences (coverage there). Two rates often differ on one or
two prompts only, which a bootstrap of those prompts cannot see beyond: in 25 pairs of which 5 % favour one policy and
10 % the other it covers 88 %. Agresti and Min's interval (2005), which adds half a pair to each of the four outcomes,
covers 96 % there, 94-97 % with more disagreement, and up to 100 % with less (three correlated seeds: 94-98 %).

The p-value is of the sign-flip test (Fisher 1935):
were the policies alike, each prompt's difference might as well have the other sign. Up to `EXACT_PROMPTS` prompts all
2^n signs are tried, beyond that `FLIPS` seeded random ones. Holm's method (1979) corrects for looking at many metrics.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from scipy import stats

from eval.stats import (
    FEWEST,
    LEVEL,
    RESAMPLES,
    Bootstrap,
    Interval,
    Samples,
    bootstrap_interval,
    by_prompt,
    require_binary,
)

EXACT_PROMPTS = 14
FLIPS = 2**EXACT_PROMPTS
ALPHA = 0.05

Verdict = Literal["better", "worse", "tied", "too few"]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Paired:
    """A minus B on common prompts; of ``difference``, ``n`` counts pairs of videos and ``skipped`` videos of both.

    ``p_value`` is two-sided and NaN without a common prompt; ``p_method`` is "exact", "Monte Carlo" or "none".
    ``unmatched`` common prompts have no common seed; ``only_a`` and ``only_b`` prompts have no partner.
    """

    difference: Interval
    p_value: float
    p_method: Literal["exact", "Monte Carlo", "none"]
    unmatched: int = 0
    only_a: int = 0
    only_b: int = 0


@dataclass(frozen=True)
class Comparison:
    """What may be said of A against B in one metric, corrected for all metrics of the same `compare`."""

    paired: Paired
    p_adjusted: float
    verdict: Verdict
    sentence: str


def paired(
    a: Samples,
    b: Samples,
    *,
    rate: bool = False,
    seed: int = 0,
    method: Bootstrap = "expanded BCa",
    resamples: int = RESAMPLES,
) -> Paired:
    """A minus B with a 95 % interval and a p-value; of two rates (scores 0 and 1) with ``rate``.

    Prompts, and seeds within them, are matched by name, so plain sequences must be of equal length.

    Raises:
        ValueError: as `eval.stats.by_prompt`, plain sequences of different length, or rates of other than 0 and 1.
    """
    if not hasattr(a, "items") and not hasattr(b, "items") and len(a) != len(b):
        raise ValueError(f"sequences of {len(a)} and {len(b)} scores cannot be paired: give {{prompt: scores}}")
    (of_a, skipped_a), (of_b, skipped_b) = by_prompt(a), by_prompt(b)
    if rate:
        require_binary(of_a)
        require_binary(of_b)
    differences, pairs, unmatched = [], 0, 0
    for prompt in (prompt for prompt in of_a if prompt in of_b):
        x, y = of_a[prompt], of_b[prompt]
        common = [s for s in x if s in y]
        differences.append(float(np.mean([x[s] for s in common or x]) - np.mean([y[s] for s in common or y])))
        pairs += len(common) or min(len(x), len(y))
        unmatched += not common
    interval = bootstrap_interval(
        differences, pairs, skipped_a + skipped_b, seed=seed, method=method, resamples=resamples
    )
    if rate and len(differences) >= FEWEST:
        interval = agresti_min(differences, pairs, interval.skipped)
    p_method: Literal["exact", "Monte Carlo", "none"] = "exact" if len(differences) <= EXACT_PROMPTS else "Monte Carlo"
    return Paired(
        interval,
        sign_flip_p(differences, seed=seed),
        p_method if differences else "none",
        unmatched,
        only_a=len(of_a.keys() - of_b.keys()),
        only_b=len(of_b.keys() - of_a.keys()),
    )


def agresti_min(differences: Sequence[float], n: int, skipped: int = 0) -> Interval:
    """Difference of two paired rates: normal interval after adding half a pair of each outcome (1-0, 0-1, 1-1, 0-0).

    ``differences`` lie in -1..1, one a prompt, made from ``n`` pairs.
    """
    d = np.asarray(differences, dtype=np.float64)
    m = d.size + 2
    middle = d.sum() / m
    half = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(((d**2).sum() + 1) / m - middle**2) / np.sqrt(m)
    low, high = max(-1.0, float(middle - half)), min(1.0, float(middle + half))
    return Interval(float(d.mean()), low, high, n, d.size, "Agresti-Min", skipped)


def sign_flip_p(differences: Sequence[float], *, seed: int = 0) -> float:
    """Two-sided p-value that the mean of ``differences`` is as far from 0 by chance of their signs; NaN without any."""
    if len(differences) < 2:
        return 1.0 if len(differences) else float("nan")  # either sign of a single number is as far from 0
    found = stats.permutation_test(
        (np.sort(np.asarray(differences, dtype=np.float64)),),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=FLIPS,
        batch=max(1, 10_000_000 // len(differences)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """p-values adjusted by Holm's step-down method (1979): below α is significant at family-wise level α.

    NaN stays NaN and does not count as a test.
    """
    tested = sorted((p, i, key) for i, (key, p) in enumerate(p_values.items()) if not np.isnan(p))
    adjusted = dict.fromkeys(p_values, float("nan"))
    least = 0.0
    for rank, (p, _, key) in enumerate(tested):
        least = max(least, min(1.0, (len(tested) - rank) * p))
        adjusted[key] = least
    return adjusted


def compare(
    a: Mapping[str, Samples],
    b: Mapping[str, Samples],
    *,
    lower_is_better: Collection[str] = (),
    rates: Collection[str] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Comparison]:
    """A against B in every metric that both have, ``{metric: samples}`` each, with Holm over those metrics.

    "better" and "worse" need an adjusted p below `ALPHA` and an interval without 0; intervals are of a metric alone, so
    the p-value may forbid what the interval would allow. "tied" means that no difference was shown, not that there is
    none. "too few": below `FEWEST` common prompts (Holm does not count such a metric), or so few that not even a
    difference of one sign on every prompt could have passed.

    Raises:
        ValueError: as `paired`.
    """
    found = {
        metric: paired(a[metric], b[metric], rate=metric in rates, seed=seed, resamples=resamples)
        for metric in a
        if metric in b
    }
    tested = {metric: pair.p_value for metric, pair in found.items() if pair.difference.clusters >= FEWEST}
    adjusted = holm(tested)
    done = {}
    for metric, pair in found.items():
        p = adjusted.get(metric, float("nan"))
        given = verdict(pair, p, lower_is_better=metric in lower_is_better, tests=len(tested))
        done[metric] = Comparison(pair, p, given, sentence(pair, p, given))
    return done


def verdict(pair: Paired, p_adjusted: float, *, lower_is_better: bool = False, tests: int = 1) -> Verdict:
    """What A is to B, given the p-value corrected for ``tests`` comparisons; see `compare`."""
    d = pair.difference
    if d.clusters < FEWEST:
        return "too few"
    if p_adjusted < ALPHA and not d.low <= 0 <= d.high:
        return "better" if (d.estimate > 0) != lower_is_better else "worse"
    if p_adjusted >= ALPHA and tests * 2.0 ** (1 - d.clusters) >= ALPHA:  # all of one sign: p = 2 of 2^n
        return "too few"
    return "tied"


def sentence(pair: Paired, p_adjusted: float, given: Verdict) -> str:
    """The verdict aloud, with its numbers and what was left out."""
    d = pair.difference
    if d.clusters == 0:
        said = "too few: no prompt has a score from both"
    else:
        bounds = f"95 % {d.low:+.3g} to {d.high:+.3g}" if d.is_interval else d.note
        seen = f"{d.estimate:+.3g} ({bounds}; {d.clusters} prompts, {d.n} pairs)"
        if d.clusters < FEWEST:
            said = f"too few: {seen}, a verdict takes {FEWEST} prompts"
        else:
            words = {
                "better": "A is better",
                "worse": "A is worse",
                "tied": "tied: no difference shown, which does not show that they are equal",
                "too few": "too few: with so many metrics no result on these prompts could be told from chance",
            }
            said = f"{words[given]}: {seen}, p = {p_adjusted:.2g} after Holm ({pair.p_method})"
            if given in ("tied", "too few") and d.is_interval and not d.low <= 0 <= d.high:
                said += "; the interval is not corrected for the number of metrics"
    left = {
        "pairs without a common seed": pair.unmatched,
        "prompts only in A": pair.only_a,
        "prompts only in B": pair.only_b,
        "videos without a score": d.skipped,
    }
    out = ", ".join(f"{count} {what}" for what, count in left.items() if count)
    return said + (f"; {out}" if out else "")
