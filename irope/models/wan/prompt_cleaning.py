"""Prompts cleaned as the published Wan code does before it tokenises them: another cleaning is another video."""

from __future__ import annotations

import html
import re

from irope.models.wan.parts import import_extra

VERSION = "ftfy, html twice, whitespace"
"""Part of the name of every stored embedding; changes when `clean` gives other text."""


def clean(prompt: str) -> str:
    """Broken Unicode mended, HTML entities read (twice), every run of white space one blank, none at the ends.

    Raises:
        WeightsError: the package ftfy is missing; a prompt is never cleaned in another way instead.
    """
    mended = import_extra("ftfy").fix_text(prompt)
    return re.sub(r"\s+", " ", html.unescape(html.unescape(mended)).strip()).strip()
