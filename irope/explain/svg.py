"""Rows as a drawing: one line a block, one cell a frame, placed by temporal index, by distance, or by frame number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from irope.explain.rows import EVENT_NAMES, Gap, Row, condense, grouped, unit_of
from irope.policy import CacheEvent, PageId

Axis = Literal["index", "distance", "frame"]
AXES = {
    "index": "temporal index →",
    "distance": "temporal index, counted from the new block →",
    "frame": "latent frame →",
}
WIDEST = 40  # columns of an index axis; beyond it distances are drawn, which stay few

NAMES = {
    "sink": "sink (first frames, always kept)",
    "past": "past frames",
    "new": "new block",
    "recomputed": "encoded again",
    "memory": "memory",
}
# Distinguishable for colour-blind readers (Okabe and Ito), on light and dark ground alike.
FILL = {"sink": "#e69f00", "past": "#7cc4ee", "new": "#0a8f6a", "recomputed": "#d55e00", "memory": "#cc79a7"}
INK = {"sink": "#1b1b1b", "past": "#1b1b1b", "new": "#ffffff", "recomputed": "#ffffff", "memory": "#1b1b1b"}

STYLE = """
  .ground { fill: #ffffff; } .line { stroke: #d0d7de; } .band { fill: #f6f8fa; }
  .edge { stroke: #cf222e; } text { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-size: 17px; font-weight: 600; } .sub { font-size: 13px; fill: #59636e; }
  .label { font-size: 13px; text-anchor: end; } .tick { font-size: 11px; fill: #59636e; text-anchor: middle; }
  .cell { font-size: 12px; text-anchor: middle; } .note { font-size: 12px; fill: #59636e; }
  .event { font-size: 12px; font-weight: 600; fill: #8250df; } .mark { fill: #8250df; } .warn { fill: #cf222e; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; } .line { stroke: #3d444d; } .band { fill: #151b23; } .edge { stroke: #ff7b72; }
    text { fill: #f0f6fc; } .sub, .tick, .note { fill: #9198a1; }
    .event, .mark { fill: #b58cff; } .warn { fill: #ff7b72; }
  }
"""

CELL, ROW, LEFT, HEAD, BREAK = 32, 30, 112, 104, 22
LETTER = 6.2  # average width of a 12 px letter


@dataclass(frozen=True)
class Cell:
    """A cached or new frame: where it stands, what is written in it, what a pointer is told."""

    place: PageId
    label: str
    role: str
    tip: str


def _cells(row: Row, axis: Axis) -> list[Cell]:
    start = row.plan.query_index[0]
    parts: list[tuple[PageId, int, str]] = list(zip(row.plan.read, row.plan.key_index, row.roles, strict=True))
    parts += [
        (frame, index, "past" if row.context else "new")
        for frame, index in zip(row.frames, row.plan.query_index, strict=True)
    ]
    cells: dict[PageId, Cell] = {}
    for page, index, role in parts:
        places: dict[str, PageId] = {"index": index, "distance": index - start, "frame": page}
        place, label = places[axis], str(index if axis == "frame" else page)
        what = f"frame {page}" if isinstance(page, int) else f"memory page {page}"
        tip = f"{what} at temporal index {index}, {NAMES[role]}"
        if place in cells:  # several frames at one index, or one frame read twice
            tip = f"{cells[place].tip}; {tip}"
            label = f"{tip.count(';') + 1}×"
        cells[place] = Cell(place, label, role, tip)
    return list(cells.values())


class _Columns:
    """Places side by side; where numbers are missing the axis is broken."""

    def __init__(self, places: Iterable[PageId]) -> None:
        found = set(places)
        ordered: list[PageId] = sorted((p for p in found if isinstance(p, str)), key=str)
        ordered += sorted(p for p in found if isinstance(p, int))
        self.x: dict[PageId, float] = {}
        self.breaks: list[float] = []
        x, before = float(LEFT), None
        for place in ordered:
            if before is not None and (isinstance(before, str) or isinstance(place, str) or place > before + 1):
                if type(place) is type(before):
                    self.breaks.append(x + BREAK / 2)
                x += BREAK
            self.x[place] = x
            x, before = x + CELL, place
        self.end = x


def render_svg(
    rows: Sequence[Row], title: str = "", subtitle: str = "", axis: Axis | None = None, limit: int = 18
) -> str:
    """A self-contained drawing, for light and dark pages.

    Args:
        rows: from `irope.explain.trace`.
        axis: what a column is: the temporal index (cells then hold frame numbers), the same counted from the block's
            first frame (nothing else matters to attention), or the frame number (cells then hold indices). Without
            one: the index, or the distance where indices would take too much room.
        limit: about so many lines; of longer videos the first, those around events, and the last are drawn.
    """
    groups = [tuple(row for row in group if not row.context or row.restart) for group in grouped(rows)]
    told = condense([group for group in groups if group], limit)
    drawn = [row for item in told if not isinstance(item, Gap) for row in item]
    columns = _Columns(cell.place for row in drawn for cell in _cells(row, axis or "index"))
    if axis is None:
        axis = "index" if len(columns.x) <= WIDEST else "distance"
        columns = _Columns(cell.place for row in drawn for cell in _cells(row, axis))
    edge = _edge(columns, axis, drawn[0].horizon) if drawn else None
    notes = [", ".join(_notes(row, row is drawn[-1])) for row in drawn]
    gaps = [f"windows {item.labels}: {item.summary}" for item in told if isinstance(item, Gap)]
    legend = [role for role in NAMES if any(cell.role == role for row in drawn for cell in _cells(row, axis))]
    names = " ".join(NAMES[role] for role in legend)
    width = max(
        columns.end + 36 + LETTER * max(map(len, notes), default=0),
        LEFT + 20 + LETTER * max(map(len, gaps), default=0),
        LEFT + 30 * len(legend) + LETTER * len(names) + 20,
        24 + 9.5 * len(title),
        24 + 6.8 * len(subtitle),
    )
    body: list[str] = []
    y = HEAD
    for item in told:
        if isinstance(item, Gap):
            body += _gap(item, y, columns, unit_of(rows))
            y += ROW
        else:
            for row in item:
                body += _line(row, y, columns, axis, edge, row is drawn[-1])
                y += ROW
    height = y + 52
    frame = [
        *_ticks(columns, axis),
        *(_edge_label(columns, axis, drawn[0].horizon, edge) if edge is not None else []),
        *body,
        *_legend(legend, y + 30),
    ]
    what = escape(f"{title}. {subtitle}".strip(". "))
    size = f'viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{what}">',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{width:.0f}" height="{height}" rx="8"/>',
        f'<text class="title" x="20" y="30">{escape(title)}</text>',
        f'<text class="sub" x="20" y="50">{escape(subtitle)}</text>',
    ]
    return "\n".join([*head, *frame, "</svg>\n"])


def _ticks(columns: _Columns, axis: Axis) -> list[str]:
    out = [f'<text class="note" x="{LEFT}" y="{HEAD - 30}">{AXES[axis]}</text>']
    out += [
        f'<text class="tick" x="{x + CELL / 2:.0f}" y="{HEAD - 10}">{escape(str(place))}</text>'
        for place, x in columns.x.items()
    ]
    return out + [f'<text class="tick" x="{x:.0f}" y="{HEAD - 10}">…</text>' for x in columns.breaks]


def _edge(columns: _Columns, axis: Axis, horizon: int) -> float | None:
    """Where the trained indices (0 .. horizon-1) or distances end, if any frame stands beyond."""
    numbers = [place for place in columns.x if isinstance(place, int)]
    if axis == "index" and max(numbers) >= horizon:
        x = columns.x[min(place for place in numbers if place >= horizon)]
        return x - BREAK / 2 if x - BREAK / 2 in columns.breaks else x
    if axis == "distance" and min(numbers) <= -horizon:
        x = columns.x[max(place for place in numbers if place <= -horizon)] + CELL
        return x + BREAK / 2 if x + BREAK / 2 in columns.breaks else x
    return None


def _edge_label(columns: _Columns, axis: Axis, horizon: int, x: float) -> list[str]:
    if axis == "index":
        words, place, anchor = f"beyond the trained 0–{horizon - 1}", x + 5, "start"
    else:
        words, place, anchor = f"← farther than in training ({horizon - 1})", max(x - 5, LEFT + 480), "end"
    return [f'<text class="note warn" x="{place:.0f}" y="{HEAD - 30}" style="text-anchor: {anchor}">{words}</text>']


def _notes(row: Row, last: bool) -> list[str]:
    """Between events the dashed line says what a warning would."""
    return [*row.notes, *([row.warning] if row.warning and (last or row.event in EVENT_NAMES) else [])]


def _line(row: Row, y: int, columns: _Columns, axis: Axis, edge: float | None, last: bool) -> list[str]:
    name = f"window {row.label[1:]}" if row.label.startswith("w") else f"block {row.label}"
    middle = y + ROW / 2 + 4
    event = row.event in EVENT_NAMES
    out = []
    if event:
        out.append(f'<rect class="band" x="8" y="{y}" width="{columns.end - 8:.0f}" height="{ROW}" rx="4"/>')
        out.append(_mark(row.event, y + ROW / 2))
    if edge is not None:
        out.append(
            f'<line class="edge" x1="{edge:.0f}" y1="{y}" x2="{edge:.0f}" y2="{y + ROW}" stroke-dasharray="5 4"/>'
        )
    out.append(f'<text class="label" x="{LEFT - 10}" y="{middle:.0f}">{name}</text>')
    for cell in _cells(row, axis):
        x = columns.x[cell.place]
        size = 12 if len(cell.label) < 4 else 10
        out.append(
            f'<g><title>{escape(cell.tip)}</title><rect x="{x + 1:.0f}" y="{y + 3}" width="{CELL - 2}" '
            f'height="{ROW - 6}" rx="4" fill="{FILL[cell.role]}"/><text class="cell" x="{x + CELL / 2:.0f}" '
            f'y="{middle:.0f}" style="fill: {INK[cell.role]}; font-size: {size}px">{escape(cell.label)}</text></g>'
        )
    notes = _notes(row, last)
    if notes:
        first, rest = (notes[0], notes[1:]) if event else ("", notes)
        words = f'<tspan class="event">{escape(first)}</tspan>' + (", " if first and rest else "")
        words += escape(", ".join(rest))
        out.append(f'<text class="note" x="{columns.end + 16:.0f}" y="{middle:.0f}">{words}</text>')
    return out


def _mark(event: CacheEvent, y: float) -> str:
    """A diamond for a new prompt, a cross for a new scene."""
    if event is CacheEvent.PROMPT_SWITCH:
        return f'<path class="mark" d="M 14 {y:.0f} l 5 -5 l 5 5 l -5 5 z"/>'
    return f'<path class="mark" d="M 14 {y - 4:.0f} l 2 -2 l 8 8 l -2 2 z M 22 {y - 6:.0f} l 2 2 l -8 8 l -2 -2 z"/>'


def _gap(gap: Gap, y: int, columns: _Columns, unit: str) -> list[str]:
    middle = y + ROW / 2 + 4
    several = "s" if gap.first != gap.last else ""
    labels = gap.labels.replace("w", "")
    return [
        f'<text class="note" x="{LEFT - 10}" y="{middle:.0f}" style="text-anchor: end">⋮</text>',
        f'<text class="note" x="{LEFT}" y="{middle:.0f}">{unit}{several} {labels}: {escape(gap.summary)}</text>',
    ]


def _legend(roles: Sequence[str], y: int) -> list[str]:
    out, x = [], float(LEFT)
    for role in roles:
        out.append(f'<rect x="{x:.0f}" y="{y - 12}" width="16" height="16" rx="3" fill="{FILL[role]}"/>')
        out.append(f'<text class="note" x="{x + 22:.0f}" y="{y + 1}">{NAMES[role]}</text>')
        x += 30 + LETTER * len(NAMES[role]) + 14
    return out
