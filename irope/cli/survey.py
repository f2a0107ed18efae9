"""How far an experiment is and what is left of it, from names on disk alone: 100,000 videos take seconds."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irope.config import Choice, ConfigError, prompt_notes
from irope.cost import GIGABYTE, Estimate, Work, duration, estimate
from irope.history import History
from irope.inventory import NOTHING, Count, Inventory
from irope.jobs import model_of

if TYPE_CHECKING:
    from irope.experiment import Cell, Experiment
    from irope.script import Timeline


STAGES = ("generate", "score")
PAST = {"generate": "made", "score": "scored"}


@dataclass(frozen=True)
class Survey:
    """Where an experiment stands.

    Attributes:
        counts: a label for each cell, with how far it is; cells that differ in duration alone are one row.
        gpu: whether workers use one.
        left_out: which rows have no videos, and why.
        notes: what is not quite as it was asked for: durations that were rounded, prompts that were merged.
        workers: that would share the work.
    """

    counts: Mapping[str, Count]
    protocol: str
    left: Estimate
    video_seconds: float
    workers: int
    gpu: bool
    left_out: Sequence[str]
    stages: Sequence[str] = STAGES
    notes: Sequence[str] = ()

    @cached_property
    def total(self) -> Count:
        return sum(self.counts.values(), NOTHING)

    @property
    def wall(self) -> float:
        """Seconds until it is done."""
        return self.left.wall(self.workers)

    def summary(self) -> str:
        """One line: what is left, and what it takes."""
        total = self.total
        if not total.videos:
            return "nothing to score: no video of it is made yet"
        if not total.todo:
            return f"complete: all {total.videos} videos are {' and '.join(PAST[stage] for stage in self.stages)}"
        unit = self.left.gpu or ("GPU" if self.gpu else "CPU-core")
        basis = f"measured on {self.left.measured} videos" if self.left.measured else f"estimated: {self.left.source}"
        hours, size = self.left.seconds / 3600, self.left.size
        took = f"{hours:.2f} {unit}-hours" if hours >= 0.01 else f"{self.left.seconds:.0f} {unit}-seconds"
        space = f"{size / GIGABYTE:.1f} GB" if size >= 0.1 * GIGABYTE else f"{size / GIGABYTE * 1000:.0f} MB"
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        wall = f"about {duration(self.wall)} with {workers}"
        if self.left.gpu and not self.gpu:
            wall = "no estimate for this machine, which has no GPU"
        return (
            f"to do: {total.todo} of {total.videos} videos, {duration(self.video_seconds)} of video; "
            f"{took}, {space}, {wall} ({basis})"
        )


@contextmanager
def without_collecting() -> Iterator[None]:
    """No garbage collection: a plan makes millions of objects that all stay, and looking through them again and again
    takes a third as long again (`irope plan` of 100,000 cells: 6.5 s of CPU time with it, 4.7 s without)."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def survey(experiment: Experiment) -> Survey:
    """Look at the results folder of an experiment. Raises UserError for settings that cannot work."""
    from irope.cli.experiments import scores_folder_of

    config = experiment.config
    for key in ("sys.worker", "sys.wait"):
        Choice(config, key).flag()
    makes, scores = ("generate" in stages_of(config), "score" in stages_of(config))
    out, protocol = Path(config["sys"]["out"]), str(config["score"]["protocol"]["name"])
    inventory = Inventory(out, scores_folder_of(config) / protocol)
    counts: dict[str, Count] = {}
    work: list[Work] = []
    seconds, rounded = 0.0, list[str]()
    nested: dict[tuple[float, ...], int] = {}
    with without_collecting():
        for cell in experiment.cells:
            model = model_of(cell.config)
            if not inventory.known(cell.label):
                timelines = experiment.timelines(cell) * len(experiment.seeds) if makes else []
                left = [(timeline, False) for timeline in timelines]
                count = Count(len(left), 0, 0, 0, 0)
            else:
                left, count = _look(experiment, cell, inventory, makes, scores)
            for timeline, made in left:
                frames = timeline.clock.pixels(timeline.latents)
                work.append(Work(model, cell.label, 0 if made else timeline.latents, frames if scores else 0))
                seconds += frames / timeline.clock.fps
                rounded += timeline.rounding[:1]
            if len(cell.seconds) > 1 and makes:
                nested[cell.seconds] = nested.get(cell.seconds, 0) + count.videos
            if count.videos:
                counts[cell.label] = counts[cell.label] + count if cell.label in counts else count
    return Survey(
        counts=counts,
        protocol=protocol,
        left=estimate(work, History(out), protocol),
        video_seconds=seconds,
        workers=workers_of(config["sys"]),
        gpu=gpus(config["sys"]) > 0,
        left_out=experiment.reasons,
        stages=stages_of(config),
        notes=[*_rounding(rounded), *_nested(nested), *prompt_notes(experiment.cells[0].config)],
    )


