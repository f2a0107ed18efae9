"""Lists of videos that exist already: which prompt and seed each file belongs to. Standard library only."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from irope.errors import UserError

MANIFESTS = ("prompts.json", "prompts.jsonl", "prompts.csv")


class ManifestError(UserError, ValueError):
    """A list of prompts cannot be read; names file and line."""


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """File name (or path below the folder) -> {"prompt": text, "seed": number or None, and what else its entry holds}.

    ``.json``: {"file.mp4": "prompt", ...}; ``.jsonl``: {"file": ..., "prompt": ..., "seed": ...} a line; ``.csv``: the
    same as columns. Empty cells of a ``.csv`` are left out.

    Raises:
        ManifestError: the file cannot be read, an entry is broken, or a file is listed twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read: {error}") from error
    found: dict[str, dict[str, Any]] = {}
    for place, entry in _entries(path, text):
        file, prompt = entry.get("file"), entry.get("prompt")
        if not isinstance(file, str) or not isinstance(prompt, str) or not prompt.strip():
            raise ManifestError(f'{place}: expected a "file" and a "prompt", got {json.dumps(entry)[:120]}')
        seed = entry.get("seed")
        if seed not in (None, "") and not re.fullmatch(r"\d+", str(seed)):
            raise ManifestError(f"{place}: seed={seed}: expected a whole number")
        if file in found:
            raise ManifestError(f"{place}: {file} is listed a second time")
        more = {key: value for key, value in entry.items() if key != "file" and value not in (None, "")}
        found[file] = more | {"prompt": prompt, "seed": int(seed) if seed not in (None, "") else None}
    return found


def _entries(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    if path.suffix == ".csv":
        import csv

        rows = csv.DictReader(text.splitlines())
        return [(f"{path}:{number}", dict(row)) for number, row in enumerate(rows, 2)]
    if path.suffix == ".jsonl":
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        return [(f"{path}:{number}", _mapping(_parsed(path, line, number))) for number, line in lines]
    pairs = _parsed(path, text, 1, list)
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise ManifestError(f'{path}: expected {{"file.mp4": "prompt", ...}}')
    return [(str(path), {"file": file, "prompt": prompt}) for file, prompt in pairs]


def _parsed(path: Path, text: str, line: int, pairs: Any = None) -> Any:
    """JSON that begins on this line of the file."""
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{path}:{line + error.lineno - 1}: not valid JSON: {error.msg}") from error


def _mapping(entry: Any) -> dict[str, Any]:
    return entry if isinstance(entry, dict) else {"": entry}
