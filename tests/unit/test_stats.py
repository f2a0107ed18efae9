"""Intervals, paired differences and verdicts: against SciPy, worked numbers and, for coverage, simulation."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.paired import EXACT_PROMPTS, agresti_min, compare, holm, paired, sign_flip_p
from eval.stats import (
    FEWEST,
    LEVEL,
    Interval,
    Samples,
    bootstrap_interval,
    by_prompt,
    expanded_level,
    mean_interval,
    rate_interval,
    wilson,
)

NAN = float("nan")
SAMPLES = 1_500
"""Of one simulated coverage: its standard error is 0.6 %. Longer runs (4,000 and more) gave 94.5-94.9 %."""


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def correlated_beta(rng: np.random.Generator, prompts: int, seeds: int, a: float = 8, rho: float = 0.8) -> np.ndarray:
    """Scores [prompt, seed], each beta(a, 1), of which the seeds of a prompt resemble each other."""
    z = np.sqrt(rho) * rng.normal(size=(prompts, 1)) + np.sqrt(1 - rho) * rng.normal(size=(prompts, seeds))
    u = (1 + np.vectorize(math.erf)(z / math.sqrt(2))) / 2
    return u ** (1 / a)  # the quantile function of beta(a, 1), whose mean is a/(a + 1)


def named(scores: np.ndarray) -> dict[int, list[float]]:
    return dict(enumerate(scores.tolist()))


def coverage(draw: Callable[[np.random.Generator, int], Interval], truth: float, samples: int = SAMPLES) -> float:
    """Share of intervals that hold the truth, each of a sample and a bootstrap seed of its own."""
    rng = np.random.default_rng(1)
    found = [draw(rng, seed) for seed in range(samples)]
    return float(np.mean([i.low <= truth <= i.high for i in found]))


def test_every_form_of_samples_is_the_same():
    full = {"a": {0: 0.1, 1: 0.2}, "b": {0: 0.5}}
    series = pd.Series([0.1, 0.2, 0.5], index=pd.MultiIndex.from_tuples([("a", 0), ("a", 1), ("b", 0)]))
    forms: list[Samples] = [
        full,
        {"a": [0.1, 0.2, None], "b": np.array([0.5])},
        {("a", 0): 0.1, ("a", 1): 0.2, ("b", 0): 0.5, ("c", 0): NAN},
        series,
        pd.Series([0.1, 0.2, 0.5], index=["a", "a", "b"]),
    ]
    assert [by_prompt(form)[0] for form in forms] == [full] * len(forms)
    assert [by_prompt(form)[1] for form in forms] == [0, 1, 1, 0, 0]
    assert by_prompt([0.3, NAN, 0.7]) == ({0: {0: 0.3}, 2: {0: 0.7}}, 1)
    assert by_prompt(np.array([True, False]))[0] == {0: {0: 1.0}, 1: {0: 0.0}}


def test_a_seed_keeps_its_place_when_one_before_it_was_skipped():
    assert by_prompt({"a": [NAN, 0.2]})[0] == {"a": {1: 0.2}}


def test_infinite_and_doubled_scores_are_refused():
    with pytest.raises(ValueError, match="'a', seed 1: the score is inf"):
        by_prompt({"a": [0.1, math.inf]})
    doubled = pd.Series([0.1, 0.2], index=pd.MultiIndex.from_tuples([("a", 0), ("a", 0)]))
    with pytest.raises(ValueError, match=r"'a', seed 0: two scores, 0\.1 and 0\.2"):
        by_prompt(doubled)


def test_every_prompt_counts_once_however_many_seeds_it_has():
    found = mean_interval({"a": [0.0] * 9, "b": [1.0], "c": [NAN]})
    assert (found.estimate, found.n, found.clusters, found.skipped) == (0.5, 10, 2, 1)


def test_plain_bca_is_scipys_and_expanded_bca_is_wider_by_the_factor_of_t():
    x = np.sort(np.random.default_rng(1).beta(5, 1, 25))
    ours = mean_interval(x.tolist(), method="BCa", seed=3)
    scipy = stats.bootstrap((x,), np.mean, method="BCa", rng=np.random.default_rng(3)).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((scipy.low, scipy.high))
    wide = mean_interval(x.tolist(), seed=3)
    factor = stats.t.ppf(0.975, 24) / stats.norm.ppf(0.975) * math.sqrt(25 / 24)
    assert (wide.high - wide.low) / (ours.high - ours.low) == pytest.approx(factor, abs=0.03)
    # Of normal scores it is nearly Student's interval.
    normal = stats.norm.ppf((np.arange(25) + 0.5) / 25)
    student = stats.t.interval(0.95, 24, normal.mean(), stats.sem(normal))
    found = mean_interval(normal.tolist())
    assert (found.low, found.high) == pytest.approx(student, abs=0.02)


def test_levels_that_the_docstring_names():
    assert (round(expanded_level(25), 3), round(expanded_level(8), 3)) == (0.965, 0.989)
    assert expanded_level(100_000) == pytest.approx(LEVEL, abs=1e-5)


def test_an_interval_is_the_same_again_and_in_any_order():
    scores = named(np.random.default_rng(2).random((12, 2)))
    backwards = dict(reversed(scores.items()))
    assert mean_interval(scores) == mean_interval(backwards)
    assert mean_interval(scores).low != mean_interval(scores, seed=1).low


@pytest.mark.parametrize(
    ("samples", "method", "text"),
    [
        ([], "no values", "–"),
        ({"a": [None, NAN]}, "no values", "–"),
        ({"a": [0.2, 0.4]}, "one prompt", "0.30"),
        ([0.2, 0.4, 0.9], "range", "0.50 [0.20–0.90]"),
        ([0.5] * (FEWEST - 1), "range", "0.50 [0.50–0.50]"),
        ([-0.25] * 3, "range", "-0.25 [-0.25 to -0.25]"),
        ({p: [0.1] * (1 + p % 3) for p in range(20)}, "constant", "0.10"),
    ],
)
def test_where_there_is_no_interval_none_is_shown_and_the_reason_is_given(samples: Samples, method: str, text: str):
    found = mean_interval(samples)
    assert (found.method, found.text(), found.is_interval) == (method, text, False)
    assert found.note
    if method in ("no values", "one prompt"):
        assert math.isnan(found.low)
        assert math.isnan(found.high)


def test_ties_and_outliers_give_a_finite_interval_around_the_mean():
    rng = np.random.default_rng(0)
    for n in (FEWEST, 9, 25):
        for values in ([0.0] * (n - 1) + [1.0], [1.0] * (n - 1) + [1 - 1e-9], rng.integers(0, 2, n).tolist(), range(n)):
            found = mean_interval([float(v) for v in values], resamples=500)
            assert found.low <= found.estimate <= found.high
            assert found.is_interval


def test_wilson_on_the_papers_dynamic_degrees():
    """25 videos: .52 may be .33 to .70, .36 may be .20 to .55."""
    for k, low, high in [(13, 0.33, 0.70), (9, 0.20, 0.55)]:
        found = rate_interval([True] * k + [False] * (25 - k))
        assert (round(found.low, 2), round(found.high, 2)) == (low, high)
        assert found.text() == f"{k / 25:.2f} ({low:.2f}–{high:.2f})"


@pytest.mark.parametrize("n", [2, 7, 8, 25, 128])
def test_one_seed_a_prompt_is_scipys_wilson(n: int):
    for k in {0, 1, n // 2, n}:
        found = rate_interval([1.0] * k + [0.0] * (n - k))
        scipy = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((scipy.low, scipy.high))
        assert found.method == "Wilson"


def test_seeds_of_a_prompt_count_for_as_much_as_they_differ():
    once = [1.0, 0.0] * 10
    alike = rate_interval({p: [v] * 3 for p, v in enumerate(once)})
    assert (alike.low, alike.high) == pytest.approx(wilson(0.5, 20))
    unlike = rate_interval({p: [0, 1] for p in range(20)})
    assert (unlike.low, unlike.high) == pytest.approx(wilson(0.5, 40))
    assert (unlike.n, unlike.clusters) == (40, 20)
    few = rate_interval({p: [0, 1] for p in range(4)})
    assert (few.low, few.high) == pytest.approx(wilson(0.5, 4))
    full = rate_interval({p: [1, 1, 1] for p in range(20)})
    assert (full.low, full.high) == pytest.approx(wilson(1.0, 20))
    assert rate_interval({"a": [0, 1]}).method == "one prompt"
    assert rate_interval([NAN]).method == "no values"
    with pytest.raises(ValueError, match=r"prompt 1: .* 0 and 1, not 0\.5"):
        rate_interval([1, 0.5])


def test_prompts_and_seeds_are_matched_by_name():
    a = {"x": {0: 0.5, 1: 0.9}, "y": {0: 0.4}, "z": {0: 0.1}, "only": {0: 1.0}, "none": {0: NAN}}
    b = {"z": {5: 0.3, 6: 0.1}, "y": {0: 0.1, 1: 0.9}, "x": {1: 0.8, 0: NAN, 2: 0.0}, "none": {0: 0.5}}
    found = paired(a, b)
    assert found.difference.estimate == pytest.approx((0.1 + 0.3 - 0.1) / 3)
    assert (found.difference.n, found.difference.clusters, found.difference.skipped) == (3, 3, 2)
    assert (found.unmatched, found.only_a, found.only_b) == (1, 1, 1)
    with pytest.raises(ValueError, match="sequences of 2 and 3 scores"):
        paired([1, 2], [1, 2, 3])


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_the_p_value_counts_every_sign(n: int):
    d = np.random.default_rng(n).normal(0.4, 1, n).round(1)
    flipped = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=n)]
    exact = np.mean(np.asarray(flipped) >= abs(d.sum()) - 1e-12)
    assert sign_flip_p(d.tolist()) == pytest.approx(exact)
    assert paired(d.tolist(), [0.0] * n).p_method == "exact"


def test_the_p_value_of_worked_cases():
    assert sign_flip_p([0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(2 / 32)
    assert sign_flip_p([0.0] * 9) == 1
    # McNemar's exact test: 9 prompts for, 1 against, the agreeing ones say nothing.
    rates = [1.0] * 9 + [-1.0] + [0.0] * 4
    assert sign_flip_p(rates) == pytest.approx(stats.binomtest(1, 10).pvalue)


def test_many_prompts_are_flipped_at_random_from_the_seed():
    d = np.random.default_rng(3).normal(0.4, 1, 40)
    found = paired(d.tolist(), [0.0] * 40)
    assert found.p_method == "Monte Carlo"
    assert found.p_value == paired(d[::-1].tolist(), [0.0] * 40).p_value
    assert found.p_value != sign_flip_p(d.tolist(), seed=1)
    assert found.p_value == pytest.approx(stats.ttest_1samp(d, 0).pvalue, rel=0.25)
    assert paired([1.0] * EXACT_PROMPTS, [0.0] * EXACT_PROMPTS).p_value == 2 / 2**EXACT_PROMPTS


def test_the_sign_flip_test_keeps_its_level():
    rng = np.random.default_rng(5)
    for level in (0.05, 0.2):
        false = np.mean([sign_flip_p(rng.laplace(size=8).tolist()) <= level for _ in range(300)])
        assert false <= level + 3 * math.sqrt(level * (1 - level) / 300)


def test_holm_on_worked_numbers():
    """0.005 × 4, 0.01 × 3, 0.03 × 2, and 0.04, which may not fall below the one before it."""
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0}
    skipped = holm({"a": 0.02, "b": NAN, "c": 0.01})
    assert (skipped["a"], skipped["c"]) == (0.02, 0.02)
    assert math.isnan(skipped["b"])
    assert holm({}) == {}


def test_verdicts_are_said_aloud():
    rng = np.random.default_rng(6)
    base = rng.random((25, 3))
    b = dict.fromkeys(["up", "drift", "same", "noise"], named(base)) | {"few": [0.1] * 7, "b only": [1.0]}
    a: dict[str, Samples] = {
        "up": named(base + rng.uniform(0.05, 0.1, base.shape)),
        "drift": named(base + rng.uniform(0.05, 0.1, base.shape)),
        "same": named(base),
        "noise": named(base + rng.normal(0, 0.1, base.shape)),
        "few": [0.9] * 7,
    }
    found = compare(a, b, lower_is_better={"drift"})
    assert {metric: c.verdict for metric, c in found.items()} == {
        "up": "better",
        "drift": "worse",
        "same": "tied",
        "noise": "tied",
        "few": "too few",
    }
    assert found["up"].p_adjusted == pytest.approx(4 * found["up"].paired.p_value)
    assert found["up"].sentence.startswith("A is better: +0.0")
    assert "25 prompts, 75 pairs" in found["up"].sentence
    assert "no difference shown, which does not show that they are equal" in found["noise"].sentence
    assert found["same"].paired.p_value == 1
    assert "all prompts score the same" in found["same"].sentence
    assert "a verdict takes 8 prompts" in found["few"].sentence
    assert math.isnan(found["few"].p_adjusted)
    nothing = compare({"m": {"x": 1.0, "y": NAN}}, {"m": {"z": 1.0}})["m"]
    assert nothing.verdict == "too few"
    assert "1 prompts only in A, 1 prompts only in B, 1 videos without a score" in nothing.sentence


def test_eight_prompts_cannot_carry_eight_metrics():
    """The smallest p of 8 prompts is 1/128, times 8 metrics 1/16: saying "tied" would blame the policies."""
    metrics = [f"m{i}" for i in range(8)]
    a: dict[str, Samples] = {m: np.linspace(0.5, 0.6, 8) for m in metrics}
    b: dict[str, Samples] = {m: [0.0] * 8 for m in metrics}
    found = compare(a, b)["m0"]
    assert (found.verdict, found.p_adjusted) == ("too few", 1 / 16)
    assert "could be told from chance" in found.sentence
    assert "not corrected for the number of metrics" in found.sentence
    assert compare({"m0": a["m0"]}, b)["m0"].verdict == "better"


def test_rates_that_agree_everywhere_are_not_known_to_be_equal():
    """25 pairs, none discordant: half a pair is added to each outcome, so the variance is 1/27/27."""
    rate = [1.0, 0.0] * 12 + [1.0]
    found = compare({"dynamic": rate}, {"dynamic": rate}, rates={"dynamic"})["dynamic"]
    half = stats.norm.ppf(0.975) / 27
    d = found.paired.difference
    assert (d.low, d.high, d.method) == (pytest.approx(-half), pytest.approx(half), "Agresti-Min")
    assert found.verdict == "tied"
    # 10 for, 2 against, 13 agree: Wald's interval of the table (10.5, 2.5, 13 + 1 agreeing).
    p, q = 10.5 / 27, 2.5 / 27
    half = stats.norm.ppf(0.975) * math.sqrt((p + q - (p - q) ** 2) / 27)
    d = agresti_min([1.0] * 10 + [-1.0] * 2 + [0.0] * 13, 25)
    assert (d.estimate, d.low, d.high) == pytest.approx((8 / 25, p - q - half, p - q + half))
    assert paired([1, 0], [0, 0], rate=True).difference.method == "range"
    with pytest.raises(ValueError, match="0 and 1, not 2"):
        paired([1, 2], [0, 1], rate=True)


@pytest.mark.parametrize("seeds", [1, 3])
def test_an_interval_of_a_mean_covers_what_it_says(seeds: int):
    """Skewed scores near 1, 25 prompts; the seeds of a prompt correlate by about 0.75."""

    def draw(rng: np.random.Generator, seed: int) -> Interval:
        return mean_interval(named(correlated_beta(rng, 25, seeds)), seed=seed, resamples=1_500)

    assert 0.93 < coverage(draw, 8 / 9) < 0.97


def test_an_interval_that_takes_videos_for_prompts_does_not_cover():
    """The check above, passed to an implementation that bootstraps the 75 videos one by one, fails by far."""

    def draw(rng: np.random.Generator, seed: int) -> Interval:
        return bootstrap_interval(correlated_beta(rng, 25, 3).ravel().tolist(), 75, seed=seed, resamples=1_000)

    assert coverage(draw, 8 / 9, samples=300) < 0.85


def test_an_interval_of_a_paired_difference_covers_what_it_says():
    """Policy A is better by 0.02, more on some prompts than on others."""

    def draw(rng: np.random.Generator, seed: int) -> Interval:
        b = correlated_beta(rng, 25, 3)
        a = b + 0.02 + rng.normal(0, 0.03, (25, 1)) + rng.normal(0, 0.02, (25, 3))
        differences = by_prompt(named(a - b))[0].values()
        means = [float(np.mean(list(seeds.values()))) for seeds in differences]
        return bootstrap_interval(means, 75, seed=seed, resamples=1_500)

    assert 0.93 < coverage(draw, 0.02) < 0.97


def test_wilson_covers_what_it_says():
    """One seed a prompt, exactly: the count is binomial. At one p the steps show, so they are averaged over p too."""
    for n in (8, 25, 50):
        k = np.arange(n + 1)
        bounds = [rate_interval([1.0] * i + [0.0] * (n - i)) for i in k]
        low, high = np.array([b.low for b in bounds]), np.array([b.high for b in bounds])
        grid = np.linspace(0.1, 0.9, 81)
        held = [stats.binom.pmf(k, n, p)[(low <= p) & (p <= high)].sum() for p in grid]
        assert 0.93 < np.mean(held) < 0.97
        assert 0.93 < stats.binom.pmf(k, n, 0.5)[(low <= 0.5) & (high >= 0.5)].sum() < 0.97 or n == 8


@pytest.mark.parametrize("rho", [0.3, 0.9])
def test_wilson_covers_what_it_says_with_seeds_that_correlate(rho: float):
    rng = np.random.default_rng(7)
    held, naive = [], []
    for p in np.linspace(0.1, 0.9, 9):
        for _ in range(100):
            chance = rng.beta(p * (1 - rho) / rho, (1 - p) * (1 - rho) / rho, (25, 1))
            x = (rng.random((25, 3)) < chance).astype(float)
            found = rate_interval(named(x))
            held.append(found.low <= p <= found.high)
            low, high = wilson(float(x.mean()), 75)
            naive.append(low <= p <= high)
    assert 0.93 < np.mean(held) < 0.97
    assert np.mean(naive) < 0.91


@pytest.mark.parametrize(("against", "favour"), [(0.1, 0.3), (0.2, 0.2)])
def test_agresti_min_covers_what_it_says(against: float, favour: float):
    def draw(rng: np.random.Generator, seed: int) -> Interval:
        return agresti_min(rng.choice([-1.0, 0.0, 1.0], 25, p=[against, 1 - against - favour, favour]), 25)

    assert 0.93 < coverage(draw, favour - against) < 0.97
