"""A latency measurement (`irope.latency`) read back: its table, its fit and its Markdown. No torch in here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irope.errors import UserError


class ReportError(UserError, ValueError):
    """A file holds no latency measurement."""


def load_report(path: Path) -> dict[str, Any]:
    """The JSON of a measurement.

    Raises:
        ReportError: the file is not one.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} holds no latency measurement; run: irope run latency") from error
    if not isinstance(found, dict) or not {"rows", "fit", "settings"} <= found.keys():
        raise ReportError(f"{path} holds no latency measurement; run: irope run latency")
    return found


def clock_of(report: Mapping[str, Any]) -> str:
    """The clock to compare by: CPU time where the model runs on the CPU, which others share; else wall time."""
    return "cpu" if report["environment"]["device"]["type"] == "cpu" else "wall"


HEADINGS = (
    "method", "window", "R", "n", "event, µs", "after 1 h, µs", "new prompt, ms", "cache, ms", "first block, ms",
    "ordinary, ms", "difference, ms", "first frame after, ms (wall)", "forwards", "KV written, kB", "KV moved, kB",
)  # fmt: skip


def table_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows under `HEADINGS`, as text: median [p10, p90], flush first."""
    clock = clock_of(report)

    def text(spread: Mapping[str, float], digits: int = 1) -> str:
        return f"{spread['median']:.{digits}f} [{spread['p10']:.{digits}f}, {spread['p90']:.{digits}f}]"

    return [
        (
            row["method"],
            str(row["window"]),
            str(row["recached"]),
            str(row["n"]),
            text(row["event_us"]["5 s"]),
            f"{row['event_us']['1 h']['median']:.1f}",
            text(row["prompt_ms"][clock], 2),
            text(row["cache_ms"][clock]),
            text(row["first_frame_ms"][clock]),
            f"{row['ordinary_ms'][clock]['median']:.1f}",
            text(row["extra_ms"][clock]),
            text(row["first_frame_ms"]["wall"]),
            str(row["forwards"]),
            f"{row['bytes_written'] / 1e3:.0f}",
            f"{row['bytes_moved'] / 1e3:.0f}",
        )
        for row in report["rows"]
    ]


def _law(fit: Mapping[str, float], plus: str = "") -> str:
    first = plus if fit["a_ms"] >= 0 else "- " if plus else "-"
    return f"{first}{abs(fit['a_ms']):.4g} R {'+' if fit['b_ms'] >= 0 else '-'} {abs(fit['b_ms']):.3g} R²"


def summary(report: Mapping[str, Any]) -> list[str]:
    """The fit and the ratio of recache to flush, as sentences."""
    clock = clock_of(report)
    lines = []
    if (fit := report["fit"][clock]) is not None:
        lines.append(f"recache, medians: {clock} ms = {_law(fit)}, R² of the fit {fit['r2']:.4f}")
    if (fit := report["fit_least"][clock]) is not None:
        lines.append(
            f"recache, least of the rounds: {clock} ms = {fit['fixed_ms']:.3g} {_law(fit, '+ ')}, "
            f"R² of the fit {fit['r2']:.4f}"
        )
    rows = {(row["method"], row["window"]): row for row in report["rows"]}
    windows = report["settings"]["windows"]
    for window in sorted({21, max(windows)} & set(windows)):
        flush, again = rows["flush", window], rows["recache", window]
        event, cost = flush["event_us"]["5 s"]["median"], again["cache_ms"][clock]["median"]
        blocks = cost / again["ordinary_ms"][clock]["median"]
        lines.append(
            f"window {window}: a recache costs {cost:.1f} ms, {blocks:.2f} ordinary blocks; a flush {event:.1f} µs on "
            f"the host and no byte of the cache, {cost * 1e3 / event:,.0f} times less"
        )
    return lines + [f"note: {note}" for note in report["notes"]]


def as_markdown(report: Mapping[str, Any]) -> str:
    """The table, the fit, and what it was measured on."""
    clock, machine = clock_of(report), report["environment"]
    device = machine["device"]
    made = (
        f"`{report.get('command', 'irope run latency')}`, {report.get('date', '')[:10]}; {device['name']}, "
        f"torch {device['torch']}, threads: {device['threads']}; weights {report['digest'][:12]}."
    )
    read = (
        f"Median [p10, p90] over n rounds, flush and recache in turn; {clock} time unless said otherwise. R: latent "
        "frames encoded again. *cache* and *difference* are beyond an ordinary block of the same policy, round by "
        "round; a negative one is a saving. *event*: the plan and the dropping of pages alone, on the host (wall)."
    )
    lines = [f"# What a prompt switch costs ({report['model']})", "", made, "", read, ""]
    lines += [f"- {line}" for line in summary(report)]
    lines += ["", "| " + " | ".join(HEADINGS) + " |", "| --- |" + " ---: |" * (len(HEADINGS) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in table_rows(report)]
    return "\n".join(lines) + "\n"
