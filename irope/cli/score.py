"""Score videos.

    irope score                                       all of results/runs with the embedded scorers
    irope score my/videos                             any folder of videos; one folder below it is one method
    irope score my/videos score.prompts=prompts.csv   prompts from a list: columns file, prompt, seed
    irope score my/videos protocol=vbench             VBench, with the weights `irope vbench weights` lists
    irope score results/runs score.windows=[5,60]     the first 5 s and 60 s, each as a video of its own
    irope score table1 tier=paper protocol=vbench     the videos of an experiment that are there

Scores land in PATH/scores, one JSON for each video and protocol. What is scored already is left alone; the same command
continues after a kill. Exit code 1: a video could not be scored, or has no prompt; the rest is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from irope.errors import UserError


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", nargs="?", help="a video, or a folder of videos (default: sys.out)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    parser.add_argument("-m", "--multirun", action="store_true", help="for a sweep: overrides may be a,b  range(0,5)")
    options = parser.parse_intermixed_args(arguments)
    from irope.cli.experiments import is_experiment

    if options.multirun or (options.path is not None and is_experiment(options.path)):
        from irope.cli.run import run as run_experiment

        return run_experiment([*arguments, "sys.stages=[score]"])
    if options.path is not None and "=" in options.path and not Path(options.path).exists():
        options.overrides.insert(0, options.path)
        options.path = None
    from irope.config import Choice, load

    config = load(options.overrides)
    path = Path(options.path or str(Choice(config, "sys.out").text()))
    from eval.videos import SCORES, find_videos

    manifest = Choice(config, "score.prompts").text()
    videos, problems = find_videos(path, Path(manifest) if manifest else None)
    import torch

    from eval.plan import plan_from
    from eval.score import score_video
    from irope.cli.score_progress import ScoreProgress
    from irope.generator import device_from

    torch.set_num_threads(Choice(config, "sys.threads").integer(1))
    out = Choice(config, "score.out").text()
    folder = Path(out) if out else (path if path.is_dir() else path.parent) / SCORES
    plan = plan_from(config, folder, str(device_from(config)))
    if not plan.scorers:
        raise UserError("score.scorers is empty: name at least one scorer, see irope list scorers")
    with ScoreProgress(len(videos)) as progress:
        for video in videos:
            progress.start(video)
            outcome = score_video(video, plan, progress.frames)
            progress.done(outcome)
            if outcome.problem is not None:
                problems.append(outcome.problem)
    progress.summary(problems, folder / plan.name)
    return 1 if problems else 0
