"""Published numbers as data: every table of ``conf/paper`` as one tidy frame, and look-up with near-name hints.

A row of the frame is one printed number. Every row says ``origin = published``; such numbers are shown beside ours and
never averaged with them (`forbid_published`). Percentages are converted: ``value`` is 0..1 where ours is, ``printed``
is what stands in the paper.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import conf
from eval.published_file import ORIGIN, PublishedError, PublishedTable, plain, read_table
from irope.settings import hint

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(conf.__file__).parent / "paper"
FIELDS = (
    *("table", "source", "model", "method", "seconds", "setting", "metric", "value", "unit", "printed"),
    *("protocol", "protocol_inferred", "n", "second_hand", "note", "origin"),
)
SAME_ROWS = {
    **dict.fromkeys(("infinity_rope_paper", "infinity_rope_plain", "infinity_rope_paper_tuned"), "infinity_rope"),
    "longlive": "kv_recache",
    **dict.fromkeys(("self_forcing_w6", "self_forcing_w12", "self_forcing_w21"), "rolling"),
}
"""Methods asked for -> the one whose published rows they share: whether the paper's numbers come from the released code
(f_0 = cache size) or from its text (f_0 = 21), with weights tuned with a sink or not, and with which window
Self-Forcing was run, is not known."""

ALIASES = {"overall": "quality"}
"""Metric names as printed -> ours."""


@cache
def tables(folder: Path = FOLDER) -> dict[str, PublishedTable]:
    """Every table of ``folder`` by file name, sorted.

    Raises:
        PublishedError: a file is not valid, or there is none.
    """
    found = {path.stem: read_table(path) for path in sorted(folder.glob("*.yaml"))}
    if not found:
        raise PublishedError(f"{folder}: no published tables (*.yaml) there")
    return found


def claims(name: str, folder: Path = FOLDER) -> pd.DataFrame:
    """A table of text (protocols, ablations without numbers) as printed, all cells strings.

    Raises:
        PublishedError: no such table of claims; with the nearest name.
    """
    import pandas as pd

    known = {table.name: table for table in tables(folder).values() if table.kind == "claims"}
    if name not in known:
        raise PublishedError(f"no published claims {name!r}{hint(name, known)}")
    return pd.DataFrame(list(known[name].rows), columns=list(known[name].columns))


def published_frame(folder: Path = FOLDER) -> pd.DataFrame:
    """All published numbers, one per row, with the columns `FIELDS`.

    ``value`` is 0..1 for unit ``unit``, else in its unit; ``seconds`` NaN and ``n`` missing where they are not known;
    ``method`` is None for models that have no method here; ``setting`` is ``delta=6, in_horizon=true`` or empty.

    Raises:
        PublishedError: a file is not valid.
    """
    import pandas as pd

    records = [record for table in tables(folder).values() for record in table.records()]
    frame = pd.DataFrame(records, columns=list(FIELDS))
    return frame.astype({"n": "Int64", "seconds": "float64"})


def published(
    table: str | None = None,
    method: str | None = None,
    seconds: float | None = None,
    metric: str | None = None,
    *,
    model: str | None = None,
    setting: str | None = None,
) -> pd.DataFrame:
    """The rows of `published_frame` that match everything given; at least one.

    Args:
        table: file name in ``conf/paper`` without ``.yaml``, such as ``table1``.
        method: our name, such as ``infinity_rope``; a method that shares rows (`SAME_ROWS`) is looked up there.
        seconds: length of the videos.
        metric: VBench's name with underscores; ``quality`` is the paper's Overall.
        model: the paper's name, hyphens and case aside, for models that have no method here.
        setting: as in the frame, for ablations.

    Raises:
        PublishedError: nothing matches; says which of the conditions fails and what there is, nearest first.
    """
    found = published_frame()
    wanted: list[tuple[str, Any]] = [
        ("table", table),
        ("model", model),
        ("method", SAME_ROWS.get(method or "", method)),
        ("seconds", None if seconds is None else float(seconds)),
        ("setting", setting),
        ("metric", ALIASES.get(metric or "", metric)),
    ]
    so_far: list[str] = []
    for field, value in wanted:
        if value is None:
            continue
        column = found[field].map(plain) if field == "model" else found[field]
        matching = found[column == (plain(value) if field == "model" else value)]
        if matching.empty:
            there = [_show(choice) for choice in found[field].dropna().unique()]
            where = f" for {', '.join(so_far)}" if so_far else ""
            near = hint(_show(value), there) if there else f"; no row has a {field}"
            raise PublishedError(f"nothing published{where} with {field}={_show(value)}{near}")
        found = matching
        so_far.append(f"{field}={_show(value)}")
    return found.reset_index(drop=True)


def published_value(table: str, metric: str, *, seconds: float | None = None, **names: str) -> float:
    """The one number that `published` finds (``method``, ``model`` and ``setting`` as there), 0..1 where ours is.

    Raises:
        PublishedError: none or several match.
    """
    found = published(table=table, seconds=seconds, metric=metric, **names)
    if len(found) != 1:
        rows = found[["model", "seconds", "setting"]].astype(str).agg(" ".join, axis=1)
        raise PublishedError(f"{table} {metric}: {len(found)} numbers match, say which: {'; '.join(rows)}")
    return float(found["value"].iloc[0])


def forbid_published(frame: pd.DataFrame) -> pd.DataFrame:
    """Pass a frame of our own scores on to statistics.

    Raises:
        PublishedError: it holds published numbers, which are never averaged or compared as if they were samples.
    """
    if "origin" in frame and (count := int((frame["origin"] == ORIGIN).sum())):
        raise PublishedError(f"{count} published numbers among the scores; show them beside ours, do not average them")
    return frame


def _show(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
