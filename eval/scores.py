"""Score files: one JSON for each video and protocol, written as results come, read by tables.

A file holds the windows of a video that were scored and, for each scorer, its value, how it was reached and its key:
the hash of everything the value depends on (protocol, scorer, settings, weights, precision, window, video file).
A value whose key is not the wanted one counts as missing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval.scorer import Measurement, Rows, Skip
from irope.errors import UserError
from irope.identity import config_key
from irope.provenance import write_json_atomic

VERSION = 1
"""Of what a key stands for; raised when the same scorer would give other numbers."""

CURVE_SECONDS = 1.0
"""Curves are kept as means over windows of this length."""


class ScoreFileError(UserError, ValueError):
    """A score file cannot be read; names the file and what to do."""


def score_path(folder: Path, protocol: str, name: str) -> Path:
    """Where the scores of a video lie: ``folder/protocol/name.json``."""
    return folder / protocol / f"{name}.json"


def score_key(protocol: Mapping[str, Any], name: str, made: Mapping[str, Any], source: Mapping[str, Any]) -> str:
    """Key of a scorer's values of one video; the window stands beside it.

    Args:
        made: settings, weights, precision and other scorers behind the numbers.
        source: digest of the file that is decoded, and the segments with their prompts.
    """
    return config_key({"version": VERSION, "protocol": protocol, "scorer": name, "made": made, "source": source})


def read_scores(path: Path) -> dict[str, Any] | None:
    """The content of a score file, None if there is none.

    Raises:
        ScoreFileError: the file is there and is no score file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ScoreFileError(f"{path} cannot be read ({error}); delete it and score again") from error
    if not isinstance(found, dict) or not {"protocol", "video", "windows"} <= found.keys():
        raise ScoreFileError(f"{path} is not a score file; move it out of this folder")
    return found


def write_scores(path: Path, content: Mapping[str, Any]) -> None:
    write_json_atomic(path, content)


def window_name(start: int, stop: int) -> str:
    """How a window is called in a score file: ``0-81``, in frames."""
    return f"{start}-{stop}"


def entry(outcome: Measurement | Skip, key: str, fps: float) -> dict[str, Any]:
    """One scorer's answer, as JSON types. A skip says why."""
    if isinstance(outcome, Skip):
        return {"key": key, "skipped": str(outcome)}
    if not math.isfinite(outcome.value):
        return {"key": key, "skipped": f"the result is {outcome.value}: please report this video"}
    written: dict[str, Any] = {"key": key, "value": outcome.value, "terms": outcome.terms}
    if outcome.extra:
        written["extra"] = {k: v if math.isfinite(v) else None for k, v in outcome.extra.items()}
    if outcome.curve is not None:
        written["curve"] = {"seconds": CURVE_SECONDS, "values": windowed(outcome.curve, fps)}
    if outcome.notes:
        written["notes"] = list(outcome.notes)
    return written


def windowed(curve: Rows, fps: float, seconds: float = CURVE_SECONDS) -> list[float | None]:
    """Means of a per-frame curve over windows of ``seconds``; None where a window has no value.

    A window holds the frames that begin within it, so that rates such as 23.976 need no rounding.
    """
    index = (np.arange(len(curve)) / (fps * seconds) + 1e-9).astype(np.int64)
    known = ~np.isnan(curve)
    size = int(index[-1]) + 1 if len(index) else 0
    counts = np.bincount(index[known], minlength=size)
    sums = np.bincount(index[known], weights=curve[known], minlength=size)
    return [round(float(s / n), 6) if n else None for s, n in zip(sums, counts, strict=True)]
