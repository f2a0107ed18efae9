"""What the files of a video say: finished, failed, or neither. Cheap, for it is asked of thousands of videos."""

from __future__ import annotations

import json
import shlex
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from irope.provenance import clear_parts, environment, write_json_atomic

# A sidecar begins with its key, files and bytes; then comes its record.
_AFTER_FILES = b'\n "record": '
_END = b"\n}\n"
FAILURE = ".error.json"


def sidecar_path(stem: Path) -> Path:
    """The JSON that describes a finished video and is written last; `stem` is the path without suffix."""
    return stem.with_name(stem.name + ".json")


def finished(stem: Path, key: str, quick: bool = False) -> bool:
    """The sidecar is there, readable and of this key, and the files it names have the size it says.

    ``quick`` reads the first and the last lines of the sidecar only, several times faster: for counting, not for
    deciding that a video need not be made.
    """
    try:
        content = sidecar_path(stem).read_bytes()
        if quick:
            if not content.endswith(_END):
                return False
            content = content[: content.index(_AFTER_FILES)].rstrip(b",") + b"}"
        facts = json.loads(content)
        named = {kind: name for kind, name in facts["files"].items() if name is not None}
        return bool(facts["key"] == key and named) and all(
            stem.with_name(name).stat().st_size == facts["bytes"][kind] for kind, name in named.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def failure_path(stem: Path) -> Path:
    """Where the last failed attempt at a video is told."""
    return stem.with_name(stem.name + FAILURE)


def failed(stem: Path) -> dict[str, Any] | None:
    """The record of the last failed attempt (`write_failure`), None if there is none; a damaged one is still one."""
    try:
        found = json.loads(failure_path(stem).read_bytes())
    except OSError:
        return None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"error": "unknown", "message": "the record of it is damaged"}


def write_failure(stem: Path, error: BaseException) -> None:
    """Leave `<stem>.error.json`: what went wrong, the command, and the environment without user and host.

    Where even that cannot be written (a full disk is a likely error) nothing is left: the error itself is the one to
    show.
    """
    record = {
        "error": type(error).__name__,
        "message": str(error),
        "traceback": traceback.format_exception(error),
        "command": shlex.join(["irope", *sys.argv[1:]]),
        "environment": environment(),
    }
    with suppress(OSError):
        write_json_atomic(failure_path(stem), record)


def clear_failure(stem: Path) -> None:
    """Forget earlier failures of a video that is finished now."""
    with suppress(OSError):  # nobody asks for the failures of a finished video
        failure_path(stem).unlink()
    clear_parts(failure_path(stem))
