"""Run the experiments that measure the engine: attention maps, latency of a switch, the policy study."""

from __future__ import annotations

import json
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
    from irope.policy_study import policy_study

    kinds = {"attention_maps": measurements.attention_maps, "latency": measurements.latency}
    make = (kinds | {"policy_study": policy_study}).get(kind)
    if make is None:
        raise UserError(f"experiment.kind={kind}: expected videos, attention_maps, latency or policy_study")
    config = load(overrides)
    folder = Path(config["sys"]["out"]) / MEASURED / kind
    files = make(config, folder, lambda line: print(line, flush=True))
    if kind == "policy_study":
        from eval.study_report import write_report

        return write_report(files, folder, f"irope run {kind} tier={config['tier']}")
    return files


def measurement(words: Sequence[str]) -> tuple[str, Path] | None:
    """Kind and file of the measurement that a command line means, None if it means scores.

    Raises:
        UserError: an experiment that has measured nothing yet.
    """
    from irope.cli.experiments import command_of, is_experiment, measured_kind, overrides_of

    if words[0].endswith(".npz"):
        return "attention_maps", Path(words[0])
    if words[0].endswith(".json"):
        return _kind_of(Path(words[0])), Path(words[0])
    kind = measured_kind(words) if is_experiment(words[0]) else None
    if kind is None:
        return None
    config = load(overrides_of(words))
    folder, suffix = Path(config["sys"]["out"]) / MEASURED / kind, "npz" if kind == "attention_maps" else "json"
    made = f"irope run {kind} tier={config['tier']}"
    found = [path for path in folder.glob(f"{kind}-*.{suffix}") if _command(path) == made]
    if not found:
        raise UserError(f"{folder}: no {kind} of tier={config['tier']} yet; run: {command_of('run', words)}")
    return kind, max(found, key=lambda path: path.stat().st_mtime)  # other settings leave older files beside it


def _kind_of(path: Path) -> str:
    """Which measurement a JSON holds: a benchmark of speed says so, of a switch is what has no other name."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); expected the JSON of irope bench or irope run") from error
    return "growth" if isinstance(found, dict) and str(found.get("kind")).startswith("bench_") else "latency"


def _command(path: Path) -> str:
    """What made a file of measurements; empty where it is none."""
    from eval.plots.attention import read_maps
    from eval.plots.plot import NoPlotError

    try:
        made = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else read_maps(path)[1]
        return str(made.get("command"))
    except (NoPlotError, OSError, ValueError):
        return ""
