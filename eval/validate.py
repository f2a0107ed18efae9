"""Does each scorer notice what it is for, and nothing else? Scores of distorted clips against those of the clips.

What to expect is declared in `EXPECTED` before anything is measured: the direction a score must move, or that it must
be blind. A pair of scorer and distortion that is not declared is measured and shown, and not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from eval.distortions import CLIP_SETS, Clip, ClipSet, distorted
from eval.one_pass import one_pass
from eval.registry import AnyScorer, make_scorer, scorers
from eval.scorer import Frames, Measurement, Runtime, Take
from eval.stats import Interval, mean_interval

STRENGTHS = (0.5, 1.0)
BLIND = 0.1
"""A score is blind to a distortion that moves it by less than this share of what moves it most in the same clips."""

_CHUNK = 32

Move = Literal["up", "down", "blind"]

_FRAME_ORDER: dict[str, Move] = {"reversal": "blind", "freeze": "blind", "loop": "blind", "stutter": "blind"}
"""What only rearranges frames cannot change a measure of single frames by much."""

EXPECTED: dict[str, dict[str, Move]] = {
    "feature_consistency": {"freeze": "up", "cut": "down", "identity_drift": "down", "reversal": "blind"},
    "border_consistency": {"freeze": "up", "cut": "down", "reversal": "blind"},
    "flicker": {"noise": "down", "freeze": "up", "reversal": "blind"},
    "flow_smoothness": {"noise": "down", "freeze": "up", "stutter": "down", "reversal": "blind"},
    "flow_motion": {"freeze": "down", "reversal": "blind"},
    "flow_dynamic": {"freeze": "down", "reversal": "blind"},
    "sharpness": {"blur": "down", **_FRAME_ORDER},
    "noise": {"noise": "up", **_FRAME_ORDER},
    "clipping": {"saturation": "up", **_FRAME_ORDER},
    "colourfulness": {"saturation": "up", **_FRAME_ORDER},
    "imaging": {"noise": "down", "blur": "down", "saturation": "down", **_FRAME_ORDER},
    "world_prompt": {"freeze": "down", "cut": "down", "identity_drift": "down", "reversal": "down"},
    "switch_latency": {"late_switch": "up", "identity_lost": "blind", "background_kept": "up"},
    "identity_kept": {"identity_lost": "down", "late_switch": "blind", "background_kept": "blind"},
    "background_change": {"background_kept": "down", "late_switch": "blind", "identity_lost": "blind"},
    "motion": {"freeze": "down", "reversal": "blind"},
    "freeze": {"freeze": "up", "stutter": "up", "reversal": "blind", "blur": "blind"},
    "loops": {"loop": "up", "reversal": "blind", "noise": "blind", "blur": "blind"},
    "no_repeat": {"loop": "down", "reversal": "blind"},
    "unrequested_cuts": {"cut": "up", "loop": "up", "noise": "blind", "identity_drift": "blind", "reversal": "blind"},
    "first_frame_consistency": {"cut": "down", "identity_drift": "down"},
    "first_window_consistency": {"cut": "down", "identity_drift": "down", "reversal": "blind"},
}

_OF_SET: dict[tuple[str, str], dict[str, Move]] = {
    # Only the subject drifts in the embedded world; in the photographs everything does.
    ("world", "border_consistency"): {"identity_drift": "blind"},
    ("photo", "border_consistency"): {"identity_drift": "down"},
}


def expected(clip_set: str, scorer: str, distortion: str) -> Move | None:
    """What is declared of a scorer, or None."""
    declared = EXPECTED.get(scorer, {}) | _OF_SET.get((clip_set, scorer), {})
    return declared.get(distortion)


@dataclass(frozen=True)
class Effect:
    """What one distortion does to one score in one set of clips.

    Attributes:
        clean: mean score of the clips as they are.
        means: mean change of the score at each of ``strengths``, over the clips.
        interval: of the change at the largest strength, paired by clip.
        scale: the largest mean change, at full strength, that any distortion causes in this set.
    """

    clip_set: str
    scorer: str
    distortion: str
    clean: float
    strengths: tuple[float, ...]
    means: tuple[float, ...]
    interval: Interval
    scale: float
    expected: Move | None

    @property
    def holds(self) -> bool | None:
        """Whether the score moved as declared at full strength, a direction with an interval that excludes 0.

        None where nothing is declared.
        """
        if self.expected is None:
            return None
        if self.expected == "blind":
            return abs(self.interval.estimate) <= BLIND * self.scale
        sign = 1 if self.expected == "up" else -1
        return min(sign * self.interval.low, sign * self.interval.high) > 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"holds": self.holds}


def own_scorers() -> dict[str, AnyScorer]:
    """Every scorer that needs no download, its settings at their defaults; those of imaging read the embedded one."""
    found = {}
    for name, kind in scorers().items():
        if kind.family != "vbench":
            values = {"of_score": "imaging"} if any(f.name == "of_score" for f in fields(kind)) else {}
            found[name] = make_scorer(name, values)
    return dict(sorted(found.items(), key=lambda item: list(EXPECTED).index(item[0]) if item[0] in EXPECTED else 99))


def score_frames(clip: Clip, frames: Frames, chosen: Mapping[str, AnyScorer]) -> dict[str, float]:
    """Values of the scorers that have one for these frames, shown as if they were the clip."""
    chunks = ((at, frames[at : at + _CHUNK]) for at in range(0, len(frames), _CHUNK))
    (scored,) = one_pass(chunks, [Take(clip.facts, 0, len(frames))], chosen, Runtime())
    return {name: found.value for name, found in scored.outcomes.items() if isinstance(found, Measurement)}


def validate(
    clips: int = 8,
    chosen: Mapping[str, AnyScorer] | None = None,
    sets: Mapping[str, ClipSet] = CLIP_SETS,
    strengths: Sequence[float] = STRENGTHS,
    report: Callable[[str], None] = lambda _: None,
) -> list[Effect]:
    """Score every clip and all its distortions; effects in the order of sets, scorers and distortions.

    Args:
        clips: clips of each set; below eight there are ranges in place of intervals.
        sets: what to distort, by name.
        chosen: scorers by name, `own_scorers` by default; those without a value for a set are left out there.
        report: told what was done, after every clip.
    """
    chosen = own_scorers() if chosen is None else chosen
    return [
        effect
        for name, kinds in sets.items()
        for effect in _of_set(name, kinds, clips, chosen, tuple(strengths), report)
    ]


def _of_set(
    clip_set: str,
    kinds: ClipSet,
    count: int,
    chosen: Mapping[str, AnyScorer],
    strengths: tuple[float, ...],
    report: Callable[[str], None],
) -> Iterator[Effect]:
    clean: list[dict[str, float]] = []
    moved: list[dict[tuple[str, float], dict[str, float]]] = []
    for number in range(count):
        clip = kinds.make(number)
        clean.append(score_frames(clip, clip.frames, chosen))
        moved.append(
            {
                (kind.__name__, strength): score_frames(clip, distorted(clip, kind, strength), chosen)
                for kind in kinds.distortions
                for strength in strengths
            }
        )
        report(f"{clip_set}: {number + 1} of {count} clips")
    for name in chosen:
        if not any(name in scores for scores in clean):
            continue
        changes = {
            (kind.__name__, strength): [
                scores[kind.__name__, strength][name] - before[name]
                for scores, before in zip(moved, clean, strict=True)
                if name in before and name in scores[kind.__name__, strength]
            ]
            for kind in kinds.distortions
            for strength in strengths
        }
        intervals = {key: mean_interval(values) for key, values in changes.items()}
        scale = max((abs(intervals[kind.__name__, strengths[-1]].estimate) for kind in kinds.distortions), default=0.0)
        before = [scores[name] for scores in clean if name in scores]
        for kind in kinds.distortions:
            yield Effect(
                clip_set,
                name,
                kind.__name__,
                sum(before) / len(before),
                strengths,
                tuple(intervals[kind.__name__, strength].estimate for strength in strengths),
                intervals[kind.__name__, strengths[-1]],
                scale,
                expected(clip_set, name, kind.__name__),
            )
