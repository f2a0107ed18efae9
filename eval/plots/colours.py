"""One look for each method, the same in every plot: colour, marker and line style.

The colours of the listed methods differ for colour-blind readers as well (after Okabe and Ito, and Paul Tol's "muted"
scheme); markers and dashes tell them apart in grey. A method that is not listed gets a look from its name, so that it
never changes and no list has to be kept. Variants of one method are shades of its colour, ordered by what is varied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irope.policy import CacheEvent
from irope.sheet import MARKS

Dashes = tuple[float, ...]
LINES: tuple[Dashes, ...] = ((), (5, 2), (1.2, 1.4), (6, 1.6, 1.2, 1.6), (9, 3), (3, 1.2, 1.2, 1.2, 1.2, 1.2))
"""Line styles as lengths of dashes and gaps, in line widths; empty is a full line."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "*", "H")

INK, GREY, RULE, PAPER = "#1f2328", "#59636e", "#d0d7de", "#ffffff"
"""Text, notes, grid lines and ground, as in the drawings of ``irope explain``."""

EVENTS = {event: f"#{''.join(f'{part:02x}' for part in colour)}" for event, (colour, _, _) in MARKS.items()}
"""Colours of a prompt switch and a scene cut, those of the contact sheets."""
SWITCH, CUT = EVENTS[CacheEvent.PROMPT_SWITCH], EVENTS[CacheEvent.SCENE_CUT]


@dataclass(frozen=True)
class Style:
    """How one method is drawn: ``colour`` as ``#rrggbb``, a matplotlib ``marker``, ``dashes`` as in `LINES`."""

    colour: str
    marker: str
    dashes: Dashes

    @property
    def line(self) -> dict[str, Any]:
        """Keywords for ``Axes.plot``."""
        return {"color": self.colour, "linestyle": (0, self.dashes) if self.dashes else "-"}


FIXED: Mapping[str, Style] = {
    "infinity_rope": Style("#0072b2", "o", LINES[0]),
    "infinity_rope_paper": Style("#56b4e9", "D", LINES[3]),
    "kv_recache": Style("#d55e00", "s", LINES[1]),
    "longlive_infinity": Style("#e69f00", "p", LINES[3]),
    "rolling": Style("#117733", "^", LINES[5]),
    "rolling_w6": Style("#009e73", "v", LINES[2]),
    "rolling_sink1": Style("#999933", ">", LINES[4]),
    "rolling_forcing": Style("#cc79a7", "P", LINES[0]),
    "causvid": Style("#882255", "X", LINES[3]),
    "full": Style("#1b1b1b", "h", LINES[4]),
    "memrope": Style("#aa4499", "<", LINES[1]),
    "rolling_sink": Style("#44aa99", "d", LINES[3]),
    "deep_forcing": Style("#332288", "*", LINES[2]),
    "lol": Style("#8c510a", "H", LINES[5]),
}


def style(method: str) -> Style:
    """The look of a method: its entry in `FIXED`, else one made from its name."""
    return FIXED.get(method) or _from_name(method)


def styles(cells: Iterable[tuple[str, str, Sequence[Any]]]) -> dict[str, Style]:
    """The look of every cell ``(label, method, values of the axes)`` of an experiment, by label.

    The only cell of a method looks like the method. Several become shades from light to dark in the order of their
    values, with markers and dashes of their own.
    """
    groups: dict[str, list[tuple[str, Sequence[Any]]]] = {}
    for label, method, values in cells:
        groups.setdefault(method, []).append((label, values))
    found = {}
    for method, variants in groups.items():
        own = style(method)
        ordered = sorted(dict(variants), key=lambda label: ([sortable(v) for v in dict(variants)[label]], label))
        if len(ordered) == 1:
            found[ordered[0]] = own
            continue
        first = MARKERS.index(own.marker)
        for rank, (label, colour) in enumerate(zip(ordered, shades(own.colour, len(ordered)), strict=True)):
            found[label] = Style(colour, MARKERS[(first + rank) % len(MARKERS)], LINES[rank % len(LINES)])
    return found


def shades(colour: str, count: int) -> list[str]:
    """``count`` ≥ 2 shades of a colour from light to dark, evenly spaced in lightness (CIELAB L* from 75 to 20)."""
    middle = to_lab(colour)
    made = []
    for lightness in np.linspace(75, 20, count):
        # Light and dark ends hold less colour on a screen; a shade beyond it would be clipped to another hue.
        fade = 1 - 0.5 * abs(lightness - 50) / 30
        made.append(from_lab((float(lightness), middle[1] * fade, middle[2] * fade)))
    return made


@cache
def _from_name(method: str) -> Style:
    """A look from a hash of the name: the first colour proposed by it that is well away from every listed one."""
    taken = [to_lab(known.colour) for known in FIXED.values()]
    best, distance = "#777777", 0.0
    for attempt in range(64):
        byte = hashlib.sha256(f"{method}/{attempt}".encode()).digest()
        angle, chroma, lightness = byte[0] / 256 * 2 * np.pi, 30 + byte[1] / 256 * 35, 30 + byte[2] / 256 * 40
        colour = from_lab((lightness, float(chroma * np.cos(angle)), float(chroma * np.sin(angle))))
        away = min(float(np.linalg.norm(to_lab(colour) - other)) for other in taken)
        if away > distance:
            best, distance = colour, away
        if away >= APART:
            break
    byte = hashlib.sha256(method.encode()).digest()
    return Style(best, MARKERS[byte[3] % len(MARKERS)], LINES[byte[4] % len(LINES)])


APART = 25.0
"""Distance in CIELAB from every listed colour that a made one keeps; about 2.3 is just noticeable."""


def sortable(value: Any) -> tuple[int, float, str]:
    """Numbers in their order before names in theirs; null first."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, (int, float)):
        return (1, float(value), "")
    return (2, 0.0, str(value))


_WHITE = np.array([0.95047, 1.0, 1.08883])
_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def to_lab(colour: str) -> NDArray[np.float64]:
    """CIELAB (D65, L* 0..100) of an sRGB colour ``#rrggbb``, after IEC 61966-2-1 and CIE 15."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x = _XYZ @ linear / _WHITE
    f = np.where(x > (6 / 29) ** 3, np.cbrt(x), x / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def from_lab(lab: tuple[float, float, float]) -> str:
    """The sRGB colour ``#rrggbb`` of a CIELAB one; what a screen cannot show is clipped."""
    middle = (lab[0] + 16) / 116
    f = np.array([middle + lab[1] / 500, middle, middle - lab[2] / 200])
    x = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _WHITE
    linear = np.clip(np.linalg.solve(_XYZ, x), 0, 1)
    rgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * float(part)):02x}" for part in rgb)
