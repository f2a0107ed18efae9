"""How much moves from a frame to the next, by RAFT (arXiv 2003.12039): what VBench's dynamic degree counts.

Shapes: n pairs of k = n + 1 consecutive frames, H x W pixels, h x w = the eighth of them, rounded up; 3 = RGB.
"""

from __future__ import annotations

import warnings
from argparse import Namespace
from functools import cache
from typing import TYPE_CHECKING, Any

from eval.scorer import Frames, Runtime
from eval.vbench import packages
from eval.vbench.networks import inference, read_state
from eval.vbench.packages import cache_dir
from eval.vbench.running import autocast, batches, fitting, unseen_initial_values

if TYPE_CHECKING:
    from torch import Tensor

ITERATIONS = 20
LEAST_SIDE = 121
"""Below (128 after padding to eighths) the coarsest level of the correlation has one row or column, the flow is NaN."""


def load(runtime: Runtime) -> Raft:
    """RAFT with the published weights; read once a process.

    Raises:
        VBenchError: the package cannot be imported, or the file is damaged.
    """
    return _load(str(cache_dir()), runtime.device, runtime.precision == "half")


@cache
def _load(cache: str, device: str, half: bool) -> Raft:
    build = packages.load("vbench.third_party.RAFT.core.raft").RAFT
    with unseen_initial_values():
        network = build(Namespace(small=False, mixed_precision=False, alternate_corr=False))
    state = read_state("raft-things.pth")
    network.load_state_dict({name.replace("module.", ""): value for name, value in state.items()})
    return Raft(network.to(device).eval(), device, half)


class Raft:
    """The package's own network and weights; encodes each frame of a run once and enlarges the last flow only."""

    def __init__(self, network: Any, device: str, half: bool) -> None:
        self.network, self.device, self.half = network, device, half

    def motion(self, frames: Frames, most: int = 16) -> list[float]:
        """How far the fastest twentieth of the pixels moves from each frame to the next, in pixels: n values.

        Args:
            frames: uint8 [k, H, W, 3]; ``most`` pairs at a time, fewer where memory asks for it.
        """
        height, width = frames.shape[1:3]
        cells = -(-height // 8) * -(-width // 8)
        each = 4 * cells * (cells * 4 // 3 + 6000)  # the correlation of all cells with all, at four scales; features
        found: list[float] = []
        for part in batches(len(frames) - 1, fitting(most, each)):
            found += self._motion(frames[part.start : part.stop + 1])
        return found

    def _motion(self, frames: Frames) -> list[float]:
        with inference(Runtime(self.device)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.meshgrid")
            return _fastest(self._flow(self._padded(frames)))

    def _padded(self, frames: Frames) -> Tensor:
        """float32 [k, 3, 8h, 8w], 0..255."""
        import torch

        pixels = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2).float()
        padder = packages.load("vbench.third_party.RAFT.core.utils_core.utils").InputPadder(pixels.shape)
        padded: Tensor = padder.pad(pixels)[0]
        return padded

    def _flow(self, pixels: Tensor) -> Tensor:
        """The flow of each frame to the next, float32 [n, 2, 8h, 8w], in pixels."""
        import torch

        net = self.network
        block, pixels = net.update_block, (2 * (pixels / 255.0) - 1.0).contiguous()
        with autocast(torch.device(self.device), self.half):
            features, context = net.fnet(pixels).float(), net.cnet(pixels[:-1])
        state, given = torch.split(context, [net.hidden_dim, net.context_dim], dim=1)
        state, given = torch.tanh(state), torch.relu(given)
        correlation = packages.load("vbench.third_party.RAFT.core.corr").CorrBlock(
            features[:-1], features[1:], radius=net.args.corr_radius
        )
        start, end = net.initialize_flow(pixels[:-1])
        for _ in range(ITERATIONS):
            around, flow = correlation(end), end - start
            with autocast(torch.device(self.device), self.half):
                moved = block.encoder(flow, around)
                state = block.gru(state, torch.cat([given, moved], dim=1))
                end = end + block.flow_head(state).float()
        with autocast(torch.device(self.device), self.half):
            mask = 0.25 * block.mask(state)
        enlarged: Tensor = net.upsample_flow(end - start, mask.float())
        return enlarged

    def motion_as_stock(self, frames: Frames) -> float:
        """`motion` of two frames as vbench computes it: float32 (or TF32, where torch is set so) and a full sort."""
        import torch

        score = packages.load("vbench.dynamic_degree").DynamicDegree.get_score
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package is older than this torch
            pixels = self._padded(frames)
            _, flow = self.network(pixels[:1], pixels[1:], iters=ITERATIONS, test_mode=True)
            return float(score(None, pixels[:1], flow))


def _fastest(flow: Tensor) -> list[float]:
    """Mean length of the longest twentieth of the vectors [n, 2, H, W], padding included as in vbench."""
    import torch

    length = flow.square().sum(1).sqrt().flatten(1)
    fastest = torch.topk(length, int(length.shape[1] * 0.05), dim=1, sorted=False).values
    return fastest.mean(1, dtype=torch.float64).tolist()


def threshold(height: int, width: int) -> float:
    """Pixels from which on a pair counts as moving."""
    return 6.0 * (min(height, width) / 256.0)


class MovingPairs:
    """VBench's rule: a video moves if as many pairs do as ask for it; 4 of 16 frames, rounded half to even.

    One frame never moves; two always do, since they need no pair.
    """

    def __init__(self, frames: int) -> None:
        self.pairs, self.needed = frames - 1, round(4 * (frames / 16.0))
        self.seen = self.moving = 0

    def add(self, moves: bool) -> None:
        self.seen, self.moving = self.seen + 1, self.moving + moves

    @property
    def verdict(self) -> bool | None:
        """Whether the video moves, or None while the pairs to come can still change it."""
        if self.pairs and self.moving >= self.needed:
            return True
        return None if self.pairs and self.moving + self.pairs - self.seen >= self.needed else False

    @property
    def unavoidable(self) -> int:
        """How many more pairs must be seen whatever they show; 0 once there is a verdict."""
        if self.verdict is not None:
            return 0
        missing = self.needed - self.moving
        return min(missing, self.pairs - self.seen - missing + 1)
