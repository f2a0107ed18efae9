"""VBench's combined scores: quality (the paper's "Overall"), semantic, total, and quality without dynamic degree.

A dimension is normalised, ``(score - low) / (high - low)`` without clipping, and the combined score is the weighted
mean. Scores are 0..1 everywhere; the names are VBench's, with underscores. The formulas are affine, so that the score
of the means over videos is the mean of the scores of the videos.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from irope.errors import UserError

Scores = Mapping[str, float | None]
Missing = Literal["raise", "zero"]


@dataclass(frozen=True)
class Dimension:
    """Range to normalise by, and weight in the combined score."""

    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0


# Source of every constant: Vchitect/VBench, scripts/constant.py (45e79ec).
QUALITY: dict[str, Dimension] = {
    "subject_consistency": Dimension(low=0.1462),
    "background_consistency": Dimension(low=0.2615),
    "temporal_flickering": Dimension(low=0.6293),
    "motion_smoothness": Dimension(low=0.706, high=0.9975),
    "aesthetic_quality": Dimension(),
    "imaging_quality": Dimension(),
    "dynamic_degree": Dimension(weight=0.5),
}
SEMANTIC: dict[str, Dimension] = {
    "object_class": Dimension(),
    "multiple_objects": Dimension(),
    "human_action": Dimension(),
    "color": Dimension(),
    "spatial_relationship": Dimension(),
    "scene": Dimension(high=0.8222),
    "appearance_style": Dimension(low=0.0009, high=0.2855),
    "temporal_style": Dimension(high=0.364),
    "overall_consistency": Dimension(high=0.364),
}
QUALITY_SHARE, SEMANTIC_SHARE = 4, 1
STILL: dict[str, Dimension] = {name: dim for name, dim in QUALITY.items() if name != "dynamic_degree"}

TEMPORAL_SMOOTHNESS: Mapping[str, str] = {
    "motion_smoothness": "temporal smoothness (motion smoothness)",
    "temporal_flickering": "temporal smoothness (1 − flicker)",
}
"""The Δ table's "temporal smoothness" is no VBench dimension and may mean either: both are reported, labelled so.

VBench's temporal_flickering already is 1 − flicker: one minus the mean absolute difference of neighbouring frames.
"""


class ScoreError(UserError, ValueError):
    """Scores that cannot be combined: dimensions missing, or a score that is not 0..1."""


def missing_dimensions(scores: Scores, dimensions: Iterable[str]) -> list[str]:
    """Those of ``dimensions`` without a score; None and NaN are no score."""
    return [name for name in dimensions if (value := scores.get(name)) is None or math.isnan(value)]


def quality(scores: Scores, missing: Missing = "raise") -> float:
    """VBench's quality score of seven dimensions, which the ∞-RoPE paper prints as Overall.

    Args:
        scores: dimension -> score in 0..1 of one video, or means over videos; other names are ignored.
        missing: ``zero`` puts a raw 0 for a missing dimension, as VBench's script does. Most become *negative* by the
            normalisation (motion smoothness −2.4), so the result is good for nothing but reproducing that script.

    Raises:
        ScoreError: naming the dimensions that are missing, or a score outside 0..1 (percent, say).
    """
    return _combine(scores, QUALITY, missing, "quality")


def overall_without_dynamic(scores: Scores, missing: Missing = "raise") -> float:
    """Quality of the six dimensions other than dynamic degree, normalised alike, equal weights; ours, not VBench's.

    Dynamic degree is one bit per video and the noisiest term: it decides the paper's order at 120 s.

    Raises:
        ScoreError: as `quality`.
    """
    return _combine(scores, STILL, missing, "overall_without_dynamic")


def semantic(scores: Scores, missing: Missing = "raise") -> float:
    """VBench's semantic score of nine dimensions, for its standard prompts only.

    Raises:
        ScoreError: as `quality`.
    """
    return _combine(scores, SEMANTIC, missing, "semantic")


def total(scores: Scores, missing: Missing = "raise") -> float:
    """VBench's total score, (4 quality + semantic) / 5.

    Raises:
        ScoreError: as `quality`; all sixteen dimensions are needed.
    """
    _check(scores, QUALITY | SEMANTIC, missing, "total")
    weighted = QUALITY_SHARE * quality(scores, missing) + SEMANTIC_SHARE * semantic(scores, missing)
    return weighted / (QUALITY_SHARE + SEMANTIC_SHARE)


def combined(scores: Scores) -> dict[str, float | None]:
    """The four combined scores by name, None for those of which a dimension is missing.

    Raises:
        ScoreError: a score outside 0..1.
    """
    made = {
        "quality": quality,
        "overall_without_dynamic": overall_without_dynamic,
        "semantic": semantic,
        "total": total,
    }
    needs = {"quality": QUALITY, "overall_without_dynamic": STILL, "semantic": SEMANTIC, "total": QUALITY | SEMANTIC}
    return {name: None if missing_dimensions(scores, needs[name]) else make(scores) for name, make in made.items()}


def mean_scores(videos: Iterable[Scores]) -> dict[str, float]:
    """Mean of every dimension over videos, for the functions above.

    Raises:
        ScoreError: no video, or a dimension that only some of them have: means over different videos do not combine.
    """
    rows = list(videos)
    if not rows:
        raise ScoreError("no video to average")
    names = sorted({name for row in rows for name in row if not missing_dimensions(row, [name])})
    for name in names:
        if lacking := sum(bool(missing_dimensions(row, [name])) for row in rows):
            raise ScoreError(f"{name} is missing in {lacking} of {len(rows)} videos; average the videos that have it")
    return {name: math.fsum(_number(row, name) for row in rows) / len(rows) for name in names}


def _number(scores: Scores, name: str) -> float:
    value = scores.get(name)
    return 0.0 if value is None or math.isnan(value) else float(value)


def _check(scores: Scores, dimensions: Mapping[str, Dimension], missing: Missing, what: str) -> None:
    absent = missing_dimensions(scores, dimensions)
    if absent and missing != "zero":
        raise ScoreError(f"{what} needs {len(dimensions)} dimensions; missing: {', '.join(absent)}")
    for name in dimensions:
        # A cosine may be a little below 0, and float32 a little above 1.
        if not -1 <= (value := _number(scores, name)) <= 1 + 1e-4:
            raise ScoreError(f"{name} is {value:g}; scores are 0..1 here (divide a percentage by 100)")


def _combine(scores: Scores, dimensions: Mapping[str, Dimension], missing: Missing, what: str) -> float:
    _check(scores, dimensions, missing, what)
    terms = [dim.weight * (_number(scores, name) - dim.low) / (dim.high - dim.low) for name, dim in dimensions.items()]
    return math.fsum(terms) / math.fsum(dim.weight for dim in dimensions.values())
