"""Make videos: roll out, alone or several in lock step, and record each on its own (`irope.recording`)."""

from __future__ import annotations

import json
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch

from irope.claims import Claim, Claims
from irope.finished import finished
from irope.generator import Generator
from irope.jobs import VideoJob, in_step
from irope.lock_step import of_one, together
from irope.noise import KeyedNoise
from irope.policy import CacheEvent
from irope.recording import Recording
from irope.rollout import Rollout
from irope.systems import Interrupted


@dataclass(frozen=True)
class Report:
    """Progress of one video after a block; ``resumed`` counts the blocks that were on disk already.

    The blocks of a system are its frames.
    """

    job: VideoJob
    block: int
    blocks: int
    seconds: float
    event: CacheEvent = CacheEvent.BLOCK
    resumed: int = 0


class Order(NamedTuple):
    """A video to make.

    Attributes:
        work: folder of this process alone, on the file system of the video, for everything unfinished; who takes it
            over continues from there.
        check: called after every block and before anything is published; raises if ``work`` was taken over.
    """

    job: VideoJob
    work: Path
    check: Callable[[], None] = lambda: None


Outcome: TypeAlias = dict[str, Any] | Exception
"""The sidecar of a finished video, or what went wrong with it."""


def make_rollout(jobs: Sequence[VideoJob], generator: Generator) -> Rollout:
    """The roll-out of jobs in lock step (`irope.jobs.in_step`), at its first block."""
    first = jobs[0]
    shape = (generator.clock.block, *generator.frame_shape)
    noises = [KeyedNoise(job.seed, [job.script.noise_key], shape) for job in jobs]

    def texts(segment: int) -> torch.Tensor:
        return torch.cat([generator.encode_text(job.timeline.segments[segment].prompt) for job in jobs])

    return Rollout(
        model=generator.transformer,
        policy=first.own.policy,
        events=first.timeline,
        sampler=first.own.sampler,
        texts=texts,
        noise=lambda block, step: torch.cat([noise(block, step) for noise in noises]),
        frame_shape=generator.frame_shape,
        codec=generator.codec,
        batch=len(jobs),
        block=generator.clock.block,
        horizon=generator.horizon,
        execution=generator.execution,
    )


def name_of(job: VideoJob) -> str:
    """How a video is called in messages and claims: method and file name."""
    return f"{job.stem.parent.name}/{job.stem.name}"


def as_they_come_free(
    todo: deque[VideoJob], claims: Claims, waiting: Callable[[VideoJob], None], poll: float = 1.0
) -> Iterator[tuple[VideoJob, Claim | None]]:
    """Work off ``todo``: jobs with a claim to make them, or with None where they are done.

    A job that another worker has claimed comes again later; ``waiting`` is told every time. The consumer may put jobs
    back into ``todo``. Between rounds in which every job was somebody else's this waits ``poll`` seconds.
    """
    refused, left = 0, set(claims.leftovers())
    while todo:
        job = todo.popleft()
        # A worker killed right after its video was done has left the folder of the claim; taking it removes it.
        claim = None if job.done and job.key not in left else claims.take(job.key, name_of(job))
        done = job.done  # asked again: the owner before may have finished it meanwhile
        if claim is None and not done:
            waiting(job)
            todo.append(job)
            refused += 1
            if refused >= len(todo):
                time.sleep(poll)
                refused = 0
            continue
        refused = 0
        if claim is not None and done:
            claim.release(done=True)
            claim = None
        yield job, claim


def company(job: VideoJob, others: Iterable[VideoJob], claims: Claims, most: int) -> list[tuple[VideoJob, Claim]]:
    """Up to ``most`` of ``others`` that are to be made, can be in lock step with ``job``, and are free: with claims."""
    found: list[tuple[VideoJob, Claim]] = []
    for other in others:
        if len(found) == most:
            break
        if not in_step(job, other) or other.done or (claim := claims.take(other.key, name_of(other))) is None:
            continue
        if finished(other.stem, other.key):  # the owner before has finished it meanwhile
            claim.release(done=True)
        else:
            found.append((other, claim))
    return found


def generate_claimed(job: VideoJob, claim: Claim, generator: Generator | None, **options: Any) -> dict[str, Any]:
    """`generate` in the folder of a claim, which is released: done, or kept for the next owner. Raises ClaimLost."""
    done = False
    try:
        sidecar = generate(job, generator, work=claim.work, check=claim.check, **options)
        done = True
    finally:
        claim.release(done)
    return sidecar


def claimed_together(
    party: Sequence[tuple[VideoJob, Claim]], generator: Generator | None, **options: Any
) -> list[Outcome]:
    """`generate_claimed` for the videos of a `company`, in lock step, or for any one; see `generate_together`."""
    if len(party) == 1 or generator is None:
        return [_outcome(job, claim, generator, options) for job, claim in party]
    outcomes: list[Outcome] = []
    try:
        outcomes += generate_together(
            [Order(job, claim.work, claim.check) for job, claim in party], generator, **options
        )
    finally:
        for number, (_, claim) in enumerate(party):
            claim.release(done=number < len(outcomes) and isinstance(outcomes[number], dict))
    return outcomes


def _outcome(job: VideoJob, claim: Claim, generator: Generator | None, options: dict[str, Any]) -> Outcome:
    try:
        return generate_claimed(job, claim, generator, **options)
    except Exception as error:
        return error


