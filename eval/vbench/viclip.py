"""How well a text describes a video, by ViCLIP (arXiv 2307.06942): VBench's overall consistency.

pictures = Sample(start, stop)            # frames [start, stop) of a take
for part in parts: pictures.push(part)    # keeps the eight sampled frames, made small
load(runtime).similarity(pictures.tensor(), "a red circle")
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.scorer import Part, Runtime
from eval.vbench import packages
from eval.vbench.networks import inference, read_state
from eval.vbench.packages import cache_dir
from eval.vbench.running import unseen_initial_values
from eval.vbench.weights import find

if TYPE_CHECKING:
    from torch import Tensor

FRAMES = 8
"""Frames of a video that the network sees."""
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"


def middle_frames(frames: int, count: int = FRAMES) -> list[int]:
    """Indices of ``count`` frames, each from the middle of its share of a video; the last is repeated in short ones.

    As vbench.utils.get_frame_indices(sample="middle").
    """
    edges = np.linspace(0, frames, min(count, frames) + 1).astype(int)
    chosen = [int(a + b - 1) // 2 for a, b in pairwise(edges)]
    return chosen + chosen[-1:] * (count - len(chosen))


class Sample:
    """The sampled frames of frames [start, stop) of a take, collected as they come; 5 MB whatever the length."""

    def __init__(self, start: int, stop: int) -> None:
        self.indices = [start + index for index in middle_frames(stop - start)]
        self._pictures: dict[int, Tensor] = {}

    def push(self, part: Part) -> None:
        for index in sorted(set(self.indices)):
            if part.start <= index < part.start + len(part.frames):
                self._pictures[index] = _picture(part.frames[index - part.start])

    def tensor(self) -> Tensor:
        """float32 [8, 3, 224, 224], after the last part."""
        import torch

        return torch.stack([self._pictures[index] for index in self.indices])


def _picture(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """uint8 [H, W, 3] -> float32 [3, 224, 224]; resized as uint8 and on the CPU, as vbench does here."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
    picture: Tensor = _transform()(pixels)
    return picture


@cache
def _transform() -> Any:
    return packages.load("vbench.utils").clip_transform(224)


def load(runtime: Runtime) -> ViClip:
    """ViCLIP with the published weights; read once a process.

    Raises:
        VBenchError: the package cannot be imported, or a file is damaged.
    """
    return _load(str(cache_dir()), runtime.device, runtime.precision == "half")


@cache
def _load(cache: str, device: str, half: bool) -> ViClip:
    packages.load("vbench.utils")  # tells the modules below, which ask while they are imported, where files lie
    tokenizer = packages.load("vbench.third_party.ViCLIP.simple_tokenizer").SimpleTokenizer(str(find(VOCABULARY).path))
    with unseen_initial_values():
        network = packages.load("vbench.third_party.ViCLIP.viclip").ViCLIP(tokenizer=tokenizer, pretrain=None)
    network.load_state_dict(read_state("ViClip-InternVid-10M-FLT.pth")["model"])
    network.vision_encoder.transformer.checkpoint_num = 0  # spares memory in training only
    return ViClip(network.to(device).eval(), Runtime(device, "half" if half else "float32"))


class ViClip:
    """The package's own network and weights; texts are encoded once."""

    def __init__(self, network: Any, runtime: Runtime) -> None:
        self.network, self.runtime = network, runtime
        self._texts: dict[str, Tensor] = {}

    def similarity(self, pictures: Tensor, text: str) -> float:
        """Cosine of the features of a video and a text.

        Args:
            pictures: float32 [8, 3, 224, 224], from `Sample`.
        """
        with inference(Runtime(self.runtime.device)):
            return float(self.video(pictures) @ self.text(text))

    def video(self, pictures: Tensor) -> Tensor:
        """Feature of a video, float32 [768] of length 1."""
        with inference(self.runtime):
            feature = self.network.encode_vision(pictures[None].to(self.runtime.device), test=True)
        return _unit(feature)

    def text(self, text: str) -> Tensor:
        """Feature of a text, float32 [768] of length 1."""
        if text not in self._texts:
            with inference(self.runtime):
                self._texts[text] = _unit(self.network.encode_text(text))
        return self._texts[text]


def _unit(feature: Tensor) -> Tensor:
    feature = feature.float()[0]
    return feature / feature.norm()
