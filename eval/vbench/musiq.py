"""Quality of single pictures by MUSIQ (arXiv 2108.05997) trained on SPAQ: VBench's imaging quality."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from eval.scorer import Frames, Rows, Runtime
from eval.vbench import packages
from eval.vbench.networks import inference, read_state
from eval.vbench.packages import cache_dir
from eval.vbench.running import batches, unseen_initial_values

if TYPE_CHECKING:
    from torch import Tensor

Preprocessing = Literal["longer", "shorter", "shorter_centercrop", "None"]


def load(runtime: Runtime) -> Musiq:
    """MUSIQ-SPAQ with the published weights; read once a process.

    Raises:
        VBenchError: the package cannot be imported, or the file is damaged.
    """
    return _load(str(cache_dir()), runtime.device, runtime.precision == "half")


@cache
def _load(cache: str, device: str, half: bool) -> Musiq:
    with unseen_initial_values():
        network = packages.load("pyiqa.archs.musiq_arch").MUSIQ(pretrained=False)
    state = read_state("musiq_spaq_ckpt-358bb6af.pth")
    network.load_state_dict(state.get("params", state))
    return Musiq(network.to(device).eval(), Runtime(device, "half" if half else "float32"))


class Musiq:
    """The package's own network and weights, several pictures at a time."""

    def __init__(self, network: Any, runtime: Runtime) -> None:
        self.network, self.runtime = network, runtime

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
        with inference(self.runtime):
            for part in batches(len(frames), most):
                pixels = torch.from_numpy(frames[part]).to(self.runtime.device).permute(0, 3, 1, 2).float()
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
            found: Tensor = net(patches)
        finally:
            net.training = False
        return found.float().flatten()