def _nested(videos: Mapping[tuple[float, ...], int]) -> Iterator[str]:
    """What need not be made: windows of seconds -> videos as long as the last of them."""
    for (*shorter, longest), number in videos.items():
        named = ", ".join(f"{seconds:g}" for seconds in shorter)
        yield (
            f"{number * len(shorter)} videos of {named} s are the beginning of those of {longest:g} s and are not made "
            f"a second time: {duration(number * sum(shorter))} of video saved"
        )


def _rounding(notes: Sequence[str]) -> Iterator[str]:
    """Every video of an experiment may be rounded in its own way; its sidecar has the rest."""
    if notes:
        more = f" ({len(notes)} videos are rounded to whole blocks)" if len(notes) > 1 else ""
        yield f"{notes[0]}{more}"


def _look(
    experiment: Experiment, cell: Cell, inventory: Inventory, makes: bool, scores: bool
) -> tuple[list[tuple[Timeline, bool]], Count]:
    """The timelines of a cell's videos that need something, and whether they are made; and how far the cell is."""
    videos, left = [], []
    all_made, all_scored = inventory.made(cell.label), inventory.scored(cell.label)
    for job in experiment.jobs(cell):
        made = job.name in all_made
        if not makes and not made:
            continue  # nothing to score yet
        videos.append((job.name, job.key))
        if not made or (scores and job.name not in all_scored):
            left.append((job.timeline, made))
    return left, inventory.count(cell.label, videos, scores)


def stages_of(config: Mapping[str, Any]) -> Sequence[str]:
    """``sys.stages``. ConfigError unless it is a list of generate and score."""
    stages = config["sys"]["stages"]
    if not isinstance(stages, list) or not stages or not set(stages) <= set(STAGES):
        raise ConfigError(f"sys.stages={stages}: expected [generate,score], or one of them")
    return stages


def workers_of(sys: Mapping[str, Any]) -> int:
    """How many workers the launcher starts.

    Raises:
        ConfigError: the number is not valid.
    """
    launcher = sys["launcher"]
    wanted = launcher.get("workers", "auto")
    if wanted == "auto":
        return max(1, gpus(sys)) if gpus(sys) else len(os.sched_getaffinity(0))
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise ConfigError(f"sys.launcher.workers={wanted}: expected a whole number from 1 up, or auto")
    return wanted


def gpus(sys: Mapping[str, Any]) -> int:
    """GPUs of this machine that workers may use, asked of the driver; 0 with ``sys.device=cpu``."""
    if sys["device"] == "cpu":
        return 0
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([part for part in visible.split(",") if part.strip() and part.strip() != "-1"])
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


COLUMNS = ("videos", "done", "made", "failed", "working", "to do")


def rows(counts: Mapping[str, Count], most: int | None) -> Iterator[tuple[str, Sequence[int]]]:
    """A row for each cell with the numbers of `COLUMNS`; of more than ``most``, those with something to do first."""
    ordered = sorted(counts, key=lambda label: counts[label].todo == 0) if most is not None else list(counts)
    shown = ordered[:most] if most is not None and len(ordered) > most else list(counts)
    for label in shown:
        yield label, _numbers(counts[label])
    if rest := [label for label in ordered if label not in set(shown)]:
        yield f"{len(rest)} more cells (--all shows them)", _numbers(sum((counts[r] for r in rest), NOTHING))
    if len(counts) > 1:
        yield "all", _numbers(sum(counts.values(), NOTHING))


def _numbers(count: Count) -> Sequence[int]:
    return count.videos, count.done, count.made, count.failed, count.working, count.todo


def print_counts(counts: Mapping[str, Count], most: int | None) -> None:
    """The table of cells, as plain text: it goes to logs and pipes as often as to a terminal."""
    if not counts:
        return
    found = [(name, [str(number) if number else "·" for number in numbers]) for name, numbers in rows(counts, most)]
    width = max([len(name) for name, _ in found] + [4])
    print(f"  {'cell':<{width}}" + "".join(f"{column:>9}" for column in COLUMNS))
    for name, numbers in found:
        print(f"  {name:<{width}}" + "".join(f"{number:>9}" for number in numbers))


def print_notes(found: Survey) -> None:
    """What a user should know before the work starts."""
    for note in found.notes:
        print(f"note: {note}")
    for reason in found.left_out:
        print(f"left out: {reason}")
