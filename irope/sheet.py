"""Contact sheets: one row of frames a policy, columns at given seconds, marks where the prompt switches or the scene
is cut. A filmstrip answers "what did it look like at 5, 60, 240 s" in one picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from irope.lettering import INK, PAPER, font, text_width, wrap
from irope.policy import CacheEvent

GREY, RULE = (110, 113, 120), (214, 216, 220)
MARKS = {
    CacheEvent.PROMPT_SWITCH: ((66, 103, 212), "|", "prompt switch"),
    CacheEvent.SCENE_CUT: ((214, 69, 65), "✂", "scene cut"),
}
_MARGIN, _GAP, _BAR, _TEXT = 16, 6, 4, 13  # pixels; the last one is the size of the letters


@dataclass(frozen=True)
class Row:
    """One row: a label, an optional second line, and a frame per column, uint8 [H, W, 3]; None leaves a place empty."""

    label: str
    frames: Sequence[NDArray[np.uint8] | None]
    note: str = ""


@dataclass(frozen=True)
class Mark:
    """Something happens at `seconds`; `text` (the new prompt) is written at the mark."""

    seconds: float
    event: CacheEvent
    text: str = ""


@dataclass(frozen=True)
class _Layout:
    """Pixel positions of a sheet."""

    columns: int
    label: int
    head: int
    height: int
    width: int
    legend: int
    rows: int

    def x(self, column: int) -> int:
        return _MARGIN + self.label + column * (self.width + _GAP)

    def y(self, row: int) -> int:
        return _MARGIN + self.head + row * (self.height + _GAP)

    @property
    def size(self) -> tuple[int, int]:
        return self.x(self.columns) - _GAP + _MARGIN, self.y(self.rows) - _GAP + self.legend + _MARGIN


def filmstrip(
    rows: Sequence[Row],
    times: Sequence[float],
    marks: Sequence[Mark] = (),
    title: str = "",
    scale: int | None = None,
) -> Image.Image:
    """Draw a sheet of `rows` with a column at each of `times` (seconds, rising).

    `scale` enlarges the frames by whole pixels; by default small frames become about 120 pixels wide. A mark stands
    before the first column that is not earlier than it. Raises ValueError for rows that do not fit the times.
    """
    shape = _checked_shape(rows, times)
    scale = scale or max(1, round(120 / shape[1]))
    height, width = shape[0] * scale, shape[1] * scale
    label = max(60, min(200, max(ceil(text_width(row.label, _TEXT, bold=True)) for row in rows))) + _MARGIN
    used = [event for event in MARKS if any(mark.event is event for mark in marks)]
    heading = (30 if title else 0) + 22 + (30 if any(mark.text for mark in marks) else 0)
    layout = _Layout(len(times), label, heading, height, width, 26 if used else 0, len(rows))
    sheet = Image.new("RGB", layout.size, PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN, _MARGIN), title, fill=INK, font=font(_TEXT + 4, bold=True))
    for column, seconds in enumerate(times):
        centre = layout.x(column) + width / 2
        draw.text((centre, layout.y(0) - 6), f"{seconds:g} s", fill=GREY, font=font(_TEXT), anchor="mb")
    for number, row in enumerate(rows):
        _draw_row(sheet, draw, layout, number, row, scale)
    _draw_marks(draw, layout, marks, times)
    _draw_legend(draw, layout, used)
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write the sheet as a PNG, complete or not at all."""
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(part, format="PNG", optimize=True)
    part.replace(path)


def _checked_shape(rows: Sequence[Row], times: Sequence[float]) -> tuple[int, int]:
    """Height and width of the frames."""
    if not rows or not times:
        raise ValueError("a sheet needs at least one row and one time")
    if any(b <= a for a, b in pairwise(times)):
        raise ValueError(f"the times of a sheet must rise, got {list(times)}")
    shapes = set()
    for row in rows:
        if len(row.frames) != len(times):
            raise ValueError(f"row {row.label!r} has {len(row.frames)} frames for {len(times)} times")
        shapes |= {frame.shape for frame in row.frames if frame is not None}
        if any(frame is not None and (frame.dtype != np.uint8 or frame.ndim != 3) for frame in row.frames):
            raise ValueError(f"row {row.label!r}: frames must be uint8 [H, W, 3]")
    if len(shapes) != 1:
        raise ValueError(f"all frames of a sheet have one size, got {sorted(shapes) or 'no frame'}")
    height, width, _ = shapes.pop()
    return height, width


def _draw_row(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, layout: _Layout, number: int, row: Row, scale: int
) -> None:
    top = layout.y(number)
    lines = wrap(row.label, _TEXT, layout.label - _MARGIN, 2, bold=True)
    notes = wrap(row.note, _TEXT - 2, layout.label - _MARGIN, 3) if row.note else []
    at = top + max(0, (layout.height - 17 * len(lines) - 14 * len(notes)) // 2)
    for line in lines:
        draw.text((_MARGIN, at), line, fill=INK, font=font(_TEXT, bold=True))
        at += 17
    for line in notes:
        draw.text((_MARGIN, at), line, fill=GREY, font=font(_TEXT - 2))
        at += 14
    for column, frame in enumerate(row.frames):
        left = layout.x(column)
        if frame is None:
            box = (left, top, left + layout.width - 1, top + layout.height - 1)
            draw.rectangle(box, outline=RULE)
            draw.text((left + layout.width / 2, top + layout.height / 2), "–", fill=GREY, font=font(_TEXT), anchor="mm")
        else:
            sheet.paste(Image.fromarray(frame.repeat(scale, axis=0).repeat(scale, axis=1)), (left, top))


def _draw_marks(draw: ImageDraw.ImageDraw, layout: _Layout, marks: Sequence[Mark], times: Sequence[float]) -> None:
    """A bar through all rows before the first column at or after the mark; its text above the times."""
    top, bottom = layout.y(0) - 2, layout.y(layout.rows) - _GAP + 2
    texts_end = 0.0
    for mark in sorted(marks, key=lambda mark: mark.seconds):
        column = sum(seconds < mark.seconds for seconds in times)
        colour, sign, _ = MARKS[mark.event]
        middle = layout.x(column) - _GAP // 2 - (0 if column else 1)
        draw.rectangle((middle - _BAR // 2, top, middle + _BAR // 2 - 1, bottom), fill=colour)
        if mark.text or mark.event is CacheEvent.SCENE_CUT:
            room = layout.size[0] - _MARGIN - middle
            text = f"{sign} {mark.text}".strip() if mark.event is CacheEvent.SCENE_CUT else mark.text
            start = max(middle - _BAR // 2, texts_end)
            (line,) = wrap(text, _TEXT - 2, max(40, round(room)), 1)
            draw.text((start, layout.y(0) - 28), line, fill=colour, font=font(_TEXT - 2), anchor="lb")
            texts_end = start + text_width(line, _TEXT - 2) + 12


def _draw_legend(draw: ImageDraw.ImageDraw, layout: _Layout, used: Sequence[CacheEvent]) -> None:
    left, top = float(layout.x(0)), layout.y(layout.rows) - _GAP + 12
    for event in used:
        colour, _, name = MARKS[event]
        draw.rectangle((left, top + 1, left + _BAR - 1, top + 13), fill=colour)
        draw.text((left + 10, top + 7), name, fill=GREY, font=font(_TEXT - 2), anchor="lm")
        left += 10 + text_width(name, _TEXT - 2) + 22
