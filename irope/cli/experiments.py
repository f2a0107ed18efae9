"""What the verbs of experiments share: which experiment a command line means, and what is on disk of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.results import Results
    from irope.experiment import Cell, Experiment
    from irope.jobs import VideoJob

SUFFIXES = (".yaml", ".yml")


def is_experiment(name: str) -> bool:
    """Whether a word of the command line is an experiment: the name of one in conf/experiment, or a file of one's own.

    A folder of that name is reached as ``./name``.
    """
    from irope.config import group_options

    return name in group_options("experiment") or (name.endswith(SUFFIXES) and Path(name).is_file())


def overrides_of(arguments: Sequence[str]) -> list[str]:
    """The overrides a command line stands for: ``table1 tier=smoke`` is ``experiment=table1 tier=smoke``.

    Raises:
        UserError: a word that is neither an override nor an experiment; with the nearest one.
    """
    from irope.config import ConfigError, group_options, own_experiment
    from irope.settings import hint

    found = []
    for word in arguments:
        if "=" in word:
            found.append(word)
        elif word.endswith(SUFFIXES):
            found.append(f"experiment={own_experiment(Path(word))}")
        elif is_experiment(word):
            found.append(f"experiment={word}")
        else:
            raise ConfigError(
                f"{word!r} is neither key=value nor an experiment{hint(word, group_options('experiment'))}"
            )
    return found


def experiment_of(arguments: Sequence[str], multirun: bool = False) -> Experiment:
    """The experiment of a command line; ``-m`` or ``--multirun`` among the arguments sweeps as well.

    Raises:
        UserError: naming the key at fault and the nearest valid value.
    """
    from irope.experiment import experiment_from

    words = [word for word in arguments if word not in ("-m", "--multirun")]
    return experiment_from(overrides_of(words), multirun or len(words) < len(arguments))


def command_of(verb: str, arguments: Sequence[str]) -> str:
    """The same command line with another verb, for a shell."""
    return shlex.join(["irope", verb, *arguments])


def results_of(arguments: Sequence[str]) -> Results:
    """What is on disk of the experiment of a command line. Raises as `experiment_of`."""
    return results(experiment_of(arguments), arguments)


def results(experiment: Experiment, arguments: Sequence[str]) -> Results:
    """The places of all videos and scores of an experiment, whether they are there or not."""
    from eval.results import CellFiles, Results, VideoFiles

    cells, models, others = [], list[str](), list[str]()
    for cell in experiment.cells:
        videos = []
        for job in experiment.jobs(cell):
            system = job.model if job.system else ""
            command = again(cell, job)
            videos.append(VideoFiles(job.script.id, job.seed, job.video, scores_of(cell.config, job), command))
        if videos:  # a method that cannot make such videos has none
            (others if system else models).append(job.model)
            files = (cell.label, cell.method, cell.axes, cell.seconds, cell.config, tuple(videos), system, job.model)
            cells.append(CellFiles(*files))
    return Results(
        name=experiment.name,
        description=experiment.description,
        tier=experiment.tier,
        axes=experiment.axes,
        protocol=str(experiment.config["score"]["protocol"]["name"]),
        model=", ".join(dict.fromkeys(models or others)),
        published=experiment.published,
        command=command_of("run", arguments),
        cells=tuple(cells),
        left_out=experiment.reasons,
    )


def scores_folder_of(config: Mapping[str, Any]) -> Path:
    """Folder of the score files of a run: ``score.out``, or scores/ below ``sys.out``."""
    from eval.videos import SCORES

    return Path(config["score"]["out"] or Path(config["sys"]["out"]) / SCORES)


def scores_of(config: Mapping[str, Any], job: VideoJob) -> Path:
    """The score file of a video under the configuration's protocol."""
    from eval.scores import score_path

    folder = str(config["video"]["method"]["name"])
    return score_path(scores_folder_of(config), str(config["score"]["protocol"]["name"]), f"{folder}/{job.name}")


def again(cell: Cell, job: VideoJob) -> str:
    """The command that makes one video of a cell, in its place."""
    from irope.sweep import key_of

    beside = ("experiment", "tier", "launcher", "video.prompts.limit", "video.method.name")
    kept = [o for o in cell.overrides if key_of(o) not in beside and not key_of(o).startswith(("sys.worker", "score."))]
    name = [f'video.method.name="{cell.label}"'] if cell.label != cell.method else []
    one = [f"video.prompts.only=[{job.script.id}]", f"seed={job.seed}"]
    return shlex.join(["irope", "generate", *kept, *name, *one])


def measured_kind(words: Sequence[str]) -> str | None:
    """``attention_maps``, ``latency`` or ``policy_study`` for an experiment that measures; None for one of videos.

    Raises as `overrides_of`.
    """
    from irope.config import CONF, read_yaml

    for override in overrides_of([word for word in words if not word.startswith("-")]):
        key, _, name = override.partition("=")
        if key == "experiment" and (path := CONF / "experiment" / f"{name}.yaml").is_file():
            kind = str(read_yaml(path).get("kind", "videos"))
            return None if kind == "videos" else kind
    return None
