"""Made-up results under VBench's names, as if the 1.3B model had been scored: for tests of tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.results import Results
from irope.cli import experiments
from tests.results_kit import make_results

VBENCH = (
    *("subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "dynamic_degree"),
    *("motion", "aesthetic_quality", "imaging_quality", "overall_consistency", "freeze"),
)
BASE = {
    "subject_consistency": 0.9, "background_consistency": 0.88, "temporal_flickering": 0.975,
    "motion_smoothness": 0.985, "aesthetic_quality": 0.62, "imaging_quality": 0.7,
}  # fmt: skip
PROMPTS = tuple(f"p{i}" for i in range(20))
LARGE = "wan_1_3b/self-forcing"
DELTA = {"delta_ablation": {"delta": "cut_delta"}}


def scored(method: str, axes: Mapping[str, Any], prompt: str, seed: int, seconds: float, metric: str) -> float:
    """A prompt's own level, a little less for a larger axis, and noise; dynamic degree is yes or no."""
    settings = [int(v) for v in axes.values() if isinstance(v, (int, float))]
    rng = np.random.default_rng([sum(map(ord, method + prompt + metric)), seed, int(seconds), *settings])
    if metric == "dynamic_degree":
        return float(rng.random() < 0.5)
    level = BASE.get(metric, 0.5) + 0.01 * np.sin(sum(map(ord, prompt)))
    return float(np.clip(level - 3e-4 * sum(settings) + 0.005 * rng.standard_normal(), 0, 1))


def vbench_results(folder: Path, cells: Mapping[str, Mapping[str, Any]] | None = None, **more: Any) -> Results:
    """Results of 20 prompts under the protocol vbench with the 1.3B model; ``more`` as `make_results`."""
    given = {"metrics": VBENCH, "value": scored, "prompts": PROMPTS, "protocol": "vbench", "model": LARGE}
    return make_results(folder, cells, **{**given, **more})


def serve(monkeypatch: pytest.MonkeyPatch, found: Mapping[str, Results]) -> None:
    """Let the command line find these results under their names."""
    monkeypatch.setattr(experiments, "is_experiment", found.__contains__)
    monkeypatch.setattr(experiments, "measured_kind", lambda words: None)
    monkeypatch.setattr(experiments, "results_of", lambda arguments: found[arguments[0]])
