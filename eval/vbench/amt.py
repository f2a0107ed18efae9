"""The frame in the middle of two, by AMT-S (arXiv 2304.09790): what VBench's motion smoothness compares with.

Shapes: n triplets of frames, H x W pixels, 3 = RGB.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from eval.scorer import Frames, Runtime
from eval.vbench import packages
from eval.vbench.networks import inference, read_state
from eval.vbench.packages import cache_dir
from eval.vbench.running import batches, fitting, unseen_initial_values

if TYPE_CHECKING:
    from torch import Tensor

LEAST_SIDE = 113
"""Below (128 after padding to sixteenths) the coarsest level of the correlation has one row or column: NaN."""


def load(runtime: Runtime) -> Amt:
    """AMT-S with the published weights; read once a process.

    Raises:
        VBenchError: the package cannot be imported, or the file is damaged.
    """
    return _load(str(cache_dir()), runtime.device, runtime.precision == "half")


@cache
def _load(cache: str, device: str, half: bool) -> Amt:
    with unseen_initial_values():
        network = packages.load("vbench.third_party.amt.networks.AMT-S").Model()  # its defaults are those of AMT-S.yaml
    network.load_state_dict(read_state("amt-s.pth", trusted=True)["state_dict"])  # it holds more than tensors
    return Amt(network.to(device).eval(), Runtime(device, "half" if half else "float32"))


class Amt:
    """The package's own network and weights, several pairs at a time. Never scales pictures down."""

    def __init__(self, network: Any, runtime: Runtime) -> None:
        self.network, self.runtime = network, runtime

    def errors(self, before: Frames, middle: Frames, after: Frames, most: int = 16) -> list[float]:
        """Mean absolute difference, 0..255, of each middle frame and the one interpolated from its neighbours.

        Args:
            before, middle, after: uint8 [n, H, W, 3]; ``most`` pairs at a time, fewer where memory asks for it.
        """
        height, width = middle.shape[1:3]
        pixels = height * width
        # Correlations of all eighths with all, both ways, at four scales and copied once; 260 full planes beside.
        each = 4 * (4 * (pixels // 64) ** 2 + 260 * pixels)
        found: list[float] = []
        for part in batches(len(middle), fitting(most, each)):
            found += self._errors(before[part], middle[part], after[part])
        return found

    def _errors(self, before: Frames, middle: Frames, after: Frames) -> list[float]:
        with inference(self.runtime):
            between = self._between(self._pixels(before).float() / 255.0, self._pixels(after).float() / 255.0)
            difference = (between.int() - self._pixels(middle).int()).abs()
            return difference.flatten(1).sum(1).div(difference[0].numel()).tolist()

    def _pixels(self, frames: Frames) -> Tensor:
        import torch

        return torch.from_numpy(frames).to(self.runtime.device).permute(0, 3, 1, 2)

    def _between(self, before: Tensor, after: Tensor) -> Tensor:
        """float32 [n, 3, H, W] in 0..1 twice -> uint8 [n, 3, H, W], truncated as vbench does."""
        import torch

        padder = packages.load("vbench.third_party.amt.utils.utils").InputPadder(before.shape, 16)
        half_way = torch.full((len(before), 1, 1, 1), 0.5, device=self.runtime.device)
        found = self.network(*padder.pad(before, after), half_way, scale_factor=1.0, eval=True)["imgt_pred"]
        pixels: Tensor = (padder.unpad(found).float() * 255.0).clip(0, 255).to(torch.uint8)
        return pixels
