"""Quality of single pictures by MUSIQ (arXiv 2108.05997) trained on SPAQ: VBench's imaging quality."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eval.scorer import Frames, Rows
from eval.vbench import packages
from eval.vbench.running import autocast, batches

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Preprocessing = Literal["longer", "shorter", "shorter_centercrop", "None"]


@cache
def load(path: Path, device: str, half: bool) -> Musiq:
    """MUSIQ with the weights of a file, once a process."""
    import torch

    network = packages.load("pyiqa.archs.musiq_arch").MUSIQ(pretrained=False)
    weights = torch.load(path, map_location="cpu")
    network.load_state_dict(weights.get("params", weights))
    return Musiq(network.to(device).eval(), torch.device(device), half)


class Musiq:
    """The package's own network and weights, several pictures at a time."""

    def __init__(self, network: Any, device: torch.device, half: bool) -> None:
        self.network, self.device, self.half = network, device, half

    def scores(self, frames: Frames, preprocessing: Preprocessing, most: int = 16) -> Rows:
        """Quality of each frame, about 0..100.

        Args:
            frames: uint8 [n, H, W, 3]; ``most`` at a time.
            preprocessing: of vbench: the longer or the shorter side brought down to 512 pixels, or neither.
        """
        import numpy as np
        import torch

        transform = packages.load("vbench.imaging_quality").transform
        found = []
        with torch.inference_mode():
            for part in batches(len(frames), most):
                pixels = torch.from_numpy(frames[part]).to(self.device).permute(0, 3, 1, 2).float()
                found.append(self._scores(transform(pixels, preprocessing)).double().cpu().numpy())
        return np.concatenate(found)

    def _scores(self, pictures: Tensor) -> Tensor:
        """[n, 3, H, W] in 0..1 -> float32 [n]."""
        net = self.network
        multiscale = packages.load("pyiqa.data.multiscale_trans_util").get_multiscale_patches
        patches = multiscale((pictures - 0.5) * 2, **net.data_preprocess_opts)
        # Sequences are padded to squares. Nothing attends the padding, so leaving it out changes no score and saves
        # a quarter of the work on wide pictures. All pictures are of one size and have the same padding.
        patches = patches[:, patches[0, :, -1].bool()]
        net.training = True  # on the module alone: it then takes patches instead of a picture, and nothing else
        try:
            with autocast(self.device, self.half):
                found: Tensor = net(patches)
        finally:
            net.training = False
        return found.float().flatten()
