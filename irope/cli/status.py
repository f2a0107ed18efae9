"""How far the work in a results folder is: done, failed, who works on what, jobs on the cluster.

    irope status                          everything in results/runs
    irope status table1 tier=paper        one experiment, with what is left
    irope status sys.out=/shared/runs --json

Works on a login node while workers run elsewhere; reads names and claims, starts nothing. Exit code: 0; 1 if videos
failed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irope.claims import Held
    from irope.inventory import Count

SHOWN = 40
FAILURES = 5


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope status", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="EXPERIMENT|key=value", help="an experiment and Hydra overrides")
    parser.add_argument("-m", "--multirun", action="store_true", help="overrides may sweep, as in irope run")
    parser.add_argument("--all", action="store_true", help=f"every cell, not only {SHOWN}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_intermixed_args(arguments)
    import json

    from irope.claims import Claims
    from irope.cli.experiments import experiment_of, overrides_of
    from irope.cli.survey import print_counts, survey, without_collecting
    from irope.launcher import jobs

    words = [*options.words, *(["-m"] if options.multirun else [])]
    overrides = overrides_of(options.words)
    summary, left_out = "", list[str]()
    if any(override.startswith("experiment=") for override in overrides) or options.multirun:
        with without_collecting():
            experiment = experiment_of(words)
        out = Path(experiment.config["sys"]["out"])
        found = survey(experiment)
        counts, title, summary = found.counts, experiment.title, found.summary()
        left_out = list(found.left_out)
    else:
        out, counts = _folder(overrides)
        title = str(out)
    held, arrays = Claims(out).held(), jobs(out)
    failed = sum(count.failed for count in counts.values())
    if options.json:
        record: dict[str, Any] = {"folder": str(out)}
        record["cells"] = {label: vars(count) for label, count in counts.items()}
        record |= {"working": [vars(one) for one in held], "jobs": [_job(array) for array in arrays]}
        print(json.dumps(record))
        return int(failed > 0)
    print(title)
    if counts:
        print_counts(counts, None if options.all else SHOWN)
    else:
        print("  nothing was made here yet")
    for reason in left_out:
        print(f"left out: {reason}")
    if summary:
        print(summary)
    _print_workers(held)
    for array in arrays:
        print(f"job {array.submission.job_id}: {_states(array)}; logs in {array.submission.folder}")
    _print_failures(out, counts)
    return int(failed > 0)


def _folder(overrides: Sequence[str]) -> tuple[Path, Mapping[str, Count]]:
    """Every cell of a results folder, whatever experiment it came from; a video counts as done when it is made."""
    from irope.cli.experiments import scores_folder_of
    from irope.config import load
    from irope.inventory import Count, Inventory

    config = load(overrides)
    out = Path(config["sys"]["out"])
    inventory = Inventory(out, scores_folder_of(config) / str(config["score"]["protocol"]["name"]))
    counts = {}
    for label in inventory.labels():
        made, failed, scored = inventory.made(label), inventory.failed(label), inventory.scored(label)
        if made or failed:
            counts[label] = Count(len(made | failed), len(made), len(made & scored), len(failed - made), 0)
    return out, counts


def _print_workers(held: Sequence[Held]) -> None:
    from irope.cost import duration

    for one in held[:SHOWN]:
        silent = f", silent for {duration(one.silent_for)}" if one.silent_for > 30 else ""
        print(f"working: {one.worker} on {one.name}{silent}")
    if len(held) > SHOWN:
        print(f"working: {len(held) - SHOWN} more")


def _print_failures(out: Path, counts: Mapping[str, Count]) -> None:
    from irope.finished import FAILURE, failed

    shown = 0
    for label in (label for label, count in counts.items() if count.failed):
        for path in sorted((out / label).glob(f"*{FAILURE}")):
            if shown == FAILURES:
                print(f"failed: more; see the *{FAILURE} files in {out}")
                return
            stem = path.with_name(path.name.removesuffix(FAILURE))
            record = failed(stem) or {}
            print(f"failed: {label}/{stem.name}: {record.get('error')}: {record.get('message')}")
            shown += 1


def _states(array: Any) -> str:
    """``3 running, 1 pending``."""
    states = [task.state.lower() for task in array.tasks]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _job(array: Any) -> dict[str, Any]:
    tasks = [{"task": t.task, "state": t.state, "detail": t.detail, "log": str(t.log)} for t in array.tasks]
    return {"job": array.submission.job_id, "folder": str(array.submission.folder), "tasks": tasks}
