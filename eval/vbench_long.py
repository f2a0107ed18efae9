"""VBench-Long as a protocol: a window is cut into clips, which are scored one by one and averaged.

Facts on the official tool and the numbers behind them are in docs/vbench-long.md. Its two branches:

- slow: every scorer on every clip;
- fast, for subject and background consistency only: the first frames of the clips as a video of their own.

All clips of all windows are cut out of one pass over the video; a clip that two windows share is scored once.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain
from typing import Any, ClassVar, Literal

from eval.clip_features import NETWORKS, ClipFeatures
from eval.clip_scores import Scene, window_score
from eval.clips import FirstFrames, clip_frames, clips, copies, headed, scene_cuts, scenes, watched
from eval.one_pass import Outcome, Scored, completed, one_pass
from eval.protocol import CHUNK, Protocol
from eval.reader import VideoReader
from eval.registry import AnyScorer
from eval.scorer import Measurement, Runtime, Scorer, Skip, Take
from irope.errors import UserError

FAST = tuple(NETWORKS)
"""The dimensions that have a fast branch."""


class ClipsError(UserError, ValueError):
    """Settings of the protocol that are not valid, or not together."""


@dataclass(frozen=True)
class Clips(Protocol):
    """VBench-Long, without its lossy clips unless asked for.

    Attributes:
        seconds: length of a clip.
        clip_to_clip: weight w of the fast branch, (1 - w) * in-clip + w * clip-to-clip: 0.5 in the official tool with
            --dev_flag, as its documentation runs it, and 0 without.
        mapping: bring clip-to-clip similarities to the scale of in-clip ones first, with the official tables.
        features: networks of the fast branch: ``official``, DINOv2 and DreamSim, or the ``same`` as the slow branch's.
        reencode: score lossy copies of the clips: ``crf23`` are those of PyAV from 14.2, ``1mbit`` those before.
        scenes: cut at scene changes first, with this threshold of PySceneDetect's ContentDetector (officially 35); each
            scene is a long video of its own for the fast branch. Takes another pass over the video.
    """

    kind: ClassVar[str] = "clips"

    seconds: float = 2.0
    clip_to_clip: float = 0.5
    mapping: bool = True
    features: Literal["official", "same"] = "official"
    reencode: Literal["none", "crf23", "1mbit"] = "none"
    scenes: float | None = None

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ClipsError(f"seconds={self.seconds}: a clip has a length above 0, officially 2.0")
        if not 0 <= self.clip_to_clip <= 1:
            raise ClipsError(f"clip_to_clip={self.clip_to_clip}: expected a weight from 0 to 1, officially 0.5 or 0")
        if self.scenes is not None and self.scenes <= 0:
            raise ClipsError(f"scenes={self.scenes}: expected a threshold above 0, officially 35, or null")
        if self.scenes is not None and self.reencode != "none":
            raise ClipsError("scenes and reencode together would need scenes encoded as well: choose one of them")

    def unavailable(self, name: str) -> str | None:
        """Why this protocol cannot be run here for the scorer called ``name``, or None."""
        if self.scenes is not None and importlib.util.find_spec("scenedetect") is None:
            return "scene changes need PySceneDetect: pip install scenedetect-headless, or scenes=null"
        reason = ClipFeatures(NETWORKS[name]).unavailable() if self._weighs_official(name) else None
        if reason is not None:
            return f"{reason}; features=same takes the slow branch's network, clip_to_clip=0 the in-clip score alone"
        return None

    def identity(self, name: str) -> Mapping[str, Any]:
        """What a score depends on besides the settings: digests of the fast branch's weights, versions of packages."""
        used = {"av": self.reencode != "none", "scenedetect": self.scenes is not None}
        versions = {package: import_module(package).__version__ for package in used if used[package]}
        return versions | dict(ClipFeatures(NETWORKS[name]).identity() if self._weighs_official(name) else {})

    def _weighs_official(self, name: str) -> bool:
        return name in FAST and self.features == "official" and self.clip_to_clip > 0

    def score(
        self,
        video: VideoReader,
        windows: Sequence[Take],
        scorers: Mapping[str, AnyScorer],
        runtime: Runtime,
        report: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Scored]:
        """One `Scored` a window. A measurement has

        - value: the mean over clips of the fused score; the official tool's, when all its videos are averaged with the
          number of their clips as weight (``extra["clips"]``);
        - terms: those of all clips, the weight for the official frame-weighted in-clip score (``extra["inclip"]``);
        - extra: ``clips``; for the fast branch also ``inclip``, ``clip2clip``, ``mapped_clip2clip``;
        - curve: at every frame the score of the first clip that holds it.

        Derived scores are derived once, from the measurements of the window.
        """
        slow: dict[str, Scorer] = {}
        refused: dict[str, Outcome] = {}
        for name, scorer in scorers.items():
            if isinstance(scorer, Scorer):
                if (reason := self._refusal(name, windows[0])) is None:
                    slow[name] = scorer
                else:
                    refused[name] = Skip(reason)
        if not slow:
            yield from (completed(window, refused, scorers) for window in windows)
            return
        cuts = [] if self.scenes is None else scene_cuts(video.path, self.scenes)
        parts = {window: scenes(window, cuts) for window in windows}
        with ExitStack() as stack:
            branches = {
                scene: self._branch(scene, slow, runtime, stack) for scene in dict.fromkeys(chain(*parts.values()))
            }
            of = {window: [branches[scene] for scene in parts[window]] for window in windows}
            missing = {window: {clip for branch in of[window] for clip in branch.clips} for window in windows}
            found: dict[Take, Mapping[str, Outcome]] = {}
            for scored in self._clips(video, list(branches.values()), slow, runtime, report):
                # Without the curves: a video of an hour has 1800 clips.
                found[scored.take] = {name: _slim(outcome) for name, outcome in scored.outcomes.items()}
                for window in [window for window, left in missing.items() if scored.take in left]:
                    missing[window].remove(scored.take)
                    if not missing[window]:
                        outcomes = {name: self._fuse(window, name, of[window], found) for name in slow}
                        yield completed(window, refused | outcomes, scorers)

    def _fuse(
        self, window: Take, name: str, branches: Sequence[FirstFrames], found: Mapping[Take, Mapping[str, Outcome]]
    ) -> Outcome:
        told = [Scene(b.clips, [found[clip][name] for clip in b.clips], b.outcomes.get(name)) for b in branches]
        return window_score(window, name, told, self.clip_to_clip, self.mapping)

    def _branch(self, scene: Take, slow: Mapping[str, Scorer], runtime: Runtime, stack: ExitStack) -> FirstFrames:
        """The fast branch of a scene; networks that run anyway run here even where their weight is 0."""
        fast: dict[str, Scorer] = {}
        for name in FAST:
            if name in slow and self.features == "same":
                fast[name] = slow[name]
            elif name in slow and self.clip_to_clip > 0:
                fast[name] = ClipFeatures(NETWORKS[name])
        cut = clips(scene, clip_frames(scene.video.fps, self.seconds))
        codec = None if self.reencode == "none" else self.reencode
        return stack.enter_context(FirstFrames(cut, fast, runtime, codec))

    def _refusal(self, name: str, window: Take) -> str | None:
        facts = window.video
        if clip_frames(facts.fps, self.seconds) < 1:
            return f"a clip of {self.seconds:g} s has no frame at {facts.fps:g} frames per second"
        if self.reencode != "none" and (facts.height % 2 or facts.width % 2):
            return f"the official encoding needs even sides, not {facts.width}x{facts.height}: take reencode=none"
        return self.unavailable(name)

    def _clips(
        self,
        video: VideoReader,
        branches: Sequence[FirstFrames],
        slow: Mapping[str, Scorer],
        runtime: Runtime,
        report: Callable[[int], None],
    ) -> Iterator[Scored]:
        """Every clip of every branch, once, as soon as it is scored; by then the branches have seen its first frame."""
        takes = sorted({clip for branch in branches for clip in branch.clips}, key=lambda clip: (clip.start, clip.stop))
        chunks = video.chunks(CHUNK, takes[0].start, max(clip.stop for clip in takes))
        if self.reencode == "none":
            yield from one_pass(watched(chunks, branches), takes, slow, runtime, report)
            return
        for clip, copy in copies(chunks, takes, self.reencode):
            beginning = [branch for branch in branches if branch.begins(clip)]
            yield from one_pass(headed(copy, beginning), [clip], slow, runtime)
            report(clip.stop)


def _slim(outcome: Outcome) -> Outcome:
    return replace(outcome, curve=None) if isinstance(outcome, Measurement) else outcome
