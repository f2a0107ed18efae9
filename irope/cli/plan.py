"""What an experiment would do: done, failed and to do for each cell, hours, disk and time; nothing is started.

    irope plan table1                                   tier quick
    irope plan delta_ablation tier=paper launcher=slurm sys.launcher.workers=32
    irope plan -m policy=glob(*) prompts=basic duration=5,60
    irope plan my_experiment.yaml --json

Times come from what past videos in this results folder took, and from published figures until there are any.
Exit code: 0, also when there is something to do.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

SHOWN = 40
"""Rows of the table of cells without --all."""


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="EXPERIMENT|key=value", help="an experiment and Hydra overrides")
    parser.add_argument("-m", "--multirun", action="store_true", help="overrides may sweep: a,b  range(0,5)  glob(*)")
    parser.add_argument("--all", action="store_true", help=f"every cell, not only {SHOWN}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--yes", action="store_true", help="accepted for scripts: this verb never asks")
    options = parser.parse_intermixed_args(arguments)
    import json

    from irope.cli.experiments import command_of, experiment_of
    from irope.cli.survey import print_counts, print_notes, survey, without_collecting

    words = [*options.words, *(["-m"] if options.multirun else [])]
    with without_collecting():
        experiment = experiment_of(words)
    found = survey(experiment)
    if options.json:
        cells = {label: {**vars(count), "todo": count.todo} for label, count in found.counts.items()}
        left = vars(found.left) | {"wall": found.wall, "workers": found.workers}
        record = {"experiment": experiment.name, "tier": experiment.tier, "cells": cells, "left": left}
        print(json.dumps(record | {"left_out": experiment.left_out}))
        return 0
    print(f"{experiment.title}: {experiment.description}")
    print_counts(found.counts, None if options.all else SHOWN)
    print_notes(found)
    print(found.summary())
    print(f"next: {command_of('run' if found.total.todo else 'table', words)}")
    return 0
