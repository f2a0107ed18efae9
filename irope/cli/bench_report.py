"""What every ``irope bench`` leaves: a table on the screen, a JSON, and the table beside it as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from irope.bench_gpu_report import table
from irope.cli.wide import wide_console
from irope.provenance import write_atomic, write_json_atomic

HEAD = ("what", "value", "how it was taken")


def named(what: str) -> Path:
    """Where a report goes by default."""
    return Path("results/reports") / f"bench-{what}-{datetime.now(UTC):%Y-%m-%d}.json"


def show_and_write(
    path: Path, title: str, command: str, rows: Sequence[tuple[str, str, str]], report: Mapping[str, Any]
) -> None:
    """Show rows under `HEAD`; write ``report`` to ``path`` and the rows beside it."""
    shown = Table(*HEAD, title=title, title_justify="left")
    for row in rows:
        shown.add_row(*row)
    wide_console().print(shown)
    write_json_atomic(path, json.loads(json.dumps({**report, "command": command})))
    lines = [f"# {title.capitalize()}", "", f"`{command}`, {report['date'][:10]}.", "", *table(HEAD, rows), ""]
    write_atomic(path.with_suffix(".md"), "\n".join(lines).encode())
    print(f"written to {path} and {path.with_suffix('.md').name}")
