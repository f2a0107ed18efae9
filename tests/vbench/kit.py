"""Score frames held in memory, chunk by chunk, with one scorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.one_pass import Outcome, one_pass
from eval.registry import make_scorer
from eval.scorer import Measurement, Runtime, Span, Take, VideoFacts

RUNTIME = Runtime()


def outcomes(
    name: str,
    frames: NDArray[np.uint8],
    windows: Sequence[tuple[int, int]] = (),
    chunk: int = 4,
    fps: float = 16.0,
    prompts: Sequence[str] = (),
    runtime: Runtime = RUNTIME,
    **settings: Any,
) -> list[Outcome]:
    """What the scorer says of each window (start, stop), sorted; of the whole video without any.

    Args:
        prompts: of segments of equal length.
    """
    edges = np.linspace(0, len(frames), len(prompts) + 1).astype(int)
    spans = tuple(Span(int(a), int(b), text) for a, b, text in zip(edges[:-1], edges[1:], prompts, strict=True))
    facts = VideoFacts("clip", len(frames), fps, *frames.shape[1:3], spans=spans)
    takes = [Take(facts, start, stop) for start, stop in windows or [(0, len(frames))]]
    chunks = ((at, frames[at : at + chunk]) for at in range(0, len(frames), chunk))
    found = {s.take: s.outcomes[name] for s in one_pass(chunks, takes, {name: make_scorer(name, settings)}, runtime)}
    return [found[take] for take in takes]


def measured(*arguments: Any, **named: Any) -> Measurement:
    """As `outcomes`, of the first window, which must have a number."""
    outcome = outcomes(*arguments, **named)[0]
    assert isinstance(outcome, Measurement), outcome
    return outcome
