"""``irope list policies|methods|models|prompts``: what can be chosen by name. Loads neither torch nor Hydra."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence

from irope.catalog import KINDS, Entry, entries


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="irope list", description=__doc__)
    parser.add_argument("kind", metavar="|".join(KINDS))
    found = entries(parser.parse_args(arguments).kind)
    width = max(len(entry.name) for entry in found) + 2
    columns = min(120, shutil.get_terminal_size((100, 24)).columns)
    for entry in found:
        print("\n".join(_lines(entry, width, columns)))
    return 0


def _lines(entry: Entry, width: int, columns: int) -> list[str]:
    """Name and summary, then settings and source indented below them."""
    details = [entry.summary]
    if entry.settings:
        settings = ", ".join(f"{key}={'null' if value is None else value}" for key, value in entry.settings.items())
        details.append(f"settings: {settings}")
    if entry.source:
        details.append(f"source: {entry.source}; schedule: {entry.schedule}")
    indent = " " * width
    text = [line for detail in details for line in textwrap.wrap(detail, columns - width) or [""]]
    return [f"{entry.name:<{width}}{text[0]}", *(indent + line for line in text[1:])]
