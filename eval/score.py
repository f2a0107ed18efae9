"""Score videos: what is missing and no more; each result is on disk as soon as its window ends."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eval.protocol import Protocol
from eval.reader import ReadError, VideoReader, open_video
from eval.registry import AnyScorer
from eval.scorer import Derived, Runtime, Skip, Take, VideoFacts
from eval.scores import (
    ScoreFileError,
    entry,
    read_scores,
    score_key,
    score_path,
    window_name,
    write_scores,
)
from eval.videos import Problem, Video
from irope.errors import UserError
from irope.identity import file_digest
from irope.provenance import environment
from irope.script import Clock


@dataclass(frozen=True)
class Plan:
    """How videos are scored.

    Attributes:
        name: the protocol's name, a folder of score files.
        scorers: by name, in the order of the table.
        windows: seconds from the start, each scored as a video of its own; empty for the whole video.
        backend: the decoder, see eval/reader.py; ``truncated`` files are scored as far as they go, with a note.
    """

    name: str
    protocol: Protocol
    scorers: Mapping[str, AnyScorer]
    folder: Path
    windows: tuple[float, ...] = ()
    runtime: Runtime = field(default_factory=Runtime)
    backend: str = "auto"
    truncated: bool = False


@dataclass
class Outcome:
    """What became of one video: ``scored`` and ``kept`` values, skips with their reasons."""

    video: Video
    frames: int = 0
    scored: int = 0
    kept: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problem: Problem | None = None


def score_video(video: Video, plan: Plan, report: Callable[[int, int], None] = lambda _a, _b: None) -> Outcome:
    """Score one video; what is on disk under the same key is kept.

    Args:
        report: told (frames done, frames to do) after every chunk.
    """
    outcome = Outcome(video, notes=list(video.notes))
    try:
        with open_video(video.source, plan.backend, plan.truncated) as reader:
            outcome.notes += reader.notes
            _score(video, reader, plan, outcome, report)
    except (ReadError, ScoreFileError) as error:
        outcome.problem = Problem(video.path, str(error))
    return outcome


def _score(video: Video, reader: VideoReader, plan: Plan, outcome: Outcome, report: Callable[[int, int], None]) -> None:
    facts = video.facts(reader.frames, float(reader.fps), reader.height, reader.width)
    windows = cut_windows(facts, video, plan.windows, outcome)
    path = score_path(plan.folder, plan.name, video.name)
    content = _content(path, video, facts, plan)
    made, reasons = _made(plan)
    keys = _keys(made, content["video"]["source"], plan)
    before = json.dumps(content["windows"])
    todo: dict[str, AnyScorer] = {}
    missing: list[Take] = []
    for window in windows:
        scores = content["windows"].setdefault(window_name(window.start, window.stop), {"scores": {}})["scores"]
        for name, scorer in plan.scorers.items():
            if name in reasons:
                if "value" not in scores.get(name, {}):  # a number that was once reached is not thrown away
                    scores[name] = entry(Skip(reasons[name]), "", facts.fps)
                outcome.skipped[name] = reasons[name]
            elif scores.get(name, {}).get("key") != keys[name]:
                todo |= {name: scorer} | {of: plan.scorers[of] for of in _needs(scorer) if of in plan.scorers}
                if window not in missing:
                    missing.append(window)
            elif "value" in scores[name]:
                outcome.kept += 1
            else:
                outcome.skipped[name] = scores[name]["skipped"]
    if missing:
        chosen = {name: scorer for name, scorer in plan.scorers.items() if name in todo}
        total = max(take.stop for take in missing)
        found = plan.protocol.score(reader, missing, chosen, plan.runtime, lambda done: report(done, total))
        for scored in found:
            scores = content["windows"][window_name(scored.take.start, scored.take.stop)]["scores"]
            for name, result in scored.outcomes.items():
                if name in reasons:  # asked along for a score derived from it; what stands there was settled above
                    continue
                scores[name] = entry(result, keys.get(name, ""), facts.fps) | {"made": made.get(name)}
                outcome.scored += "value" in scores[name]
                if isinstance(result, Skip):
                    outcome.skipped[name] = str(result)
            write_scores(path, _in_order(content, plan))
        outcome.frames = total
    elif json.dumps(content["windows"]) != before:
        write_scores(path, _in_order(content, plan))


class ScoredCheck:
    """Tells whether a video was scored as a plan wants it, from its score file alone: no video is opened."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._made, self._reasons = _made(plan)

    def __call__(self, path: Path) -> bool:
        """Whether every window holds every scorer's answer under the key it would get now."""
        try:
            found = read_scores(path)
        except ScoreFileError:
            return False
        if found is None or found["protocol"]["settings"] != self.plan.protocol.record():
            return False
        video = found["video"]
        facts = VideoFacts(video["name"], video["frames"], video["fps"], video["height"], video["width"], ())
        keys = _keys(self._made, video["source"], self.plan)
        for window in windows_of(facts, in_blocks(video.get("record")), self.plan.windows)[0]:
            scores = found["windows"].get(window_name(window.start, window.stop), {}).get("scores", {})
            if any(scores.get(name, {}).get("key") != key for name, key in keys.items()):
                return False
            if any(name not in scores for name in self._reasons):
                return False
        return True


