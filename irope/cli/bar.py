"""What every progress display shares: a bar on a terminal, plain lines on standard error elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class Bar:
    """A progress bar whose text is ``counted`` (rich markup on the task) and a rate; drawn on a terminal only."""

    def __init__(self, counted: str) -> None:
        self.terminal = sys.stderr.isatty()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn(counted + "  {task.fields[rate]}"),
            console=Console(stderr=True),
            disable=not self.terminal,
        )

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        """A plain line, where there is no bar."""
        if not self.terminal:
            print(line, file=sys.stderr, flush=True)
