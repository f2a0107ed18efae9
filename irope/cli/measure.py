"""Run the experiments that measure the engine: attention maps, latency of a switch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from irope.config import load
from irope.errors import UserError
from irope.inventory import MEASURED


def measure(kind: str, overrides: Sequence[str]) -> int:
    """Measure what is missing; the same command again finds it there."""
    files = measured(kind, overrides)
    for file in files:
        print(file)
    table = next((file for file in files if file.suffix == ".md"), None)
    if table is not None:
        print(f"\n{table.read_text(encoding='utf-8')}")
    return 0


def measured(kind: str, overrides: Sequence[str]) -> list[Path]:
    """The files of a measurement, made if they are missing."""
    from irope import measurements

    make = {"attention_maps": measurements.attention_maps, "latency": measurements.latency}.get(kind)
    if make is None:
        raise UserError(f"experiment.kind={kind}: expected videos, attention_maps or latency")
    config = load(overrides)
    return make(config, Path(config["sys"]["out"]) / MEASURED / kind, lambda line: print(line, flush=True))