def generate(
    job: VideoJob,
    generator: Generator | None,
    checkpoint_blocks: int = 20,
    report: Callable[[Report], None] = lambda _: None,
    work: Path | None = None,
    check: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Make the video of ``job`` unless it is there; a killed run continues at its last checkpoint, frame for frame.

    Files appear under their final names when they are complete: the lossless companion, the mp4, and at the very end
    the sidecar JSON, which is returned.

    Args:
        work, check: see `Order`. Without a folder a claim is taken, when whoever has it now has let go.
        stop: asked after every block; when true the video is left at a checkpoint.
        generator: the loaded model; not needed for a video of a system.

    Raises:
        VideoError: the file system refuses (no permission, disk full).
        Interrupted: ``stop`` said so.
        ClaimLost: from ``check``.
    """
    if job.done:
        found: dict[str, Any] = json.loads(job.sidecar.read_text())
        return found
    if work is None:
        for _, claim in as_they_come_free(deque([job]), Claims(job.stem.parents[1]), lambda _: None):
            if claim is not None:
                options = {"checkpoint_blocks": checkpoint_blocks, "report": report, "stop": stop}
                return generate_claimed(job, claim, generator, **options)
        return generate(job, generator)
    try:
        job.stem.parent.mkdir(parents=True, exist_ok=True)
        if job.system is not None:
            from irope.system_video import make_system_video

            return make_system_video(job, work, check, stop, lambda *done: report(Report(job, *done)))
        if generator is None:
            raise ValueError(f"{name_of(job)}: a policy needs a generator")
    except OSError:
        check()  # what another worker has taken over is gone, which is no error of the file system
        raise
    [outcome] = generate_together([Order(job, work, check)], generator, checkpoint_blocks, report, stop)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def generate_together(
    orders: Sequence[Order],
    generator: Generator,
    checkpoint_blocks: int = 20,
    report: Callable[[Report], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """`generate` for several videos of one kind (`irope.jobs.in_step`), in lock step: the same blocks in one forward.

    What goes wrong with one of them, in its files or its claim, is its outcome, and the others go on. What goes wrong
    with the roll-out, perhaps by one prompt or for lack of memory, makes them be tried again one by one. Those whose
    checkpoints are behind different blocks are made one group after the other.

    Returns:
        For every order its sidecar, or what `generate` would raise.
    """
    with ExitStack() as stack:
        members = [_Member(order, stack) for order in orders]
        groups: dict[int, list[_Member]] = {}
        for member in members:
            if member.outcome is None:
                groups.setdefault(member.recording.done, []).append(member)
        for group in groups.values():
            try:
                _roll(group, generator, checkpoint_blocks, report, stop)
            except Exception as error:
                if len(orders) == 1:
                    members[0].outcome = error
                else:
                    said = f"{len(group)} videos in lock step: {type(error).__name__}: {error}; now one by one"
                    warnings.warn(said, stacklevel=2)
    alone = (checkpoint_blocks, report, stop)
    return [
        generate_together([order], generator, *alone)[0] if member.outcome is None else member.outcome
        for order, member in zip(orders, members, strict=True)
    ]


class _Member:
    """A video of a batch, with its files and its own outcome."""

    def __init__(self, order: Order, stack: ExitStack) -> None:
        self.job, self.check = order.job, order.check
        self.outcome: Outcome | None = None
        with self.alone():
            self.job.stem.parent.mkdir(parents=True, exist_ok=True)
            self.recording = stack.enter_context(Recording(order.job, order.work, order.check))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """What goes wrong in here is the outcome of this video and no other."""
        try:
            try:
                yield
            except OSError:
                self.check()  # what another worker has taken over is gone, which is no error of the file system
                raise
        except Exception as error:
            self.outcome = error


def _roll(
    members: Sequence[_Member],
    generator: Generator,
    checkpoint_blocks: int,
    report: Callable[[Report], None],
    stop: Callable[[], bool],
) -> None:
    jobs = [member.job for member in members]
    blocks = jobs[0].timeline.blocks
    generator.prepare([segment.prompt for job in jobs for segment in job.timeline.segments])
    rollout = make_rollout(jobs, generator)
    if (state := members[0].recording.state) is not None:
        rollout.load_state(together([member.recording.tensors() for member in members]), state)
    settled, stopping = -1, False

    def settle(block: int) -> bool:
        """Whether a checkpoint follows this block, as the roll-out may not go on before that."""
        nonlocal settled, stopping
        stopping = stop() and block + 1 < blocks
        if stopping or (block + 1) % checkpoint_blocks == 0:
            settled = block
        return settled == block

    for block in rollout.blocks(settle):
        tensors, record = rollout.state() if block.index == settled else ({}, {})
        for row, member in enumerate(members):
            if member.outcome is not None:
                continue
            with member.alone():
                job, recording = member.job, member.recording
                recording.add(block, rollout, row)
                member.check()
                report(Report(job, block.index + 1, blocks, block.seconds, block.event, recording.resumed))
                if block.index == settled:
                    recording.checkpoint(of_one(tensors, row), record)
                    if stopping:
                        raise Interrupted(f"{name_of(job)}: stopped after block {block.index + 1} of {blocks}")
        if all(member.outcome is not None for member in members):
            return
    for member in members:
        if member.outcome is None:
            with member.alone():
                member.outcome = member.recording.finish(rollout, generator.size)
