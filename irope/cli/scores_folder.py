"""Where the verbs that read scores find them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from irope.errors import UserError
from irope.settings import hint

if TYPE_CHECKING:
    import pandas as pd


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
