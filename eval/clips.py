"""How VBench-Long cuts a video: into scenes, these into clips, and the first frames of clips into its fast branch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from eval.one_pass import Outcome, Running
from eval.protocol import CHUNK
from eval.reencode import Codec, Reencoded
from eval.scorer import Chunk, Frames, Pairs, Runtime, Scorer, Take

Chunks = Iterator[tuple[int, Frames]]


def clip_frames(fps: float, seconds: float) -> int:
    """Frames of a clip; like the official tool it drops the fraction of the rate, so 2 s at 23.976 fps are 46."""
    return int(int(fps) * seconds)


def clips(scene: Take, length: int) -> list[Take]:
    """Clips of ``length`` frames. What remains makes one more, which starts earlier, so that it is as long.

    A scene shorter than ``length`` is one clip.
    """
    starts = list(range(scene.start, scene.stop - length + 1, length)) or [scene.start]
    if starts[-1] + length < scene.stop:
        starts.append(scene.stop - length)
    return [Take(scene.video, start, min(start + length, scene.stop)) for start in starts]


def scenes(window: Take, cuts: Sequence[int]) -> list[Take]:
    """The window, cut before the frames ``cuts`` of the video, in order."""
    edges = [window.start, *(cut for cut in cuts if window.start < cut < window.stop), window.stop]
    return [Take(window.video, start, stop) for start, stop in pairwise(edges)]


def scene_cuts(path: Path, threshold: float) -> list[int]:
    """Where a new scene begins, found by PySceneDetect's ContentDetector as the official tool does."""
    from scenedetect import ContentDetector, detect

    found = detect(str(path), ContentDetector(threshold=threshold))
    return [start.frame_num if hasattr(start, "frame_num") else start.get_frames() for start, _ in found][1:]


class FirstFrames:
    """The fast branch of one scene: the first frames of its clips, scored as a video as soon as they are seen.

    A scene of one clip has none. Frames must be shown to `see` in order.

    Args:
        scorers: of the fast branch.
        codec: the frames are encoded once more before they are scored, as the official tool does.
    """

    def __init__(
        self, clips: Sequence[Take], scorers: Mapping[str, Scorer], runtime: Runtime, codec: Codec | None = None
    ) -> None:
        self.clips = clips
        self._seen = 0
        self._running: Running | None = None
        self._copy: Reencoded | None = None
        if scorers and len(clips) > 1:
            facts = replace(clips[0].video, frames=len(clips), spans=())
            self._running = Running(Take(facts, 0, len(clips)), scorers, runtime)
            self._copy = Reencoded(codec, int(facts.fps)) if codec else None

    def begins(self, clip: Take) -> bool:
        """Whether the next frame to be seen is the first one of this clip."""
        return self._seen < len(self.clips) and self.clips[self._seen] == clip

    def see(self, start: int, frames: Frames) -> None:
        """Frames ``start`` and following of the video; those that begin a clip are taken."""
        while self._seen < len(self.clips) and (at := self.clips[self._seen].start - start) < len(frames):
            if self._copy:
                self._copy.write(frames[at : at + 1])
            else:
                self._push(self._seen, frames[at : at + 1])
            self._seen += 1

    def _push(self, start: int, frames: Frames) -> None:
        if self._running:
            self._running.push(Chunk(start, frames), Pairs())

    @cached_property
    def outcomes(self) -> Mapping[str, Outcome]:
        """What the scorers say, by name, once all frames were seen; nothing for a scene of one clip."""
        if self._copy:
            for start, frames in self._copy.chunks(CHUNK):
                self._push(start, frames)
        return self._running.close().outcomes if self._running else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._copy:
            self._copy.close()


def watched(chunks: Iterable[tuple[int, Frames]], branches: Iterable[FirstFrames]) -> Chunks:
    """The chunks as they are, shown to the branches on the way."""
    for start, frames in chunks:
        for branch in branches:
            branch.see(start, frames)
        yield start, frames


def headed(chunks: Iterable[tuple[int, Frames]], branches: Iterable[FirstFrames]) -> Chunks:
    """The chunks of one clip as they are; the branches are shown its first frame and no other."""
    for number, (start, frames) in enumerate(chunks):
        for branch in branches if number == 0 else ():
            branch.see(start, frames[:1])
        yield start, frames


def copies(chunks: Iterable[tuple[int, Frames]], clips: Sequence[Take], codec: Codec) -> Iterator[tuple[Take, Chunks]]:
    """Each clip with the chunks of its lossy copy, which must be read before the next clip is asked for.

    Args:
        clips: in the order of their starts. Only those that overlap are encoded at the same time.
    """
    waiting, open_copies = list(clips), dict[Take, Reencoded]()
    try:
        for start, frames in chunks:
            stop = start + len(frames)
            while waiting and waiting[0].start < stop:
                clip = waiting.pop(0)
                open_copies[clip] = Reencoded(codec, int(clip.video.fps))
            for clip, copy in list(open_copies.items()):
                copy.write(frames[max(clip.start - start, 0) : clip.stop - start])
                if clip.stop <= stop:
                    with open_copies.pop(clip):
                        yield clip, copy.chunks(CHUNK, clip.start)
    finally:
        for copy in open_copies.values():
            copy.close()
