"""diffusers for a test, also where a torchvision stands beside it whose operators do not fit this torch."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from eval.vbench import packages


def import_diffusers(name: str = "diffusers") -> ModuleType:
    """diffusers imports transformers, which imports torchvision when there is one; see `packages.prepare`."""
    if importlib.util.find_spec("torchvision") is not None:
        packages.prepare()
    return pytest.importorskip(name)
