"""Make videos.

    irope generate                                        the demo prompts under ∞-RoPE
    irope generate method=kv_recache duration=60 prompts=basic
    irope generate prompt="a red circle moving left[5s] | a red circle moving up[5s#]" seed=3
    irope generate method=infinity_rope video.method.policy.f0=21 video.prompts.file=my.jsonl

Done videos are left alone; after a kill or Ctrl-C the same command continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irope.jobs import VideoJob


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything and list the videos, make none")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    options = parser.parse_intermixed_args(arguments)
    from irope.config import Choice, load, policy_from

    config = load(options.overrides)
    policy_from(config)  # a wrong setting is reported before torch is loaded
    import torch

    from irope.cli.progress import RolloutProgress
    from irope.generate import generate
    from irope.generator import load_generator
    from irope.jobs import jobs_from

    torch.set_num_threads(Choice(config, "sys.threads").integer(1))
    checkpoint_blocks = Choice(config, "sys.checkpoint_blocks").integer(1)
    generator = load_generator(config)
    jobs = jobs_from(config)
    for line in rounding_notes(jobs):
        print(line)
    for job in jobs if options.dry_run else ():
        print(f"{'done' if job.done else 'todo'}  {job.stem}.mp4  ({job.timeline.latents} latent frames)")
    if options.dry_run:
        return 0
    with RolloutProgress(generator.clock.block) as progress:
        for job in jobs:
            done = job.done
            sidecar = generate(job, generator, checkpoint_blocks, progress)
            cost = sidecar["cost"]
            print(
                f"{job.stem}.mp4  {sidecar['pixel_frames']} frames, {sidecar['pixel_frames'] / sidecar['fps']:.1f} s"
                + ("  (was done already)" if done else f"  {cost['seconds_per_block_median'] * 1000:.0f} ms/block")
            )
    return 0


def rounding_notes(jobs: Sequence[VideoJob]) -> Iterator[str]:
    """What was rounded, each note once, with the videos it is true of."""
    notes: dict[str, list[str]] = {}
    for job in jobs:
        for note in job.timeline.rounding:
            notes.setdefault(note, []).append(job.script.id)
    for note, ids in notes.items():
        yield f"{'all videos' if len(ids) == len(jobs) > 1 else ', '.join(ids)}: {note}"
