"""Make videos.

    irope generate                                        the demo prompts under ∞-RoPE
    irope generate method=kv_recache duration=60 prompts=basic
    irope generate prompt="a red circle moving left[5s] | a red circle moving up[5s#]" seed=3
    irope generate method=infinity_rope video.method.policy.f0=21 video.prompts.file=my.jsonl
    irope generate table1 tier=smoke                      the videos of an experiment, without scoring them
    irope generate method=skyreels_v2 duration=60         another system with its own weights (docs/systems.md)
    irope generate method=folder video.method.system.folder=DIR   import videos that exist already

Done videos are left alone; after a kill or Ctrl-C the same command continues. Several at once share the work.
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irope.claims import Claims
    from irope.config import Settings
    from irope.generator import Generator
    from irope.jobs import VideoJob


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything and list the videos, make none")
    parser.add_argument("-m", "--multirun", action="store_true", help="overrides may sweep: a,b  range(0,5)  glob(*)")
    parser.add_argument("overrides", nargs="*", metavar="EXPERIMENT|key=value", help="an experiment, Hydra overrides")
    options = parser.parse_intermixed_args(arguments)
    from irope.cli.experiments import is_experiment

    if options.multirun or any(is_experiment(word) for word in options.overrides):
        if options.dry_run:
            from irope.cli.plan import run as plan

            return plan([word for word in arguments if word != "--dry-run"])
        from irope.cli.run import run as run_experiment

        return run_experiment([*arguments, "sys.stages=[generate]"])
    from irope.config import load
    from irope.jobs import jobs_from
    from irope.methods import weights_note

    config = load(options.overrides)
    jobs = jobs_from(config)
    for line in filter(None, [*rounding_notes(jobs), weights_note(config)]):
        print(line)
    if not options.dry_run:
        return make(jobs, config)
    for job in jobs:
        unit = "frames" if job.system else "latent frames"
        print(f"{'done' if job.done else 'todo'}  {job.stem}.mp4  ({job.timeline.latents} {unit})")
    return 0


def make(jobs: Sequence[VideoJob], config: Settings) -> int:
    """Make the videos, beside other workers that may have the same list; returns the exit code."""
    import torch

    from irope.claims import ClaimLost, Claims
    from irope.cli.progress import RolloutProgress
    from irope.config import Choice
    from irope.generate import as_they_come_free, claimed_together, company, generate
    from irope.generator import load_generator
    from irope.systems import Interrupted

    torch.set_num_threads(Choice(config, "sys.threads").integer(1))
    checkpoint_blocks = Choice(config, "sys.checkpoint_blocks").integer(1)
    most = Choice(config, "sys.batch").integer(1)
    ours = [job for job in jobs if job.system is None and not job.done]
    generator = load_generator(config) if ours else None
    if generator is not None:
        generator.prepare([segment.prompt for job in ours for segment in job.timeline.segments])
        say_warm_up(generator, min(most, len(ours)))
    claims, todo = Claims(Path(config["sys"]["out"])), deque(jobs)
    with RolloutProgress(generator.clock.block if generator else 1) as progress, _terminated() as stop:
        waiting = _Waiting(claims)
        for job, claim in as_they_come_free(todo, claims, waiting):
            if claim is None:
                _say_made(job, generate(job, generator), "  (was done already)")
                continue
            party = [(job, claim), *company(job, todo, claims, most - 1)]
            for other, _ in party[1:]:
                todo.remove(other)
            options = {"checkpoint_blocks": checkpoint_blocks, "report": progress, "stop": stop.is_set}
            problems = []
            for (one, _), outcome in zip(party, claimed_together(party, generator, **options), strict=True):
                if isinstance(outcome, ClaimLost):
                    print(f"{one.stem}.mp4  {outcome}; it may finish the video")
                    todo.append(one)
                elif isinstance(outcome, Exception):
                    problems.append(outcome)
                else:
                    _say_made(one, outcome, _took(outcome["cost"]))
            for problem in problems:
                raise KeyboardInterrupt if isinstance(problem, Interrupted) else problem
    return 0


def say_warm_up(generator: Generator, batch: int) -> None:
    """Let the compiler do its work, which no video's time counts."""
    from irope.warm_up import warm_up

    if generator.transformer.compiled:
        print("compiling the model, once in every process; sys.compile=false does without", flush=True)
        print(f"compiled in {warm_up(generator, batch):.0f} s", flush=True)


def _say_made(job: VideoJob, sidecar: Mapping[str, Any], how: str) -> None:
    seconds = sidecar["pixel_frames"] / sidecar["fps"]
    print(f"{job.stem}.mp4  {sidecar['pixel_frames']} frames, {seconds:.1f} s{how}")


def _took(cost: Mapping[str, Any]) -> str:
    if cost["seconds_per_block_median"] is not None:
        return f"  {cost['seconds_per_block_median'] * 1000:.0f} ms/block"
    return "  imported" if cost["seconds_total"] is None else f"  in {cost['seconds_total']:.1f} s"


class _Waiting:
    """Says once for every video of another worker who makes it."""

    def __init__(self, claims: Claims) -> None:
        self.claims, self.told = claims, set[str]()

    def __call__(self, job: VideoJob) -> None:
        if job.key in self.told:
            return
        self.told.add(job.key)
        by = next((f" by {held.worker}" for held in self.claims.held() if held.key == job.key), " by another worker")
        print(f"{job.stem}.mp4  is being made{by}; this one goes on with the others and comes back to it", flush=True)


@contextmanager
def _terminated() -> Iterator[threading.Event]:
    """Set when the system asks this process to end (preemption, shutdown), which leaves time for a checkpoint."""
    event = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def rounding_notes(jobs: Sequence[VideoJob]) -> Iterator[str]:
    """What was rounded, each note once, with the videos it is true of."""
    notes: dict[str, list[str]] = {}
    for job in jobs:
        for note in job.timeline.rounding:
            notes.setdefault(note, []).append(job.script.id)
    for note, ids in notes.items():
        yield f"{'all videos' if len(ids) == len(jobs) > 1 else ', '.join(ids)}: {note}"
