"""A long video as a chain of clips, each of which starts from the last frame of the one before. Pure integers.

An image-to-video call gives its conditioning image back as its first frame, which the clip before has shown already:
that one is dropped. Every clip has the model's native length; what the last one has too much is cut off.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from irope.systems import ImpossibleError


@dataclass(frozen=True)
class Clip:
    """One call of a model.

    Attributes:
        index: its place in the chain, from 0.
        start: the frame of the video that its first new frame becomes.
        made: frames the model returns.
        repeated: how many of those at its beginning are the end of the clip before.
    """

    index: int
    start: int
    made: int
    repeated: int

    @property
    def stop(self) -> int:
        """The frame of the video after its last one."""
        return self.start + self.made - self.repeated


def chain(frames: int, native: int, repeated: int = 1) -> tuple[Clip, ...]:
    """The clips of ``native`` frames that a video of ``frames`` frames needs.

    ValueError unless there is a frame to make and a clip adds at least one.
    """
    if frames < 1 or not 0 <= repeated < native:
        raise ValueError(f"no chain of clips: frames={frames}, native={native}, repeated={repeated}")
    more = max(0, ceil((frames - native) / (native - repeated)))
    first = Clip(0, 0, native, 0)
    return (first, *(Clip(i, native + (i - 1) * (native - repeated), native, repeated) for i in range(1, 1 + more)))


def clip_seed(seed: int, index: int) -> int:
    """The seed of a clip: the video's own for the first, so that a short video is what the model's script makes."""
    if not index:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {index}".encode()).digest()[:4], "big")


def shots_of(clips: Sequence[Clip], shots: Sequence[tuple[int, int]], title: str) -> list[int]:
    """For every clip the number of its shot, where ``shots`` are (first frame, frame after the last), without gaps.

    A clip belongs to the shot that its middle lies in, so that a switch happens at the boundary between clips that is
    nearest to it.

    Raises:
        ImpossibleError: a shot would have no clip; the message starts with ``title``.
    """
    starts = [start for start, _ in shots]
    found = [bisect_right(starts, (clip.start + clip.stop) / 2) - 1 for clip in clips]
    for number, (start, stop) in enumerate(shots):
        if number not in found:
            raise ImpossibleError(
                f"{title}: a prompt can change between clips only, and none of the {len(clips)} clips of "
                f"{clips[0].made} frames has its middle in frames {start} to {stop - 1}"
            )
    return found


def moved_prompts(clips: Sequence[Clip], found: Sequence[int], starts: Sequence[int]) -> list[str]:
    """Where a prompt begins with a clip and not at its own frame, in words; ``found`` is what `shots_of` found."""
    begins = [clips[found.index(shot)].start for shot in range(len(starts))]
    pairs = zip(starts, begins, strict=True)
    return [f"the prompt of frame {a} begins at frame {b}, where a clip begins" for a, b in pairs if a != b]
