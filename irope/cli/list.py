"""``irope list policies|methods|models|prompts|experiments|scorers|protocols|published``: what can be chosen by name.

Loads neither torch nor Hydra.
"""

from __future__ import annotations

import argparse
import os
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irope.catalog import CONF, KINDS, Entry, entries, file_entries, read_mapping
from irope.settings import defaults

if TYPE_CHECKING:
    from irope.methods import Method


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="irope list", description=__doc__)
    kinds = KINDS | {
        "experiments": experiment_entries,
        "scorers": scorer_entries,
        "protocols": lambda: file_entries(CONF / "protocol"),
        "published": published_entries,
    }
    parser.add_argument("kind", metavar="|".join(kinds))
    kind = parser.parse_args(arguments).kind
    found = entries(kind, kinds)
    width = max(len(entry.name) for entry in found) + 2
    columns = min(120, shutil.get_terminal_size((100, 24)).columns)
    if kind == "methods":
        return _print_methods(width, columns)
    for entry in found:
        print("\n".join(_lines(entry, width, columns)))
    return 0


def _print_methods(width: int, columns: int) -> int:
    """Every method: what it is; policy or system; its weights, and whether they are here; licence and source."""
    from irope.methods import methods

    root = Path(os.environ.get("IROPE_WEIGHTS") or "weights")
    for one in methods(root):
        details = [one.summary, f"{one.kind}; {_weights(one)}"]
        if one.source:
            details.append(f"source: {one.source}; licence: {one.licence}")
        print("\n".join(_indented(one.name, details, width, columns)))
    print(
        f"\nWeights are looked for below {root}/ ($IROPE_WEIGHTS); to see what to download: irope weights method=NAME"
    )
    print("With the embedded model (model=tiny) a policy needs no weights. All settings: irope list policies")
    return 0


def _weights(method: Method) -> str:
    if not method.weights:
        return "weights: not needed"
    return f"weights: {method.weights}, {'missing' if method.missing else 'present'}"


def _lines(entry: Entry, width: int, columns: int) -> list[str]:
    """Name and summary, then settings and source indented below them."""
    details = [entry.summary]
    if entry.settings:
        settings = ", ".join(f"{key}={'null' if value is None else value}" for key, value in entry.settings.items())
        details.append(f"settings: {settings}")
    if entry.source:
        details.append(f"source: {entry.source}" + (f"; schedule: {entry.schedule}" if entry.schedule else ""))
    if entry.missing:
        details.append(f"cannot run here: {entry.missing}")
    return _indented(entry.name, details, width, columns)


def _indented(name: str, details: Sequence[str], width: int, columns: int) -> list[str]:
    indent = " " * width
    text = [line for detail in details for line in textwrap.wrap(detail, columns - width) or [""]]
    return [f"{name:<{width}}{text[0]}", *(indent + line for line in text[1:])]


def experiment_entries() -> list[Entry]:
    """Every experiment with its tiers: prompts, seeds and durations."""
    folder = CONF / "experiment"
    found = []
    for entry in file_entries(folder):
        tiers = read_mapping(folder / f"{entry.name}.yaml")["tiers"]
        found.append(
            replace(entry, summary=f"{entry.summary}; " + "; ".join(_tier(n, t or {}) for n, t in tiers.items()))
        )
    return found


def _tier(name: str, tier: Mapping[str, Any]) -> str:
    """``quick: 12 prompts, 5 and 60 s``."""
    parts = [
        f"{tier[key]} {key.removesuffix('s') if tier[key] == 1 else key}" for key in ("prompts", "seeds") if key in tier
    ]
    if seconds := tier.get("seconds"):
        parts.append(", ".join(f"{one:g}" for one in seconds) + " s")
    return f"{name}: {', '.join(parts)}" if parts else name


def scorer_entries() -> list[Entry]:
    """Every scorer: family, which way is better, the first line of its docstring, settings, source."""
    from eval.registry import scorers

    found = []
    for name, scorer in scorers().items():
        summary = (scorer.__doc__ or "").strip().partition("\n")[0]
        way = f"{scorer.better} is better" if scorer.better else "ranks nothing"
        missing = scorer().unavailable() or ""
        found.append(
            Entry(name, f"[{scorer.family}; {way}] {summary}", defaults(scorer), scorer.source, missing=missing)
        )
    return sorted(found, key=lambda entry: (entry.summary.partition(";")[0], entry.name))


def published_entries() -> list[Entry]:
    """Every published table in conf/paper, with where it comes from, its protocol and n."""
    from eval.published import tables

    return [Entry(name, table.title, source=table.footnote()) for name, table in tables().items()]
