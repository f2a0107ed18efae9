"""Where the verbs that read scores find them: an experiment by name, or a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irope.errors import UserError
from irope.settings import hint

if TYPE_CHECKING:
    import pandas as pd

    from eval.results import Results


def results_or_folder(words: Sequence[str]) -> Results | None:
    """The results of an experiment with its settings or of a sweep (``-m key=a,b``), None for a folder.

    An experiment goes before a folder of the same name, which is reached as ``./NAME``.

    Raises:
        UserError: neither, a folder with settings, or an experiment without scores.
    """
    from irope.cli.experiments import is_experiment, measured_kind, results_of

    name = words[0]
    if is_experiment(name) and measured_kind(words) is not None:
        raise UserError(f"{name} measures and scores no videos: irope plot {' '.join(words)}")
    if is_experiment(name) or ("=" in name and not Path(name).exists()):
        return results_of(words)
    if not Path(name).exists():
        from irope.config import group_options

        raise UserError(f"{name}: no such folder, and no experiment{hint(name, group_options('experiment'))}")
    if len(words) > 1:
        raise UserError(f"{name} is a folder: {' '.join(words[1:])} would have no effect; settings are of experiments")
    return None


def scores_folder(path: Path) -> Path:
    """The folder of score files of a scored folder, or the folder itself if it is one.

    Raises:
        UserError: there is no such folder, or nothing was scored.
    """
    from eval.videos import SCORES

    if (path / SCORES).is_dir():
        return path / SCORES
    if not path.exists():
        raise UserError(f"{path}: no such folder")
    if path.name != SCORES and not any(path.glob("*/**/*.json")):
        raise UserError(f"{path}: nothing was scored here; run: irope score {path}")
    return path


def only_protocol(frame: pd.DataFrame, name: str | None) -> pd.DataFrame:
    """The rows of one protocol; all of them for None.

    Raises:
        UserError: nothing was scored under that protocol.
    """
    if name is None:
        return frame
    known = sorted(set(frame["protocol"]))
    if name not in known:
        raise UserError(f"no scores of protocol {name!r} here{hint(name, known)}")
    return frame[frame["protocol"] == name]
