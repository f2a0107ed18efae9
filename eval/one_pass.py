"""One pass over a video: decoded once, every chunk goes to every scorer of every take it touches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from eval.registry import AnyScorer
from eval.scorer import Accumulator, Chunk, Derived, Frames, Measurement, Pairs, Part, Runtime, Scorer, Skip, Take

Outcome = Measurement | Skip


@dataclass(frozen=True)
class Scored:
    """What the scorers say of one take, by name of the scorer."""

    take: Take
    outcomes: Mapping[str, Outcome]


def one_pass(
    chunks: Iterable[tuple[int, Frames]],
    takes: Sequence[Take],
    scorers: Mapping[str, AnyScorer],
    runtime: Runtime,
    report: Callable[[int], None] = lambda _: None,
) -> Iterator[Scored]:
    """Score every take with every scorer; each take is given out as soon as its last frame was seen.

    Memory depends on the chunk size and on how many takes overlap, not on the length of the video (a curve, eight
    bytes a frame and scorer, apart).

    Args:
        chunks: (index of the first frame, frames uint8 [n, H, W, 3]), in order, reaching to the end of every take.
        scorers: by name; a `Derived` one needs the scorers it is computed from among them.
        report: told the number of frames done after every chunk.

    Raises:
        ValueError: the chunks end before a take does.
    """
    waiting = sorted(set(takes), key=lambda take: (take.start, take.stop))
    running: list[Running] = []
    pairs = Pairs()
    for start, frames in chunks:
        chunk = Chunk(start, frames)
        while waiting and waiting[0].start < chunk.stop:
            running.append(Running(waiting.pop(0), scorers, runtime))
        for take in running:
            take.push(chunk, pairs)
        report(chunk.stop)
        pairs.forget(chunk.start)
        done = [take for take in running if take.take.stop <= chunk.stop]
        running = [take for take in running if take.take.stop > chunk.stop]
        for take in done:
            yield take.close()
        if not waiting and not running:
            return
    if waiting or running:
        last = max(take.stop for take in [*waiting, *(take.take for take in running)])
        raise ValueError(f"the video ended before frame {last}")


class Running:
    """One take while its frames come in: `push` them chunk by chunk, in order, then `close`."""

    def __init__(self, take: Take, scorers: Mapping[str, AnyScorer], runtime: Runtime) -> None:
        self.take, self._scorers = take, scorers
        self._found = {
            name: _open(scorer, take, runtime) for name, scorer in scorers.items() if isinstance(scorer, Scorer)
        }

    def push(self, chunk: Chunk, pairs: Pairs) -> None:
        """Hand the frames that the chunk and the take have in common to every scorer."""
        part = Part(chunk, self.take, pairs)
        for name, found in self._found.items():
            self._found[name] = _push(found, part)

    def close(self) -> Scored:
        return completed(self.take, {name: _close(found) for name, found in self._found.items()}, self._scorers)


def completed(take: Take, outcomes: Mapping[str, Outcome], scorers: Mapping[str, AnyScorer]) -> Scored:
    """Add the derived scores to ``outcomes``, those of every other scorer; in the order of ``scorers``."""
    known = dict(outcomes)
    for name, scorer in scorers.items():  # in the order given: a derived score may build on one before it
        if isinstance(scorer, Derived):
            known[name] = _derive(scorer, take, known)
    return Scored(take, {name: known[name] for name in scorers})


def _open(scorer: Scorer, take: Take, runtime: Runtime) -> Accumulator | Outcome:
    if (reason := scorer.unavailable()) is not None:
        return Skip(reason)
    try:
        return scorer.open(take, runtime)
    except Skip as skip:
        return skip


def _push(accumulator: Accumulator | Outcome, part: Part) -> Accumulator | Outcome:
    if isinstance(accumulator, Measurement | Skip):
        return accumulator
    try:
        accumulator.push(part)
    except Skip as skip:
        return skip
    return accumulator


def _close(accumulator: Accumulator | Outcome) -> Outcome:
    if isinstance(accumulator, Measurement | Skip):
        return accumulator
    try:
        return accumulator.close()
    except Skip as skip:
        return skip


def _derive(scorer: Derived, take: Take, outcomes: Mapping[str, Outcome]) -> Outcome:
    if (reason := scorer.unavailable()) is not None:
        return Skip(reason)
    found: dict[str, Measurement] = {}
    for name in scorer.of:
        outcome = outcomes.get(name, Skip(f"it needs the scorer {name}, which was not chosen"))
        if isinstance(outcome, Skip):
            return Skip(f"{name} was skipped: {outcome}" if name in outcomes else str(outcome))
        found[name] = outcome
    try:
        return scorer.derive(take, found)
    except Skip as skip:
        return skip
