"""The one pass: any chunking gives the same scores, and a take is scored as if it had been cut out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.one_pass import one_pass
from eval.scorer import Derived, Frames, Measurement, Part, Runtime, Scorer, Skip, Span, Take, VideoFacts
from eval.scorers.vbench.temporal_flickering import TemporalFlickering

VIDEO = np.random.default_rng(0).integers(0, 256, (60, 6, 8, 3), np.uint8)
FACTS = VideoFacts("v", len(VIDEO), 16.0, 6, 8, (Span(0, 40, "a"), Span(40, 60, "b", cut=True)))


def chunks(size: int, frames: Frames = VIDEO) -> Iterator[tuple[int, Frames]]:
    for start in range(0, len(frames), size):
        yield start, frames[start : start + size]


def flickering(frames: Frames) -> float:
    """VBench's formula, written plainly in float64."""
    return float(1 - np.abs(np.diff(frames.astype(np.float64), axis=0)).mean() / 255)


def scores(
    size: int, takes: Sequence[Take], scorers: Mapping[str, Scorer | Derived]
) -> dict[Take, Mapping[str, object]]:
    return {scored.take: scored.outcomes for scored in one_pass(chunks(size), takes, scorers, Runtime())}


@given(
    size=st.integers(1, 70),
    windows=st.lists(st.tuples(st.integers(0, 57), st.integers(2, 60)), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_every_take_scores_as_if_it_had_been_cut_out_whatever_the_chunks(size, windows):
    takes = [Take(FACTS, a, min(60, a + n)) for a, n in windows]
    found = scores(size, takes, {"flicker": TemporalFlickering()})
    assert set(found) == set(takes)
    for take, outcomes in found.items():
        outcome = outcomes["flicker"]
        assert isinstance(outcome, Measurement)
        assert outcome.value == pytest.approx(flickering(VIDEO[take.start : take.stop]), abs=1e-12)
        assert outcome.terms == take.frames - 1
        assert outcome.curve is not None
        assert len(outcome.curve) == take.frames
        assert np.nanmean(outcome.curve) == pytest.approx(outcome.value)


@dataclass(frozen=True)
class Counting(Scorer):
    """Counts how often a frame is computed: sharing must make that once."""

    family = "embedded"

    def open(self, take: Take, runtime: Runtime) -> Counting._Sum:
        return self._Sum()

    class _Sum:
        calls: list[int] = []  # noqa: RUF012 - shared on purpose

        def __init__(self) -> None:
            self.total = 0.0

        def push(self, part: Part) -> None:
            self.total += float(part.rows("mean", self.means).sum())

        @classmethod
        def means(cls, frames: Frames) -> np.ndarray:
            cls.calls.append(len(frames))
            return frames.mean((1, 2, 3))

        def close(self) -> Measurement:
            return Measurement(self.total)


@dataclass(frozen=True)
class Doubled(Derived):
    source_scorer: str = "sum"

    @property
    def of(self) -> Sequence[str]:
        return (self.source_scorer,)

    def derive(self, take: Take, found: Mapping[str, Measurement]) -> Measurement:
        return Measurement(2 * found[self.source_scorer].value)


def test_overlapping_takes_share_what_is_computed_of_a_frame():
    Counting._Sum.calls.clear()
    takes = [Take(FACTS, 0, 20), Take(FACTS, 0, 60), Take(FACTS, 10, 30)]
    found = scores(7, takes, {"sum": Counting(), "again": Counting(), "twice": Doubled()})
    assert sum(Counting._Sum.calls) == 60
    for take, outcomes in found.items():
        expected = VIDEO[take.start : take.stop].mean((1, 2, 3)).sum()
        assert outcomes["sum"].value == outcomes["again"].value == pytest.approx(expected)
        assert outcomes["twice"].value == pytest.approx(2 * expected)


def test_a_derived_score_says_what_it_misses():
    found = scores(8, [Take(FACTS, 0, 1)], {"sum": TemporalFlickering(), "twice": Doubled(), "lone": Doubled("other")})
    outcomes = next(iter(found.values()))
    assert str(outcomes["sum"]) == "one frame has no neighbour"
    assert str(outcomes["twice"]) == "sum was skipped: one frame has no neighbour"
    assert "needs the scorer other" in str(outcomes["lone"])
    assert all(isinstance(outcome, Skip) for outcome in outcomes.values())


def test_takes_are_given_out_as_they_end_and_reading_stops_after_the_last():
    read: list[int] = []

    def watched() -> Iterator[tuple[int, Frames]]:
        for start, frames in chunks(10):
            read.append(start)
            yield start, frames

    takes = [Take(FACTS, 0, 35), Take(FACTS, 0, 12), Take(FACTS, 5, 15)]
    ends = []
    for scored in one_pass(watched(), takes, {"flicker": TemporalFlickering()}, Runtime()):
        ends.append((scored.take.stop, read[-1]))
    assert ends == [(12, 10), (15, 10), (35, 30)]


def test_a_video_that_ends_early_is_an_error_not_a_shorter_score():
    longer = VideoFacts("v", 80, 16.0, 6, 8)
    with pytest.raises(ValueError, match="before frame 80"):
        list(one_pass(chunks(16), [Take(longer, 0, 80)], {"flicker": TemporalFlickering()}, Runtime()))


def test_segments_of_a_take_are_counted_from_its_start():
    assert Take(FACTS, 0, 30).spans == (Span(0, 30, "a"),)
    assert Take(FACTS, 30, 50).spans == (Span(0, 10, "a"), Span(10, 20, "b", cut=True))
    assert Take(FACTS, 40, 60).spans == (Span(0, 20, "b"),), "a cut on the first frame cuts nothing"
