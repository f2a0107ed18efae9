"""What the linear codec misses, added by a small convolutional net: edges finer than its components, smooth seams.

Shapes: B latent frames, C latent channels, V values a cell, h w latent cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

WIDTH = 128


class Correction(nn.Module):
    """Latent frames [B, C, h, w] to corrections of their cells [B, V, h, w], added to the linear decode.

    A cell sees its neighbours within two cells around the torus and nothing of other latent frames, so decoding stays
    free of state. The last layer starts at zero: an untrained correction changes nothing.

    Args:
        channels, values, width: C, V, and channels of the layers between.
    """

    def __init__(self, channels: int, values: int, width: int = WIDTH) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, width, 3, padding=1, padding_mode="circular")
        self.far = nn.Conv2d(width, width, 3, padding=1, padding_mode="circular")
        self.mix = nn.Conv2d(width, width, 1)
        self.out = nn.Conv2d(width, values, 1)
        self.initialize(0)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Overwrite every weight from ``seed``."""
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            bound = 0.0 if name.endswith("bias") or name.startswith("out.") else weight[0].numel() ** -0.5
            weight.uniform_(-bound, bound, generator=generator)

    def forward(self, latents_BChw: Tensor) -> Tensor:
        x = gelu(self.near(latents_BChw), approximate="tanh")
        x = x + gelu(self.far(x), approximate="tanh")
        x = x + gelu(self.mix(x), approximate="tanh")
        corrected: Tensor = self.out(x)
        return corrected
