"""SHA-256 of files of many gigabytes, computed once: remembered until a file's size or its time of change differ.

The notebook lies in the user's cache folder, ``$XDG_CACHE_HOME/irope/digests.json``. Standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from irope.identity import file_digest
from irope.provenance import write_json_atomic

_session: dict[str, str] = {}  # so that a home that cannot be written costs time once


def cache_folder() -> Path:
    """Where this program keeps what it can make again: ``$XDG_CACHE_HOME/irope``, by default ``~/.cache/irope``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "irope"


def digest(path: Path) -> str:
    """SHA-256 of a file, hex; read from the notebook, or computed and noted there."""
    if known := known_digest(path):
        return known
    found = _session[_stamp(path)] = file_digest(path)
    with suppress(OSError):  # a read-only home only costs time
        notebook = _notebook()
        notebook.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(notebook, _noted() | {_stamp(path): found})
    return found


def known_digest(path: Path) -> str:
    """The digest if it was computed before, else an empty string; reads no weights."""
    stamp = _stamp(path)
    return _session.get(stamp) or _noted().get(stamp, "")


def digest_of_files(paths: Iterable[Path]) -> str:
    """One digest of several files: their names and contents, in the order of the names."""
    lines = "".join(f"{path.name} {digest(path)}\n" for path in sorted(paths))
    return sha256(lines.encode()).hexdigest()


def _stamp(path: Path) -> str:
    stat = path.stat()
    return f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"


def _notebook() -> Path:
    return cache_folder() / "digests.json"


def _noted() -> dict[str, str]:
    notebook = _notebook()
    try:
        return _read(notebook, notebook.stat().st_mtime_ns)
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=1)
def _read(notebook: Path, _changed: int) -> dict[str, str]:
    return dict(json.loads(notebook.read_text(encoding="utf-8")))
