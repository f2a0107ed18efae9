"""Tables of the policy study: for every part a mean with its interval a cell, and differences paired by prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eval.study import NAMES, Difference, Readings, Study, differences, digits, p_text

WINDOWS = ("action", "iou", "color", "background", "shape", "streak", "pace", "home", "seam", "returns")
SWITCH = ("lag", "at_once", "responded", "before", "edge", "color", "shape")
CUT = ("once", "late", "jump", "edge", "same")
COURSE = ("action", "iou", "background")


@dataclass
class Table:
    """A titled table; ``rows`` of text, and ``numbers``, the same in full for the JSON."""

    title: str
    header: list[str]
    note: str = ""
    rows: list[list[str]] = field(default_factory=list)
    numbers: list[dict[str, Any]] = field(default_factory=list)

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", _row(self.header), _row(["---"] * len(self.header))]
        lines += [_row(row) for row in self.rows]
        return "\n".join([*lines, *(["", self.note] if self.note else []), ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def tables(study: Study) -> list[Table]:
    """The tables of every part that the tier has, checkpoint by checkpoint."""
    makers: tuple[Callable[[Study, str], Iterable[Table]], ...] = (_windows, _switch, _cut, _attention)
    return [table for make in makers for checkpoint in study.checkpoints for table in make(study, checkpoint)]


def _means(
    title: str, found: Sequence[Readings], measures: Sequence[str], start: float | None = None, note: str = ""
) -> Table:
    """A row a cell, a mean with its interval a measure."""
    table = Table(title, ["cell", *(NAMES[measure] for measure in measures), "n"], note)
    for cell in found:
        texts, counts = [], []
        for measure in measures:
            values = cell.interval(measure, start)
            texts.append(values.text(digits(measure)))
            counts.append(values.n)
            table.numbers.append(
                {
                    **_of(cell),
                    "measure": measure,
                    "start": start,
                    "mean": _number(values.estimate),
                    "low": _number(values.low),
                    "high": _number(values.high),
                    "n": values.n,
                    "interval": values.method,
                }
            )
        table.rows.append([_named(cell), *texts, _range(counts)])
    return table


def _of(cell: Readings) -> dict[str, Any]:
    return {"part": cell.data["part"], "checkpoint": cell.checkpoint, "cell": cell.label}


def _number(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(high) if low == high else f"{low}–{high}"


def _named(cell: Readings) -> str:
    """The label of a row, with the settings that are the same by arithmetic."""
    facts = cell.facts
    if facts.get("index") == "any":
        return f"{cell.label} (absolute = relative = every f0)"
    if facts.get("index") == "relative" and facts.get("f0") == facts.get("window"):
        return f"{cell.label} (= attached sink)"
    if facts.get("way") == "keep" and facts.get("window") == 6:
        return f"{cell.label} (= flush 2)"
    return cell.label


def _compared(title: str, found: Sequence[Difference], note: str = "") -> Table:
    note = f"p after Holm's correction for the {len(found)} comparisons of this table. {note}".strip()
    table = Table(title, ["difference", "measure", "mean (95 % interval)", "p", "n"], note)
    for one in found:
        of = one.interval
        table.rows.append([one.name, NAMES[one.measure], of.text(digits(one.measure)), p_text(one.p), str(of.n)])
        numbers = {"mean": _number(of.estimate), "low": _number(of.low), "high": _number(of.high)}
        table.numbers.append(
            {"difference": one.name, "measure": one.measure, **numbers, "p": _number(one.p), "n": of.n}
        )
    return table


# --- part A -----------------------------------------------------------------------------------------------------------


def _windows(study: Study, checkpoint: str) -> Iterable[Table]:
    found = study.find("windows", checkpoint)
    if not found:
        return
    last = max(start for start in found[0].starts if all(start in cell.starts for cell in found))
    note = (
        "home: overlap of the subject with that of frame 0 beyond the true clip's (about 0 is true, .6 and more is a "
        "video locked to its first frame); pace: over the true one; seam: step at block borders over that at other "
        "latents; returns: share of block borders where the subject jumps back towards its first place."
    )
    yield _means(f"Windows, `{checkpoint}`, {last:g}–{last + 5:g} s", found, WINDOWS, last, note)
    yield _course(found, checkpoint)
    pairs = []
    for cell in found:
        if cell.facts["index"] != "absolute" or not cell.facts["sink"]:
            continue
        near = [c for c in found if _same_cache(c, cell) and c.facts["index"] == "relative"]
        for other in near[:1]:
            for start in other.starts:
                for measure in ("action", "iou"):
                    if start in cell.starts:
                        name = f"{other.label} - absolute, {start:g} s"
                        pairs.append((name, measure, other.values(measure, start), cell.values(measure, start)))
    if pairs:
        yield _compared(f"Relative against absolute indices, `{checkpoint}`", differences(pairs))
    pairs = []
    for cell in found:
        if cell.facts["index"] == "relative":
            nearest = next(c for c in found if _same_cache(c, cell) and c.facts["index"] == "relative")
            if nearest is not cell:
                name = f"{cell.label} - f0={nearest.facts['f0']}, {last:g} s"
                for measure in ("action", "iou"):
                    pairs.append((name, measure, cell.values(measure, last), nearest.values(measure, last)))
    if pairs:
        yield _compared(f"f0 against the smallest, `{checkpoint}`", differences(pairs))


def _same_cache(a: Readings, b: Readings) -> bool:
    return all(a.facts[name] == b.facts[name] for name in ("window", "sink"))


def _course(found: Sequence[Readings], checkpoint: str) -> Table:
    starts = sorted({start for cell in found for start in cell.starts})
    names = " / ".join(NAMES[measure] for measure in COURSE)
    table = Table(
        f"Course in time, `{checkpoint}`: {names}",
        ["cell", *(f"{start:g} s" for start in starts)],
        "Means over the prompts of the 5 s that begin there; their intervals are in the JSON.",
    )
    for cell in found:
        row = [_named(cell)]
        for start in starts:
            if start not in cell.starts:
                row.append("")
                continue
            parts = []
            for measure in WINDOWS:
                values = cell.interval(measure, start)
                if measure in COURSE:
                    parts.append(f"{values.estimate:.2f}")
                numbers = {"mean": _number(values.estimate), "low": _number(values.low), "high": _number(values.high)}
                table.numbers.append({**_of(cell), "measure": measure, "start": start, **numbers, "n": values.n})
            row.append(" / ".join(parts))
        table.rows.append(row)
    return table


# --- parts B, C, D ----------------------------------------------------------------------------------------------------


def _switch(study: Study, checkpoint: str) -> Iterable[Table]:
    for kind in study.choices("switch", checkpoint, "kind"):
        found = study.find("switch", checkpoint, kind=kind)
        blocks = len(found[0].data["readings"][0]["shown"])
        note = (
            f"blocks until seen: a mean restricted to the {blocks} blocks looked at, a video that never responds "
            f"counts {blocks}; at once: first and second block; edge: step at the switch over that at the three block "
            "borders before. "
            "A recache of window w costs one more forward of w frames; a flush none."
        )
        yield _means(f"Switch of the {kind}, `{checkpoint}`", found, SWITCH, note=note)
        pairs = []
        for cell in found:
            kept = study.one("switch", checkpoint, kind=kind, way="keep", window=cell.facts["window"])
            if kept is not None and cell is not kept:
                for measure in ("lag", "at_once", "edge"):
                    pairs.append((f"{cell.label} - keep", measure, cell.values(measure), kept.values(measure)))
        if pairs:
            yield _compared(f"Switch of the {kind}: against keeping the cache, `{checkpoint}`", differences(pairs))


def _cut(study: Study, checkpoint: str) -> Iterable[Table]:
    found = study.find("cut", checkpoint)
    if not found:
        return
    note = (
        "background: mean |rgb| change, 0..1; same subject: colour and shape of the last two blocks as before the cut."
    )
    yield _means(f"Scene cut, `{checkpoint}`", found, CUT, note=note)
    flush = study.one("cut", checkpoint, way="flush")
    if flush is not None:
        pairs = [
            (f"{cell.label} - flush only", measure, cell.values(measure), flush.values(measure))
            for cell in found
            if cell.facts["way"] == "cut"
            for measure in ("once", "edge")
        ]
        yield _compared(f"Scene cut: against a flush alone, `{checkpoint}`", differences(pairs))


def _attention(study: Study, checkpoint: str) -> Iterable[Table]:
    found = study.find("attention", checkpoint)
    if not found:
        return
    table = Table(
        f"Attention on the sink, `{checkpoint}`",
        ["roll-out", "index distance", "even share", "mass, first step", "mass, last step", "most in a head", "n"],
        "Mean over layers, heads, blocks and prompts; most in a head: the largest mean of one head in one layer, at "
        "the last step. Even share: what the sink would have if all keys were attended alike.",
    )
    for cell in found:
        for low, high in _bands(cell):
            attention = cell.data["attention"]
            blocks = [i for i, distance in enumerate(attention["distance"]) if low <= distance <= high]
            mass_BTS = np.asarray(attention["by_prompt"])[:, blocks]
            by_head_TSAH = np.asarray(attention["by_head"])[blocks]
            even = float(np.mean(np.asarray(attention["even"])[blocks]))
            means, heads = mass_BTS.mean(axis=(0, 1)), by_head_TSAH.mean(axis=0)[-1]
            layer, head = (int(i) for i in np.unravel_index(heads.argmax(), heads.shape))
            distance = f"{low}" if low == high else f"{low}–{high}"
            most = f"{heads.max():.3f} (layer {layer + 1}, head {head + 1})"
            row = [cell.label, distance, f"{even:.3f}", f"{means[0]:.3f}", f"{means[-1]:.3f}", most, str(len(mass_BTS))]
            table.rows.append(row)
            numbers = {"low": low, "high": high, "even": even, "mass": [float(m) for m in means], "n": len(mass_BTS)}
            table.numbers.append({**_of(cell), **numbers, "by_head": np.round(by_head_TSAH.mean(axis=0), 5).tolist()})
    yield table


def _bands(cell: Readings) -> list[tuple[int, int]]:
    """Index distances of a row: the resting one of a relative roll-out; growing stretches of an absolute one."""
    seen = cell.data["attention"]["distance"]
    if cell.facts["index"] == "relative":
        return [(max(seen), max(seen))]
    edges = ((1, 9), (10, 18), (19, 40), (41, 80), (81, 1000))
    found = [(low, high, [d for d in seen if low <= d <= high]) for low, high in edges]
    return [(min(inside), max(inside)) for _, _, inside in found if inside]
