"""Make and score everything of an experiment that is not there yet; the same command again continues.

    irope run table1 tier=smoke                         a few videos, to see it work
    irope run delta_ablation                            tier quick: minutes on a laptop
    irope run table1 tier=paper launcher=slurm sys.launcher.workers=32
    irope run -m policy=glob(*) prompts=basic duration=5,60
    irope run table1 tier=paper sys.worker=true         one worker, in any job script

Exit code: 0 complete (or submitted), 1 some videos failed, 130 or 143 stopped: the same command continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from irope.errors import UserError

if TYPE_CHECKING:
    from irope.cli.survey import Survey
    from irope.experiment import Experiment

ASK_ABOVE = 1800.0
"""Seconds of expected work from which a person is asked first."""


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="EXPERIMENT|key=value", help="an experiment and Hydra overrides")
    parser.add_argument("-m", "--multirun", action="store_true", help="overrides may sweep: a,b  range(0,5)  glob(*)")
    parser.add_argument("--yes", action="store_true", help="do not ask before hours of work")
    options = parser.parse_intermixed_args(arguments)
    from irope.cli.experiments import experiment_of, measured_kind, overrides_of
    from irope.config import Choice

    words = [*options.words, *(["-m"] if options.multirun else [])]
    if (kind := measured_kind(options.words)) is not None:
        from irope.cli.measure import measure

        return measure(kind, overrides_of(options.words))
    experiment = experiment_of(words)
    if Choice(experiment.config, "sys.worker").flag():
        return worker(experiment)
    from irope.cli.survey import print_notes, survey

    found = survey(experiment)
    print(f"{experiment.title}: {experiment.description}")
    print_notes(found)
    if found.total.todo:
        print(found.summary(), flush=True)
    if experiment.config["sys"]["launcher"]["kind"] == "slurm" and found.total.todo:
        _confirm(found, options.yes)
        return submit(experiment, words, found.total.todo)
    from irope.cli.local import run_local

    if found.total.todo:
        _confirm(found, options.yes)
    return run_local(experiment, words, found)


def worker(experiment: Experiment) -> int:
    """Be one worker; its lines go to a log."""
    import torch

    from irope.cli.worker import Worker
    from irope.config import Choice

    torch.set_num_threads(Choice(experiment.config, "sys.threads").integer(1))
    tally = Worker(experiment).work()
    said = f"{tally.made} made, {tally.scored} scored, {len(tally.failed)} failed"
    print(f"worker: {'stopped' if tally.terminated else 'nothing left to do'}; {said}", flush=True)
    return tally.exit_code


def submit(experiment: Experiment, words: Sequence[str], todo: int) -> int:
    """Hand the work to Slurm, to no more workers than there are videos ``todo``, and return."""
    from dataclasses import replace
    from pathlib import Path

    from irope.cli.experiments import command_of
    from irope.launcher import Slurm
    from irope.launcher import submit as submit_array

    settings = Slurm.from_config(experiment.config["sys"]["launcher"])
    settings = replace(settings, workers=min(settings.workers, todo))
    submission = submit_array(settings, words, Path(experiment.config["sys"]["out"]))
    print(f"submitted job {submission.job_id}: {submission.tasks} workers, logs in {submission.folder}")
    plain = [word for word in words if not word.startswith(("launcher=", "sys.launcher."))]
    print(f"next: {command_of('status', plain)}")
    return 0


def _confirm(found: Survey, yes: bool) -> None:
    """Ask before hours of work; a script says --yes.

    Raises:
        UserError: nobody can be asked, or the answer is no.
    """
    if yes or found.wall < ASK_ABOVE:
        return
    if not sys.stdin.isatty():
        raise UserError("this takes more than half an hour: add --yes, or take a smaller tier (tier=smoke, tier=quick)")
    if input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("nothing was started")