def _in_order(content: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """The scorers of every window as the plan lists them, which is the order of a table's columns."""
    for window in content["windows"].values():
        scores = window["scores"]
        window["scores"] = {n: scores[n] for n in dict.fromkeys([*plan.scorers, *scores]) if n in scores}
    return content


def _needs(scorer: AnyScorer) -> Sequence[str]:
    return scorer.of if isinstance(scorer, Derived) else ()


def cut_windows(facts: VideoFacts, video: Video, seconds: Sequence[float], outcome: Outcome) -> list[Take]:
    """Takes of the wanted windows; the whole video without any. A window longer than the video is left out, and said.

    A window of a video of ours has the frames that a video of that duration would have: 81 for 5 s at 16 fps. Those of
    other systems are cut to the nearest frame: 120 for 5 s at 24 fps.
    """
    takes, too_long = windows_of(facts, in_blocks(video.record), seconds)
    outcome.notes += [f"no window of {s:g} s: the video has {facts.frames / facts.fps:.2f} s" for s in too_long]
    return takes


def in_blocks(record: Mapping[str, Any] | None) -> bool:
    """Whether a video is of a generator of ours, whose lengths are whole blocks."""
    return record is not None and "system" not in record


def windows_of(facts: VideoFacts, blocks: bool, seconds: Sequence[float]) -> tuple[list[Take], list[float]]:
    """Takes of the wanted windows, the whole video without any; and the windows that are longer than the video."""
    if not seconds:
        return [Take(facts, 0, facts.frames)], []
    stops = {wanted: _frames(wanted, facts.fps, blocks) for wanted in seconds}
    takes = [Take(facts, 0, stop) for stop in stops.values() if stop <= facts.frames]
    return takes, [wanted for wanted, stop in stops.items() if stop > facts.frames]


def _frames(seconds: float, fps: float, blocks: bool) -> int:
    if blocks and float(fps).is_integer():
        clock = Clock(fps=int(fps))
        return clock.pixels(clock.latents(seconds))
    return max(1, math.floor(seconds * fps + 0.5))


def _made(plan: Plan) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What decides the numbers of every scorer that can run here, whatever the video; why the others cannot run."""
    made: dict[str, dict[str, Any]] = {}
    reasons: dict[str, str] = {}
    for name, scorer in plan.scorers.items():
        if (reason := scorer.unavailable() or plan.protocol.unavailable(name)) is not None:
            reasons[name] = reason
            continue
        made[name] = {
            "settings": asdict(scorer),
            "depends": dict(scorer.identity()) | dict(plan.protocol.identity(name)),
            "precision": plan.runtime.precision,
        }
    return made, reasons


def _keys(made: Mapping[str, Any], source: Mapping[str, Any], plan: Plan) -> dict[str, str]:
    keys: dict[str, str] = {}
    for name in made:
        of = [keys.get(other) for other in _needs(plan.scorers[name])]
        keys[name] = score_key(plan.protocol.record(), name, made[name] | {"of": of}, source)
    return keys


def _content(path: Path, video: Video, facts: VideoFacts, plan: Plan) -> dict[str, Any]:
    """The score file as it is, or a new one; facts are brought up to date."""
    found = read_scores(path) or {"windows": {}}
    if found.get("protocol", {"settings": plan.protocol.record()})["settings"] != plan.protocol.record():
        raise UserError(
            f"{path} was made with other settings of the protocol {plan.name}; "
            "give yours a name of its own: score.protocol.name=..., or another folder: score.out=..."
        )
    # What every score depends on: with another file or other prompts nothing that is on disk holds any more.
    source = {"sha256": file_digest(video.source), "segments": [asdict(span) for span in facts.spans]}
    if found.get("video", {}).get("source") != source:
        found["windows"] = {}
    return {
        "protocol": {"name": plan.name, "settings": plan.protocol.record()},
        "video": {
            "name": video.name,
            "file": video.path.name,
            "scored_file": video.source.name,
            "method": video.method,
            "model": video.model,
            "prompt": video.prompt,
            "seed": video.seed,
            "frames": facts.frames,
            "fps": facts.fps,
            "height": facts.height,
            "width": facts.width,
            "source": source,
            "record": video.record,
        },
        "windows": found["windows"],
        "environment": environment(plan.runtime.device),
    }
