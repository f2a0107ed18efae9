"""Progress and summary of scoring: a bar on a terminal, a line a video elsewhere; every reason is said once."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from eval.score import Outcome
from eval.videos import Problem, Video
from irope.cli.bar import Bar


class ScoreProgress(Bar):
    """Shows videos, frames per second and the time left, judged by the frames of the videos done so far."""

    def __init__(self, videos: int) -> None:
        super().__init__("video {task.completed:.0f}/{task.total}")
        self.videos, self.outcomes = videos, list[Outcome]()
        self.task = self.bar.add_task("scoring", total=videos, rate="")
        self.began, self.seen = time.perf_counter(), 0

    def start(self, video: Video) -> None:
        self.bar.update(self.task, description=video.name)

    def frames(self, done: int, total: int) -> None:
        """Within a video: ``done`` of ``total`` frames."""
        share = len(self.outcomes) + done / total
        self.bar.update(self.task, completed=share, rate=self._rate(self.seen + done, share))

    def done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.seen += outcome.frames
        count = len(self.outcomes)
        rate = self._rate(self.seen, count)
        self.bar.update(self.task, completed=count, rate=rate)
        if outcome.problem is not None:
            what = "not scored"
        elif outcome.frames:
            what = f"{outcome.scored} scores"
        else:
            what = "was scored already"
        self.say(f"{outcome.video.name}: {what}  (video {count}/{self.videos}, {rate})")

    def _rate(self, frames: int, videos: float) -> str:
        seconds = time.perf_counter() - self.began
        left = seconds / videos * (self.videos - videos) if videos else 0.0
        return f"{frames / seconds:.0f} frames/s  ETA {left:.0f} s"

    def summary(self, problems: Sequence[Problem], folder: Path) -> None:
        """What was done, on standard output; what went wrong, on standard error."""
        scored = sum(outcome.scored for outcome in self.outcomes)
        kept = sum(outcome.kept for outcome in self.outcomes)
        good = sum(outcome.problem is None for outcome in self.outcomes)
        print(f"{good} of {len(self.outcomes)} videos, {scored} new scores, {kept} were there: {folder}")
        for text, names in _grouped(
            [(f"{s}: skipped, because {r}", o) for o in self.outcomes for s, r in o.skipped.items()]
        ):
            print(f"  {text}  ({names})")
        for text, names in _grouped([(note, o) for o in self.outcomes for note in o.notes]):
            print(f"  note: {text}  ({names})")
        for problem in problems:
            named = "" if str(problem.path) in problem.message else f"{problem.path}: "
            print(f"irope: {'warning' if problem.scored else 'error'}: {named}{problem.message}", file=sys.stderr)


def _grouped(said: Sequence[tuple[str, Outcome]], most: int = 3) -> list[tuple[str, str]]:
    """Each text once, with the videos it is true of."""
    videos: dict[str, list[str]] = defaultdict(list)
    for text, outcome in said:
        videos[text].append(outcome.video.name)
    return [
        (text, ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else ""))
        for text, names in videos.items()
    ]
