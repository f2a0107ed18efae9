"""The only place where seconds become blocks: the segments of a script laid over whole blocks of latent frames.

Total length (published rule): floor(fps * seconds) / stride latent frames, rounded up to whole blocks. Boundaries
between segments lie at the block nearest to their cumulative time, so that rounding errors do not add up. One block
counts as stride * block pixel frames (0.75 s at 16 fps). Users import these names from `irope.script`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil, floor, isfinite
from typing import Any, Literal, NoReturn, get_args

from irope.errors import UserError
from irope.policy import CacheEvent
from irope.settings import hint

Rounding = Literal["nearest", "published"]
"""How a boundary finds its block: nearest to the cumulative time, or floor(duration) per segment (errors add up)."""

_CARET_MARGIN = 60  # characters of a long line shown on both sides of the caret


@dataclass(frozen=True)
class Source:
    """Where a script was read: file name, line (from 1) and the text of that line."""

    file: str = "<text>"
    line: int = 1
    text: str = ""


class ScriptError(UserError, ValueError):
    """A prompt script, or a duration, is not valid. The message names file, line and column and shows the place."""

    def __init__(self, message: str, source: Source | None = None, column: int | None = None) -> None:
        self.source, self.column = source, column
        if source is not None:
            where = f"{source.file}:{source.line}" + (f":{column}" if column else "")
            message = f"{where}: {message}"
            if column and source.text:
                start = max(0, column - 1 - _CARET_MARGIN)
                excerpt = source.text[start : column + _CARET_MARGIN].replace("\t", " ")
                message += f"\n  {excerpt}\n  {' ' * (column - 1 - start)}^"
        super().__init__(message)


@dataclass(frozen=True)
class Clock:
    """How time runs in a generator: pixel frames per second, latent frames per block, pixel frames per latent frame.

    The first latent frame decodes to one pixel frame, every other one to `stride`.
    """

    fps: int = 16
    block: int = 3
    stride: int = 4

    def blocks_at(self, seconds: Fraction) -> Fraction:
        """Blocks that begin within `seconds`, not rounded."""
        return seconds * self.fps / (self.stride * self.block)

    @property
    def per_block(self) -> float:
        """Nominal seconds of one block."""
        return self.stride * self.block / self.fps

    @property
    def shortest(self) -> str:
        """Hint for a duration that is too short."""
        return f"nearest valid duration: {self.per_block:g} s (1 block)"

    def whole_blocks(self, latents: int) -> int:
        """Blocks of `latents` latent frames; ScriptError with the nearest valid numbers if they are not whole."""
        below = latents // self.block * self.block
        if latents <= 0 or below != latents:
            valid = " or ".join(str(n) for n in (below, below + self.block) if n > 0) if latents > 0 else self.block
            raise ScriptError(
                f"{latents} latent frames are not whole blocks of {self.block}; nearest valid: {valid} latent frames"
            )
        return latents // self.block

    def latents(self, seconds: float) -> int:
        """Latent frames of a video of `seconds`: floor(fps * seconds) / stride, rounded up to whole blocks (published).

        Raises ScriptError for a duration that is not positive or too short for a pixel frame.
        """
        pixels = floor(_exact(seconds) * self.fps) if isfinite(seconds) else 0
        if pixels <= 0:
            raise ScriptError(f"a video of {seconds:g} s has no frame; {self.shortest}")
        return ceil(Fraction(pixels, self.stride * self.block)) * self.block

    def pixels(self, latents: int) -> int:
        """Pixel frames that `latents` latent frames decode to."""
        return 1 + self.stride * (latents - 1) if latents > 0 else 0

    def seconds(self, latents: int) -> float:
        """Real length in seconds of `latents` decoded latent frames."""
        return self.pixels(latents) / self.fps


CLOCK = Clock()
"""Wan2.1 and the embedded model: 16 fps, blocks of 3 latent frames, 4 pixel frames each."""


@dataclass(frozen=True)
class Segment:
    """One prompt of a script; `seconds` is None where the rest of the duration is shared; `cut` cuts at its start."""

    prompt: str
    seconds: float | None = None
    cut: bool = False
    subtitle: str | None = None
    column: int = field(default=1, compare=False, repr=False)


@dataclass(frozen=True)
class TimedSegment:
    """Blocks start_block .. stop_block - 1 under one prompt."""

    start_block: int
    stop_block: int
    prompt: str
    cut: bool = False
    subtitle: str | None = None


@dataclass(frozen=True)
class Timeline:
    """A script in whole blocks; `rounding` says in words where time was rounded."""

    blocks: int
    segments: tuple[TimedSegment, ...]
    rounding: tuple[str, ...] = field(default=(), compare=False)
    clock: Clock = CLOCK

    def segment(self, block: int) -> int:
        """Number of the segment that `block` belongs to; IndexError outside the video."""
        for number, segment in enumerate(self.segments):
            if segment.start_block <= block < segment.stop_block:
                return number
        raise IndexError(f"block {block} is outside the video of {self.blocks} blocks (0..{self.blocks - 1})")

    def event(self, block: int) -> CacheEvent:
        """What happens at `block`: SCENE_CUT or PROMPT_SWITCH where a later segment starts, else BLOCK."""
        number = self.segment(block)
        segment = self.segments[number]
        if number == 0 or block != segment.start_block:
            return CacheEvent.BLOCK
        return CacheEvent.SCENE_CUT if segment.cut else CacheEvent.PROMPT_SWITCH

    def prompt(self, block: int) -> str:
        """The prompt `block` is generated under."""
        return self.segments[self.segment(block)].prompt

    @property
    def latents(self) -> int:
        """Latent frames of the video."""
        return self.blocks * self.clock.block

    def seconds(self, block: int) -> float:
        """Time at which the first pixel frame of `block` is shown; `blocks` gives the length of the video."""
        return self.clock.seconds(block * self.clock.block)

    def canonical(self) -> dict[str, Any]:
        """All that the generator depends on, as JSON: two timelines with equal canonical forms give the same video."""
        spans = [[s.start_block, s.stop_block, s.prompt, s.cut] for s in self.segments]
        return {"blocks": self.blocks, "segments": spans}


def lay_out(
    segments: Sequence[Segment],
    source: Source | None = None,
    seconds: float | None = None,
    latents: int | None = None,
    clock: Clock = CLOCK,
    rounding: Rounding = "nearest",
) -> Timeline:
    """Lay segments over whole blocks of a video of `seconds`, or of exactly `latents` latent frames.

    With neither, the video is as long as its segments together. Segments without a duration share the rest.
    Raises ScriptError where that is impossible, naming the nearest valid value; `source` says where they were read.
    """
    if rounding not in get_args(Rounding):
        raise ScriptError(f"unknown rounding {rounding!r}{hint(rounding, get_args(Rounding))}")

    def fail(segment: int, message: str) -> NoReturn:
        raise ScriptError(message, source, segments[segment].column)

    for number, s in enumerate(segments):
        if s.seconds is not None and not (isfinite(s.seconds) and s.seconds > 0):
            fail(number, f"segment {number + 1} lasts {s.seconds:g} s; {clock.shortest}")
    given = sum((_exact(s.seconds) for s in segments if s.seconds is not None), Fraction(0))
    unset = [number for number, s in enumerate(segments) if s.seconds is None]
    total, blocks = _total(seconds, latents, clock, given, bool(unset))
    if total is None:
        fail(unset[0], f"segment {unset[0] + 1} has no duration: write [5s] behind it, or give the video a duration")
    if given > total or (bool(unset) == (given == total)):
        wanted = f"{_text(given)} s" + (f" and leave nothing for {len(unset)} more" if unset else "")
        fail(
            max(number for number, s in enumerate(segments) if s.seconds is not None),
            f"the segments last {wanted}, but the video lasts {_text(total)} s; "
            f"nearest valid: a video of {'more than ' if unset else ''}{_text(given)} s",
        )
    spans = [(total - given) / len(unset) if s.seconds is None else _exact(s.seconds) for s in segments]
    stops = [*_boundaries(spans, clock, rounding), blocks]
    starts = [0, *stops[:-1]]
    for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        if stop <= start:
            fail(
                number,
                f"segment {number + 1} of {_text(spans[number])} s gets none of the {blocks} blocks; {clock.shortest}",
            )
    timed = tuple(
        TimedSegment(start, stop, s.prompt, s.cut, s.subtitle)
        for start, stop, s in zip(starts, stops, segments, strict=True)
    )
    timeline = Timeline(blocks, timed, clock=clock)
    return replace(timeline, rounding=tuple(_notes(timeline, total, spans)))


def _total(
    seconds: float | None, latents: int | None, clock: Clock, given: Fraction, some_unset: bool
) -> tuple[Fraction | None, int]:
    """Requested seconds (None: cannot be known) and whole blocks of the video; `given`: what the segments add up to."""
    if seconds is not None and latents is not None:
        raise ScriptError(f"give seconds ({seconds:g}) or latents ({latents}), not both")
    if seconds is not None:
        blocks = clock.latents(seconds) // clock.block
        return _exact(seconds), blocks
    if latents is not None:
        blocks = clock.whole_blocks(latents)
        # 5 s become 21 latent frames: segments that add up to 5 s agree with 21.
        agree = not some_unset and clock.latents(float(given)) == latents
        return (given if agree else Fraction(latents * clock.stride, clock.fps)), blocks
    if some_unset:
        return None, 0
    return given, clock.latents(float(given)) // clock.block


def _boundaries(spans: Sequence[Fraction], clock: Clock, rounding: Rounding) -> Iterator[int]:
    """First block of the second, third, ... segment."""
    time, block = Fraction(0), 0
    for span in spans[:-1]:
        time += span
        block = block + floor(clock.blocks_at(span)) if rounding == "published" else _round(clock.blocks_at(time))
        yield block


def _notes(timeline: Timeline, total: Fraction, spans: Sequence[Fraction]) -> Iterator[str]:
    """Every place where the video differs from what was asked, in words."""
    clock, real = timeline.clock, timeline.seconds(timeline.blocks)
    if real != total:
        yield (
            f"asked for {_text(total)} s, the video lasts {real:g} s: {timeline.latents} latent frames "
            f"({timeline.blocks} blocks of {clock.block}) decode to {round(real * clock.fps)} frames at {clock.fps} fps"
        )
    asked = Fraction(0)
    for number, segment in enumerate(timeline.segments[1:], start=2):
        asked += spans[number - 2]
        block, start = segment.start_block, timeline.seconds(segment.start_block)
        if start != asked:
            yield f"segment {number} was to start at {_text(asked)} s, it starts at {start:g} s (block {block})"


def _exact(number: float) -> Fraction:
    """The decimal number that was written, so that 0.1 + 0.2 is 0.3."""
    return Fraction(repr(float(number)))


def _round(number: Fraction) -> int:
    return floor(number + Fraction(1, 2))


def _text(number: Fraction) -> str:
    return f"{float(number):.12g}"
