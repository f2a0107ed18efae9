"""All scores of a folder as one pandas table, a row for each value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eval.registry import scorers
from eval.scores import read_scores
from irope.errors import UserError
from irope.identity import near_miss

COLUMNS = (
    "protocol",
    "model",
    "length",
    "method",
    "prompt",
    "seed",
    "video",
    "metric",
    "value",
    "terms",
    "clips",
    "skipped",
    "fps",
    "picture",
    "system",
)


SYSTEMS = "other systems"
"""Model of a table that holds no video of a model of ours."""


class MixedError(UserError, ValueError):
    """Scores that cannot stand in one table; says which videos and why."""


def load_frame(folder: Path) -> pd.DataFrame:
    """Read every score file below ``folder``: columns `COLUMNS`, value NaN where a scorer was skipped.

    ``length`` is the length of the scored window as tables show it, for example ``5 s``; ``picture`` the size of a
    frame, ``system`` whether a system of its own made the video.

    Raises:
        UserError: there are none. ScoreFileError: one is broken.
        MixedError: two videos have the same protocol, method, prompt, seed and length, or a scorer had other settings,
            weights or precision for some of them.
    """
    files = sorted(folder.rglob("*.json")) if folder.is_dir() else []
    rows: list[dict[str, Any]] = []
    records: dict[str, Any] = {}
    for file in files:
        content = read_scores(file)
        if content is not None:
            records[content["video"]["name"]] = content["video"].get("record")
            rows += rows_of(content)
    if not rows:
        raise UserError(f"{folder}: no scores; run: irope score {folder.parent if folder.name == 'scores' else folder}")
    return checked_frame(rows, records)


def checked_frame(rows: Sequence[dict[str, Any]], records: Mapping[str, Any], more: Sequence[str] = ()) -> pd.DataFrame:
    """Rows of score files as one table with the columns `COLUMNS` and ``more``.

    Raises:
        MixedError: as `load_frame`.
    """
    _refuse_mixtures(rows)
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *more])
    _refuse_doubles(frame, records)
    return frame


def with_systems(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the videos of other systems beside those of every model that is compared with the like.

    ``model`` of a system's row becomes the model's it stands beside; without any, several systems stand together
    under the name `SYSTEMS`. The embedded model lives in a world of its own: nothing stands beside it.
    """
    if "system" not in frame or not (ours := frame["system"].fillna(False).astype(bool)).any():
        return frame
    others, own = frame[ours], frame[~ours]
    models = [model for model in dict.fromkeys(own["model"]) if str(model).startswith("wan")]
    if not models and others["model"].nunique() == 1:
        return frame
    beside = [others.assign(model=model) for model in models or [SYSTEMS]]
    return pd.concat([own, *beside], ignore_index=True)


def length_name(seconds: float) -> str:
    """``5 s`` for 5.06 s: videos of whole blocks are a few frames longer than their nominal duration."""
    return f"{seconds:.0f} s" if seconds >= 3 else f"{seconds:.1f} s"


def rows_of(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The values of one score file, with ``real_seconds``, the window's length, and ``made`` besides `COLUMNS`."""
    video = content["video"]
    for window, scored in content["windows"].items():
        start, stop = map(int, window.split("-"))
        for name, found in scored["scores"].items():
            yield {
                "protocol": content["protocol"]["name"],
                "model": video["model"] or "",
                "length": length_name((stop - start) / video["fps"]),
                "real_seconds": (stop - start) / video["fps"],
                "method": video["method"],
                "prompt": video["prompt"],
                "seed": video["seed"],
                "video": video["name"],
                "metric": name,
                "value": found.get("value", float("nan")),
                "terms": found.get("terms", 0),
                "clips": found.get("extra", {}).get("clips", 1),
                "skipped": found.get("skipped"),
                "made": found.get("made") if "value" in found else None,
                "fps": video["fps"],
                "picture": f"{video['width']}x{video['height']}" if "width" in video else None,
                "system": bool((video.get("record") or {}).get("system")),
            }


def _refuse_mixtures(rows: Sequence[dict[str, Any]]) -> None:
    """Numbers of other settings, weights or precision never share a column."""
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["made"] is None:
            continue
        other = first.setdefault((row["protocol"], row["metric"]), row)
        if differ := near_miss(other["made"], row["made"]):
            raise MixedError(
                f"{row['metric']} of {other['video']} and of {row['video']} differ in {', '.join(differ)}: "
                "score both again with the same settings, or give one run a protocol name of its own "
                "(score.protocol.name=...)"
            )


def _refuse_doubles(frame: pd.DataFrame, records: Mapping[str, Any]) -> None:
    same = ["protocol", "model", "length", "method", "prompt", "seed", "metric"]
    doubled = frame[frame.duplicated(same, keep=False)]
    if doubled.empty:
        return
    row = doubled.iloc[0]
    group = doubled[(doubled[same] == row[same]).all(axis=1)]
    videos = sorted(set(group["video"]))
    where = f"method {row['method']}, prompt {row['prompt']!r}, seed {row['seed']}, {row['length']}"
    if len(videos) < 2:
        raise MixedError(f"{videos[0]}: two windows of about {row['length']} were scored; delete its score file")
    a, b = (records.get(name) for name in videos[:2])
    differ = [field for field in near_miss(a, b) if not field.startswith("timeline")] if a and b else []
    advice = (
        f"they differ in {', '.join(differ)}: give one a method name of its own (video.method.name=...)"
        if differ
        else "keep one of them in this folder"
    )
    raise MixedError(f"{' and '.join(videos[:2])} are both {where}; {advice}")


def ordered_metrics(frame: pd.DataFrame) -> list[str]:
    """Metrics in the order in which the protocol lists its scorers."""
    return list(dict.fromkeys(frame["metric"]))


def title(metric: str) -> str:
    """Column heading of a metric."""
    known = scorers()
    return known[metric].title if metric in known and known[metric].title else metric.replace("_", " ")
