"""Counter-based Gaussian noise, keyed by (seed, prompt, block, step).

Any policy meets the same noise, a longer video starts with the noise of the shorter one, and a resumed run needs no
generator state. Philox's raw stream is fixed by its definition, and the Box-Muller step is written out, so a library
update cannot change a video.
"""

from __future__ import annotations

import hashlib
import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class NoiseSource(Protocol):
    def __call__(self, block: int, step: int) -> Tensor:
        """Noise [B, frames, C, H, W], float32, on the CPU; step 0 starts a block, step j brings it to step j."""


class KeyedNoise:
    """Standard normal noise for a batch of prompts.

    Args:
        seed: the user's seed.
        prompts: one key per video of the batch (`irope.script.PromptScript.noise_key`).
        shape: (frames per block, channels, height, width) of the latents.
    """

    def __init__(self, seed: int, prompts: list[str], shape: tuple[int, int, int, int]) -> None:
        self.keys = [hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()[:16] for prompt in prompts]
        self.shape = shape

    def __call__(self, block: int, step: int) -> Tensor:
        return torch.stack([self._draw(key, block, step) for key in self.keys])

    def _draw(self, key: bytes, block: int, step: int) -> Tensor:
        pairs = (math.prod(self.shape) + 1) // 2
        # The upper counter words name the draw, the lower ones count within it.
        bits = np.random.Philox(key=int.from_bytes(key, "little"), counter=[0, 0, step, block]).random_raw(2 * pairs)
        uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        radius = np.sqrt(-2 * np.log(uniform[:pairs]))
        angle = 2 * math.pi * uniform[pairs:]
        normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: math.prod(self.shape)]
        return torch.from_numpy(normal.astype(np.float32).reshape(self.shape))
