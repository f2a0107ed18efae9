"""torchvision beside a torch that it was not built for: transformers, diffusers and VBench import it wherever it is.

torchvision from PyPI is a CUDA build. Beside a CPU torch its operators do not load, and the registration of their
fakes fails for two of them; declaring the two lets its transforms and models import. Nothing here calls an operator.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from typing import Any

_kept: list[Any] = []  # a library of operators is gone when its last reference is


@cache
def import_torchvision() -> None:
    """Import torchvision if it is installed, declaring its operators where they do not load.

    To be called before what imports torchvision by itself. Raises what the import raises for another cause.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    import torch

    for half_imported in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[half_imported]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    importlib.import_module("torchvision")
