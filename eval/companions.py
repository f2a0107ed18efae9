"""Which scores a still picture wins, and the measure of motion that has to stand beside each of them."""

from __future__ import annotations

from collections.abc import Collection

WON_BY_STILLNESS = frozenset(
    {
        *("subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness"),
        *("feature_consistency", "border_consistency", "flicker", "flow_smoothness", "identity_kept"),
        *("first_window_consistency", "first_frame_consistency"),
        *("imaging_drift", "imaging_spread", "imaging_slope", "sink_collapse", "loops", "unrequested_cuts"),
    }
)
"""Scorers to which a frozen video looks perfect."""

_MOTION = ("dynamic_degree", "flow_motion", "motion")
"""Measures of motion, the one that readers of the protocol know first."""


def companion_of(scorer: str, chosen: Collection[str]) -> str | None:
    """The measure of motion to show beside a scorer.

    Args:
        chosen: scorers of the protocol or table at hand; `motion` runs in every protocol.

    Returns:
        One of ``chosen``; None if stillness does not win the score, or ``chosen`` has no measure of motion.
    """
    if scorer not in WON_BY_STILLNESS:
        return None
    return next((name for name in _MOTION if name in chosen), None)
