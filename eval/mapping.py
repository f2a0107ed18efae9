"""VBench-Long's table from clip-to-clip to in-clip similarity.

First frames of clips, seconds apart, are less alike than neighbouring frames. So that the two can be averaged,
VBench-Long sends the former through a table that matches quantiles of the two on its own set of videos: .50 becomes
.93 for subjects. A difference between two methods shrinks to about a tenth on the way.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray


@cache
def tables() -> dict[str, NDArray[np.float64]]:
    """By dimension, float64 [101]: the mapped value of similarity 0, .01, ..., 1."""
    read = yaml.safe_load(Path(__file__).with_name("mapping_table.yaml").read_text(encoding="utf-8"))
    return {dimension: np.asarray(values, dtype=np.float64) for dimension, values in read.items()}


def mapped(dimension: str, similarity: float) -> float:
    """``similarity`` on the in-clip scale, linear between the points of the table, its ends outside [0, 1].

    Raises:
        KeyError: the dimension has no table; `tables` names those that have.
    """
    table = tables()[dimension]
    return float(np.interp(similarity, np.arange(len(table)) / 100, table))
