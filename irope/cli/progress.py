"""Progress of a roll-out: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.progress import TaskID

from irope.cli.bar import Bar
from irope.generate import Report
from irope.policy import CacheEvent

LINE_SECONDS = 10.0
"""Pause between plain lines of one video; its first and last block always print."""


@dataclass
class _Shown:
    """The bar of one video, when it began and when it last got a line."""

    bar: TaskID
    start: float
    printed: float = 0.0


class RolloutProgress(Bar):
    """Shows block, seconds per block, latent frames per second and time left of every video; of a system's, frames."""

    def __init__(self, frames_per_block: int) -> None:
        super().__init__("{task.fields[unit]} {task.completed}/{task.total}")
        self.frames_per_block = frames_per_block
        self._shown: dict[str, _Shown] = {}

    def __call__(self, report: Report) -> None:
        now, name = time.perf_counter(), f"{report.job.stem.parent.name}/{report.job.stem.name}"
        unit = "frame" if report.job.system else "block"
        shown = self._shown.get(name)
        if shown is None:
            bar = self.bar.add_task(name, total=report.blocks, rate="", unit=unit)
            shown = self._shown[name] = _Shown(bar, now - report.seconds)
            if report.resumed:
                self.say(f"{name}: continues at {unit} {report.resumed + 1} of {report.blocks}")
        made = report.block - report.resumed
        per_block = (now - shown.start) / max(1, made)
        speed = "" if report.job.system else f"  {self.frames_per_block / per_block:.0f} latent frames/s"
        rate = f"{per_block:.3f} s/{unit}{speed}  ETA {per_block * (report.blocks - report.block):.0f} s"
        self.bar.update(shown.bar, completed=report.block, total=report.blocks, rate=rate)
        last = report.block == report.blocks
        if not self.terminal and (last or report.event is not CacheEvent.BLOCK or now - shown.printed > LINE_SECONDS):
            shown.printed = now
            what = "" if report.event is CacheEvent.BLOCK else f"  ({report.event.value.replace('_', ' ')})"
            self.say(f"{name}: {unit} {report.block}/{report.blocks}  {rate}{what}")
        if last:
            del self._shown[name]
