"""Aesthetic quality: what people would think of the frames as photographs, by LAION's predictor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from eval.registry import register_scorer
from eval.scorer import Accumulator, Measurement, Part, Rows, Runtime, Scorer, Take
from eval.vbench.networks import aesthetic_head, clip_features, inference
from eval.vbench.packages import cache_dir
from eval.vbench.weights import identity, lacking


@register_scorer("aesthetic_quality")
@dataclass(frozen=True)
class AestheticQuality(Scorer):
    """Mean over all frames of LAION's aesthetic prediction (a linear head on unit CLIP ViT-L/14 features), / 10."""

    title: ClassVar[str] = "Aesthetic"
    family = "vbench"
    source: ClassVar[str] = "VBench (arXiv 2311.17982), aesthetic_quality.py"

    def unavailable(self) -> str | None:
        return lacking("aesthetic_quality")

    def identity(self) -> Mapping[str, Any]:
        return identity("aesthetic_quality")

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        return _Aesthetic(runtime)


class _Aesthetic:
    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.found: list[Rows] = []

    def push(self, part: Part) -> None:
        import torch
        import torch.nn.functional as F

        features = torch.from_numpy(clip_features("ViT-L-14", part, self.runtime)).to(self.runtime.device)
        with inference(Runtime(self.runtime.device)):  # the head is small: always float32, as in the stock package
            head = aesthetic_head(str(cache_dir()), self.runtime.device)
            self.found.append(head(F.normalize(features, dim=-1)).squeeze(-1).double().cpu().numpy() / 10)

    def close(self) -> Measurement:
        curve = np.concatenate(self.found)
        return Measurement(float(curve.mean()), len(curve), curve)
