"""A console for tables: as wide as the terminal, and wide enough where there is none."""

from __future__ import annotations

import shutil

from rich.console import Console


def wide_console() -> Console:
    return Console(width=shutil.get_terminal_size((140, 24)).columns)
