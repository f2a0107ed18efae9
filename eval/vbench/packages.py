"""The vbench package beside current torch, numpy and transformers: imports that need help, and none that downloads.

vbench pins versions from 2023, so it is installed without its dependencies (`irope vbench install`). Three things then
stand in the way of `import vbench.…`, and are mended here, each only where it is needed:

- torchvision may not fit the torch beside it: see `irope.torchvision_operators`.
- `import pyiqa` imports every metric it has with all their dependencies; MUSIQ alone needs none of them.
- modules of vbench set up the root logger and may start `wget` while they are imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from irope.errors import UserError
from irope.torchvision_operators import import_torchvision

NEEDED = (
    *("vbench", "clip", "pyiqa", "torchvision", "cv2", "decord", "easydict", "einops", "ftfy", "imageio"),
    *("omegaconf", "pkg_resources", "regex", "scipy", "timm", "tqdm", "transformers"),
)
"""Modules without which some dimension cannot be imported."""

INSTALL = "run `irope vbench install`"


class VBenchError(UserError, RuntimeError):
    """The vbench package or its weights cannot be used as they are."""


def cache_dir() -> Path:
    """Where vbench looks for weights: $VBENCH_CACHE_DIR, by default ~/.cache/vbench."""
    return Path(os.environ.get("VBENCH_CACHE_DIR") or Path.home() / ".cache" / "vbench")


def missing() -> str | None:
    """Why vbench cannot be imported here, as the end of "skipped, because …", or None. Imports nothing."""
    lacking = [name for name in NEEDED if not _installed(name)]
    return f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed: {INSTALL}" if lacking else None


def _installed(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def load(name: str) -> ModuleType:
    """Import a module of vbench, or one that it builds on (``clip``, ``pyiqa.archs.musiq_arch``, ``torchvision…``).

    The root logger stays as it was and no program is started; ``vbench.utils.CACHE_DIR`` follows $VBENCH_CACHE_DIR,
    which vbench itself reads only once.

    Raises:
        VBenchError: packages are missing, or the import would download something.
    """
    if reason := missing():
        raise VBenchError(f"vbench cannot be imported: {reason}")
    prepare()
    with _untouched_logging(), _no_programs(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecations in packages that nobody here can change
        if name.startswith("vbench."):
            vars(importlib.import_module("vbench.utils"))["CACHE_DIR"] = str(cache_dir())
        return importlib.import_module(name)


@cache
def prepare() -> None:
    """Make torchvision and pyiqa importable; once a process, before the first import of either."""
    import_torchvision()
    _stub_pyiqa()


def _stub_pyiqa() -> None:
    """Packages without their `__init__`: modules below them import as they are."""
    if "pyiqa" in sys.modules:
        return
    spec = importlib.util.find_spec("pyiqa")
    if spec is None or spec.origin is None:
        return
    for name in ("pyiqa", "pyiqa.archs", "pyiqa.data", "pyiqa.utils"):
        stub = ModuleType(name)
        stub.__path__ = [str(Path(spec.origin).parent.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = stub
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, stub)


@contextmanager
def _untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextmanager
def _no_programs(name: str) -> Iterator[None]:
    """Refuse `subprocess.run` while ``name`` is imported."""

    def refuse(command: Any, *_: Any, **__: Any) -> NoReturn:
        raise VBenchError(f"importing {name} would run {command!r}: a file is missing, see `irope vbench weights`")

    run = subprocess.run
    subprocess.run = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        subprocess.run = run
