"""Text on pictures: one font for subtitles and contact sheets, line breaking, and a cached strip of text."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, PAPER = (32, 33, 36), (255, 255, 255)


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which matplotlib ships: Latin, Greek, Cyrillic and symbols; Pillow's own font if it is not there."""
    spec = find_spec("matplotlib")  # found, not imported: importing it takes longer than drawing
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "mpl-data/fonts/ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
        if path.is_file():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


def text_width(text: str, size: int, bold: bool = False) -> float:
    """Pixels that one line of text takes."""
    return float(font(size, bold).getlength(text))


def wrap(text: str, size: int, width: int, lines: int, bold: bool = False) -> list[str]:
    """At most `lines` lines, each at most `width` pixels wide; what does not fit ends in an ellipsis."""

    def fits(line: str) -> bool:
        return text_width(line, size, bold) <= width

    wrapped = [""]
    for word in text.split():
        joined = f"{wrapped[-1]} {word}".strip()
        if fits(joined):
            wrapped[-1] = joined
            continue
        if wrapped[-1]:
            wrapped.append("")
        # A word wider than the line (or a language without spaces) breaks anywhere.
        for letter in word:
            if wrapped[-1] and not fits(wrapped[-1] + letter):
                wrapped.append("")
            wrapped[-1] += letter
    if len(wrapped) > lines:
        last = wrapped[lines - 1]
        while last and not fits(last + "…"):
            last = last[:-1]
        wrapped = [*wrapped[: lines - 1], last.rstrip() + "…"]
    return wrapped


def strip_height(width: int, lines: int = 3) -> int:
    """Height of the strip of `text_strip`, even, in pixels."""
    return 2 * (round(lines * _strip_size(width) * 1.35 + 8) // 2)


@cache
def text_strip(text: str, width: int, lines: int = 3) -> np.ndarray:
    """White text on black, centred, uint8 [strip_height, width, 3]: what is put under a picture as its subtitle."""
    size = _strip_size(width)
    image = Image.new("RGB", (width, strip_height(width, lines)))
    wrapped = wrap(text, size, width - size, lines)
    ImageDraw.Draw(image).multiline_text(
        (width / 2, image.height / 2),
        "\n".join(wrapped),
        fill=(245, 245, 245),
        font=font(size),
        anchor="mm",
        align="center",
        spacing=round(size * 0.25),
    )
    strip = np.asarray(image)
    strip.setflags(write=False)
    return strip


def _strip_size(width: int) -> int:
    """Letters readable on a small video and not shouting on a large one."""
    return min(24, max(11, width // 24))
