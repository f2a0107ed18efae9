"""Two policies on the same script: are they the same, and if not, where do they differ?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from irope.explain.rows import Gap, Row, condense, spans, unit_of
from irope.explain.text import EVENT_MARKS, LEGEND, columns, table_of
from irope.policy import PageId


@dataclass(frozen=True)
class Comparison:
    """Two policies on the same script.

    Attributes:
        identical: whether they must generate the same video, but for rounding.
        verdict: the same in words.
        rows: where they differ in more than a common shift of the indices: (row of a, row of b, how).
    """

    identical: bool
    verdict: str
    rows: tuple[tuple[Row, Row, str], ...]


def _distances(row: Row) -> dict[PageId, list[int]]:
    """Page -> its index distances to the first query (a page may be read twice)."""
    found: dict[PageId, list[int]] = {}
    for page, index in zip(row.plan.read, row.plan.key_index, strict=True):
        found.setdefault(page, []).append(row.plan.query_index[0] - index)
    return {page: sorted(distances) for page, distances in found.items()}


def _work(row: Row) -> object:
    """What a plan does besides attending, in index differences."""
    plan, r = row.plan, row.plan.recompute
    queries = tuple(q - plan.query_index[0] for q in plan.query_index)
    again = None
    if r is not None:
        keys = sorted((str(page), index - r.index[0]) for page, index in zip(r.read, r.key_index, strict=True))
        again = (r.frames, tuple(i - r.index[0] for i in r.index), frozenset(r.store), tuple(keys))
    return row.frames, row.context, row.restart, queries, again, plan.merge, plan.select, plan.head_theta


def _difference(a: Row, b: Row) -> str:
    """How two plans differ beyond a common shift of their indices; empty when they do not."""
    one, two = _distances(a), _distances(b)
    if one.keys() != two.keys():
        only = (("A", one.keys() - two.keys()), ("B", two.keys() - one.keys()))
        parts = [f"only {name} attends {spans(_sorted(pages))}" for name, pages in only if pages]
        return "; ".join(parts)
    moved = [page for page in one if one[page] != two[page]]
    if moved:
        sink = {page for row in (a, b) for page, role in zip(row.plan.read, row.roles, strict=True) if role == "sink"}
        what = "sink" if set(moved) <= sink else "frames " + spans(moved)
        return f"{what}: distance {spans(one[moved[0]])} in A, {spans(two[moved[0]])} in B"
    if _work(a) != _work(b):
        again = (a.plan.recompute is None) != (b.plan.recompute is None)
        if again:
            return f"only {'A' if a.plan.recompute else 'B'} encodes frames again"
        same_queries = _work(a)[3] == _work(b)[3]  # type: ignore[index]
        return "the same frames, made differently" if same_queries else "the block's own indices"
    return ""


def _sorted(pages: Iterable[PageId]) -> list[PageId]:
    return sorted(pages, key=lambda page: (isinstance(page, int), page))


def diff(a: Sequence[Row], b: Sequence[Row]) -> Comparison:
    """Compare two traces of the same script.

    Attention knows only index differences, and it does not know the order of its keys. So two policies are the same
    when at every block they attend to the same frames at the same distances, and did so at every block before.
    """
    if [(row.label, row.context) for row in a] != [(row.label, row.context) for row in b]:
        return Comparison(
            False,
            "They do not generate in the same order of calls (different schedules), so they cannot be the same.",
            (),
        )
    unit = unit_of(a)
    rows = tuple((x, y, how) for x, y in zip(a, b, strict=True) if (how := _difference(x, y)))
    if rows:
        first = rows[0][0]
        before = f"Identical before {unit} {first.label}. " if first is not a[0] else ""
        sink_only = all(how.startswith("sink: ") for _, _, how in rows)
        verdict = f"They differ from {unit} {first.label} on: {rows[0][2]}."
        if sink_only:
            verdict += " The distance of the sink is the only difference between their plans."
        verdict += " Behind that the cached frames differ, so nothing is the same any more."
        return Comparison(False, before + verdict, rows)
    moved = [x for x, y in zip(a, b, strict=True) if x.plan.query_index != y.plan.query_index]
    if not moved:
        return Comparison(True, "Identical: the same frames at the same indices, at every block.", ())
    return Comparison(
        True,
        "Mathematically identical: at every block the same frames are attended at the same index differences, and only "
        f"differences matter. The indices themselves differ from {unit} {moved[0].label} on, which moves results by "
        "rounding only.",
        (),
    )


def render_diff(comparison: Comparison, names: tuple[str, str] = ("A", "B")) -> str:
    """The verdict, and the rows that differ, side by side."""
    head = f"A: {names[0]}\nB: {names[1]}\n\n{comparison.verdict}"
    if not comparison.rows:
        return head
    how = {x.label: text for x, _, text in comparison.rows}
    pairs = [(x, y) for x, y, _ in comparison.rows]
    lines: list[Sequence[str] | str] = []
    for item in condense(pairs):
        if isinstance(item, Gap):
            lines.append(f"  ⋮    {item.labels}: A is {item.summary}")
        else:
            x, y = item
            mark = EVENT_MARKS.get(x.event, "")
            lines.append((f"{x.label} {mark}".strip(), *columns(x), *columns(y), how[x.label]))
    header = (unit_of(pairs[0]), "A frames", "A index", "B frames", "B index", "difference")
    return f"{head}\n\n{table_of(header, lines)}\n\n{LEGEND}"
