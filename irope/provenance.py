"""Where a result comes from: the code, the packages and the machine, as JSON for the sidecar of every artefact.

Nothing in here takes part in a key, and nothing names a user, a host or a folder.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irope.claims import Process

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "irope",
    "torch",
    "numpy",
    "safetensors",
    "av",
    "pillow",
    "pandas",
    "hydra-core",
    "diffusers",
    "transformers",
)
_GIT_SECONDS = 10
_DAY = 24 * 3600.0


def environment(device: "torch.device | str | None" = None) -> dict[str, Any]:
    """The record of this process: git state, versions, platform, device and threads, as JSON types."""
    return {
        "git": git_state(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": dict(package_versions()),
        "device": device_record(device),
    }


@cache
def package_versions() -> tuple[tuple[str, str], ...]:
    """Name and version of those of PACKAGES that are installed."""
    found = []
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found.append((name, version(name)))
    return tuple(found)


def git_state(file: Path = Path(__file__)) -> dict[str, Any] | None:
    """Commit of the checkout that `file` is tracked in, and whether anything in it is changed; None outside of one."""
    # Asking for the file itself keeps an installed copy from taking the repository around its .venv for its own.
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    commit, status = _git(file.parent, "rev-parse", "HEAD"), _git(file.parent, "status", "--porcelain")
    return None if commit is None else {"commit": commit, "dirty": status != ""}


def device_record(device: "torch.device | str | None" = None) -> dict[str, Any]:
    """Name of the device, and what else decides speed and rounding: CUDA and compute capability, or CPU threads."""
    import torch  # takes a second, and much that writes sidecars does without it

    where = torch.device(device or "cpu")
    # The package's version does not always tell a CPU build from a CUDA build; torch itself does.
    record: dict[str, Any] = {"type": where.type, "torch": torch.__version__, "threads": torch.get_num_threads()}
    if where.type == "cuda":
        major, minor = torch.cuda.get_device_capability(where)
        return record | {
            "name": torch.cuda.get_device_name(where),
            "capability": f"{major}.{minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return record | {"name": _cpu_name(), "cores": os.cpu_count()}


def write_json_atomic(path: Path, obj: Any) -> None:
    """Write `obj` as JSON, complete and on the disk, or not at all. Makes the folder.

    Raises TypeError or ValueError (NaN) for what is not JSON, and OSError, naming the file, if it cannot be written.
    """
    write_atomic(path, (json.dumps(obj, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file, complete and on the disk, or not at all. Makes the folder; OSError names the file.

    What killed writers of the same file left goes (`clear_parts`).
    """
    part = path.with_name(f"{path.name}.{_system()}-{os.getpid()}.part")  # other workers may write the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        clear_parts(path)  # before: once the file is complete there may be no next writer
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def clear_parts(path: Path) -> None:
    """Remove the part files of writers of ``path`` that were killed in the middle, after a change to its folder.

    A writer on this system lives as long as its process. One elsewhere, which nobody here can ask, has a day from its
    last byte to that change, both in the time of the file system. Nothing is removed where that is not possible.
    """
    names = re.compile(rf"{re.escape(path.name)}\.(?:([0-9a-f]{{12}})-)?(\d+)\.part")
    with suppress(OSError):
        changed = path.parent.stat().st_mtime
        for part in path.parent.iterdir():
            if (found := names.fullmatch(part.name)) is None:
                continue
            if found[1] == _system():
                here = Process.here()
                stale = replace(here, pid=int(found[2]), start=0).gone(here)
            else:
                stale = changed - part.stat().st_mtime > _DAY
            if stale:
                part.unlink()


@cache
def _system() -> str:
    """Tells apart the systems within which a process id means one process, without naming the host."""
    here = Process.here()
    return hashlib.sha256(f"{here.host} {here.boot} {here.namespace}".encode()).hexdigest()[:12]


def _git(folder: Path, *command: str) -> str | None:
    """Output of a git command in `folder`; None if it fails or there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
