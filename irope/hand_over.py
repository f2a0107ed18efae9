"""What passes between host and device: decoded frames, at once or on a CUDA stream beside the next block; numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

Decode = Callable[[Tensor], Tensor]
"""Latents [B, n, C, h, w] to uint8 frames [B, m, H, W, 3], where they are decoded."""


class Lane(Protocol):
    """Starts a decode; what it returns waits for the frames and gives them on the CPU.

    Attributes:
        ahead: whether a roll-out should begin its next block before it waits.
    """

    ahead: bool

    def __call__(self, decode: Decode, latents_BFCHW: Tensor, /) -> Callable[[], Tensor]: ...


class AtOnce:
    """Decodes when asked, as on a CPU."""

    ahead = False

    def __call__(self, decode: Decode, latents_BFCHW: Tensor) -> Callable[[], Tensor]:
        frames = decode(latents_BFCHW).cpu()
        return lambda: frames


class SideStream:
    """Decodes on a stream of its own and copies to pinned memory, while the device makes the next block.

    Args:
        cuda: ``torch.cuda``, or what stands in for it in a test.
    """

    ahead = True

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        self._device, self._cuda = device, cuda
        self._stream = cuda.Stream(device)

    def __call__(self, decode: Decode, latents_BFCHW: Tensor) -> Callable[[], Tensor]:
        self._stream.wait_stream(self._cuda.current_stream(self._device))  # the latents are not made yet
        with self._cuda.stream(self._stream):
            frames = decode(latents_BFCHW)
            host = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=frames.is_cuda)
            host.copy_(frames, non_blocking=True)
            done = self._stream.record_event()
        if latents_BFCHW.is_cuda:  # their memory is not given away before the decode has read them
            latents_BFCHW.record_stream(self._stream)

        def wait() -> Tensor:
            done.synchronize()
            return host

        return wait


def sent(x: Tensor, device: torch.device) -> Tensor:
    """``x`` of the host on a device. The host goes on: from memory that is not pinned it would wait for all before."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def lane_for(device: torch.device) -> Lane:
    """A stream of its own on a GPU."""
    return SideStream(device) if device.type == "cuda" else AtOnce()
