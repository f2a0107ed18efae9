"""The table of an experiment: a row for each of its cells and lengths, in its order, with what is missing said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from eval.companions import companion_of
from eval.frame import length_name, ordered_metrics
from eval.results import SCRIPTED, CellFiles, Results
from eval.table import Aggregate, Row, Table, filled, with_overall
from eval.table_against import with_against
from eval.table_check import refuse_mixed, weights_note
from eval.table_published import PAPER_NAMES, SMOOTHNESS_NAMES, paper_columns, with_published
from irope.errors import UserError
from irope.settings import hint


@dataclass(frozen=True)
class Gap:
    """A row that lacks ``missing`` of the ``planned`` videos that it asks for."""

    label: str
    length: str
    missing: int
    planned: int


def experiment_frame(results: Results) -> pd.DataFrame:
    """All scores of an experiment, ``length`` being the nominal one, which tables show.

    Raises:
        UserError: nothing is scored yet; says what to run. MixedError: the scores cannot stand in one table.
    """
    refuse_mixed(results)
    frame = results.frame
    if frame.empty:
        raise UserError(f"{results.name}: nothing was scored yet; run: {results.command}")
    nominal = frame["seconds"].map(length_name)
    return frame.assign(length=nominal.where(frame["length"] != SCRIPTED, SCRIPTED))


def experiment_rows(results: Results, frame: pd.DataFrame) -> list[Row]:
    """The rows that an experiment asks for, the shorter lengths first, whether there are scores or not."""
    rows = []
    for seconds in sorted({s for cell in results.cells for s in cell.seconds}):
        rows += [_row(cell, length_name(seconds), seconds) for cell in results.cells if seconds in cell.seconds]
    scripted = [cell for cell in results.cells if not cell.seconds]
    scored = frame[frame["method"].isin([cell.label for cell in scripted])]  # all of one length, see experiment_frame
    length = SCRIPTED if scored.empty else str(scored["length"].iloc[0])
    whole = None if length == SCRIPTED else float(scored["seconds"].iloc[0])
    rows += [_row(cell, length, whole) for cell in scripted]
    return rows


def _row(cell: CellFiles, length: str, seconds: float | None) -> Row:
    return Row(length, cell.label, cell.method, dict(cell.axes), seconds, planned=len(cell.videos))


def too_short(results: Results) -> Counter[tuple[str, str]]:
    """Length and label -> videos that were imported and do not last that long, among those that were scored."""
    short: Counter[tuple[str, str]] = Counter()
    for cell, _, content in results.score_files():
        video = content["video"]
        frames = {s: round(s * video["fps"]) for s in cell.seconds if cell.system}
        short.update((length_name(s), cell.label) for s, needed in frames.items() if video["frames"] < needed)
    return short


def gaps(rows: Sequence[Row], frame: pd.DataFrame, results: Results) -> list[Gap]:
    """The rows for which videos are missing or not scored; videos that are too short cannot be made longer."""
    scored = frame.drop_duplicates(["length", "method", "prompt", "seed"])
    there = Counter(zip(scored["length"], scored["method"], strict=True))
    there.update(too_short(results))
    lacking = [(row, (row.planned or 0) - there[row.length, row.label]) for row in rows]
    return [Gap(row.label, row.length, missing, row.planned or 0) for row, missing in lacking if missing > 0]


def experiment_table(
    results: Results,
    aggregate: Aggregate = "stock",
    *,
    columns: Sequence[str] = (),
    against: str = "",
    common: bool = False,
    seed: int = 0,
) -> Table:
    """The table of an experiment, with the published numbers that may stand beside ours.

    Args:
        columns: metrics to show, in this order; none: those of the paper if it has a table of this experiment under
            this protocol, else all.
        against: a row, named as in `eval.table_cells.fitting`, that all others are compared with.
        common: average only over the prompts and seeds that all rows of a length have; otherwise every row is over
            what it has, its n is shown, and the gaps are said in the notes.

    Raises:
        UserError: nothing is scored, a name is not known, or `MixedError`.
    """
    frame = experiment_frame(results)
    rows = experiment_rows(results, frame)
    notes = gap_notes(gaps(rows, frame, results), results.command)
    if notes:
        notes.append("means are over " + ("the videos that all rows have" if common else "what is there, see n"))
    notes += [f"{label} at {at}: {n} of its videos are shorter" for (at, label), n in too_short(results).items()]
    notes += [f"left out: {said}" for said in results.left_out]
    if weights := weights_note(results):
        notes.append(weights)
    if common:
        frame = _common(frame)
        if frame.empty:
            raise UserError(f"{results.name}: no prompt and seed are common to all rows; run: {results.command}")
    known = ordered_metrics(with_overall(frame))
    if unknown := [metric for metric in columns if metric not in known]:
        raise UserError(f"no scores of {unknown[0]!r}{hint(unknown[0], known)}")
    smooth = any("temporal_smoothness" in _columns_of(name) for name in results.published)
    vbench = results.protocol.startswith("vbench")
    table = Table(
        results.protocol,
        results.model,
        aggregate,
        (),
        tuple(rows),
        tuple(notes),
        results.axes,
        name=results.name + (f", tier {results.tier}" if results.tier else ""),
        sample=sample(results),
        short=PAPER_NAMES | (SMOOTHNESS_NAMES if smooth else {}) if vbench else {},
    )
    table = filled(table, frame, columns or _columns(results, known), seed)
    table = with_published(table, results.published)
    return with_against(table, frame, against, seed) if against else table


def sample(results: Results) -> str:
    """``20 prompts × 1 seed``: what each row asks for, a range where rows differ."""
    prompts = [len({video.prompt for video in cell.videos}) for cell in results.cells]
    seeds = [len({video.seed for video in cell.videos}) for cell in results.cells]
    return f"{_counted(prompts, 'prompt')} × {_counted(seeds, 'seed')}"


def _counted(counts: Sequence[int], what: str) -> str:
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{low}{f'–{high}' if high > low else ''} {what}{'s' if high != 1 else ''}"


def _columns_of(name: str) -> Sequence[str]:
    from eval.table_published import named

    return tuple(named(name).columns)


def _columns(results: Results, known: Sequence[str]) -> list[str]:
    """The paper's columns, with motion and the Overall without dynamic degree beside them; else VBench's in the

    paper's order before all others.
    """
    printed = [m for m in paper_columns(tuple(results.published), results.protocol) if m in known]
    if not printed:
        return [*(m for m in PAPER_NAMES if m in known), *(m for m in known if m not in PAPER_NAMES)]
    beside = [companion_of(metric, known) for metric in printed]
    overall = [m for m in ("quality", "overall_without_dynamic") if m in known]
    return list(dict.fromkeys([*printed, *(m for m in beside if m), *overall]))


def gap_notes(found: Sequence[Gap], command: str) -> list[str]:
    """What is missing and the command that makes it; empty if nothing is."""
    if not found:
        return []
    lines = [f"{gap.label} at {gap.length} lacks {gap.missing} of {gap.planned} videos" for gap in found]
    more = f", and {len(lines) - 8} more rows" if len(lines) > 8 else ""
    return [f"incomplete: {'; '.join(lines[:8])}{more}. To fill them: {command}"]


def _common(frame: pd.DataFrame) -> pd.DataFrame:
    """The videos of prompts and seeds that every row of a length has; rows without any video do not count."""
    kept = []
    for _, at in frame.groupby("length", sort=False):
        pairs = [set(zip(of["prompt"], of["seed"], strict=True)) for _, of in at.groupby("method")]
        shared = set.intersection(*pairs)
        kept.append(at[[pair in shared for pair in zip(at["prompt"], at["seed"], strict=True)]])
    return pd.concat(kept)
