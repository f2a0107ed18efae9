"""Counts what a forward pass asks of a device: operations, scalar reads, bytes of elementwise work, FLOPs.

It listens to PyTorch's dispatcher, so it counts the same on a CPU, a GPU and the ``meta`` device, where the 1.3B
geometry needs no weights and no time. What it counts is deterministic: a guard for speed on machines without a GPU.

An operation is a call that launches work; views and allocations are none. Attention and RMSNorm count as the one kernel
that a GPU runs, whatever the CPU makes of them. Triton kernels pass by the dispatcher and are not seen.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
_ONE_KERNEL = {
    aten.scaled_dot_product_attention.default, aten._fused_rms_norm.default, aten._upsample_nearest_exact2d.vec,
    aten.dropout.default,
}  # fmt: skip
_FREE = {
    aten.dropout,  # of inference: gives back what it got
    aten._unsafe_view, aten._reshape_alias, aten.alias, aten.detach_, aten.lift_fresh,
    aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided,
}  # fmt: skip
_WRITES_ONLY = {aten.copy_, aten.fill_, aten.zero_}
_GATHERS = {aten.index, aten.index_select, aten.gather, aten.embedding}
_SCATTERS = {aten.index_copy_, aten.index_put_, aten.scatter_}
_MOVES = {aten.clone, aten.cat, aten.stack, aten.copy_, aten._to_copy} | _GATHERS | _SCATTERS


@dataclass
class Tally:
    """Sums over one region.

    Attributes:
        operations: launches of work.
        reads: times the host waited for a value of a tensor (``.item()``), or for a copy to the CPU.
        uploads: copies from the CPU to another device.
        elementwise: bytes read and written by everything that is no matrix product, attention or convolution, by the
            shapes of the tensors.
        flops: floating-point operations of matrix products, attention and convolutions; a multiply-add is two.
        moved: bytes written by operations that only move data: clones, copies, casts, concatenations, gathers.
        largest_move: bytes written by the largest of those.
    """

    operations: int = 0
    reads: int = 0
    uploads: int = 0
    elementwise: int = 0
    flops: int = 0
    moved: int = 0
    largest_move: int = 0

    def __sub__(self, other: Tally) -> Tally:
        """What came on top; the largest move is that of ``self``."""
        sums = {name: value - getattr(other, name) for name, value in vars(self).items()}
        return Tally(**sums | {"largest_move": self.largest_move})


class OpCounter(TorchDispatchMode):
    """``with OpCounter() as counter: ...`` and then ``counter.total``, or ``counter["pass 1/layer 0"]``.

    Composite operations are taken apart to what is launched, which needs inference mode; it is switched on here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.regions: defaultdict[str, Tally] = defaultdict(Tally)
        self._path: list[str] = []
        self._inference: list[torch.inference_mode] = []

    def __enter__(self) -> OpCounter:
        guard = torch.inference_mode()
        guard.__enter__()
        self._inference.append(guard)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._inference.pop().__exit__(*error)

    def __getitem__(self, region: str) -> Tally:
        return self.regions[region]

    @property
    def total(self) -> Tally:
        return self.regions[""]

    @contextmanager
    def region(self, name: str) -> Iterator[None]:
        """Count what happens inside under ``name`` as well; regions within regions are joined by a slash."""
        self._path.append(name)
        try:
            yield
        finally:
            self._path.pop()

    @contextmanager
    def layers(self, blocks: Iterable[nn.Module]) -> Iterator[None]:
        """Count the forward pass of every module under ``layer I``."""
        hooks = []
        for number, block in enumerate(blocks):
            hooks.append(block.register_forward_pre_hook(lambda *_, n=number: self._path.append(f"layer {n}")))
            hooks.append(block.register_forward_hook(lambda *_: self._path.pop() and None))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func not in _ONE_KERNEL and _composite(func):
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        if func is aten.scaled_dot_product_attention.default and args[0].device.type == "meta":
            out = args[0].transpose(1, 2).contiguous().transpose(1, 2)  # the layout that flash and cuDNN answer in
        else:
            out = func(*args, **kwargs)
        packet = func.overloadpacket
        if not func.is_view and packet not in _FREE:
            for depth in range(len(self._path) + 1):
                self._count(self.regions["/".join(self._path[:depth])], func, packet, args, kwargs, out)
        return out

    def _count(self, tally: Tally, func: Any, packet: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> None:
        tally.operations += 1
        if packet is aten._local_scalar_dense:
            tally.reads += 1
            return
        if func is aten.scaled_dot_product_attention.default:
            tally.flops += attention_flops(args[0], args[1])
            return
        if packet in flop_registry:
            tally.flops += int(flop_registry[packet](*args, **kwargs, out_val=out))
            return
        read, written = _traffic(packet, args, kwargs, out)
        tally.elementwise += read + written
        if packet in _MOVES:
            tally.moved += written
            tally.largest_move = max(tally.largest_move, written)
        if packet in (aten.copy_, aten._to_copy):
            source, target = (args[1], args[0]) if packet is aten.copy_ else (args[0], out)
            tally.reads += source.device.type != target.device.type == "cpu"
            tally.uploads += target.device.type != source.device.type == "cpu"


@cache
def _composite(func: Any) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


def attention_flops(query_BNLK: Tensor, key_BNMK: Tensor) -> int:
    """FLOPs of softmax attention without a mask: two products of L x M x K per head."""
    return 4 * math.prod(query_BNLK.shape) * key_BNMK.shape[2]


def _traffic(packet: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> tuple[int, int]:
    """(bytes read, bytes written) of one operation, by the shapes of its tensors."""
    written = sum(tensor.nbytes for tensor in _tensors(out))
    if packet in _SCATTERS:  # the target is as large as the buffer, what is written as large as the source
        written = min([written, *(tensor.nbytes for tensor in _tensors(args[1:]) if tensor.is_floating_point())])
        return written, written
    if packet in _GATHERS:
        return written, written
    sources = args[1:] if packet in _WRITES_ONLY else (*args, *kwargs.values())
    return sum(tensor.nbytes for tensor in _tensors(sources)), written


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for part in tree:
            yield from _tensors(part)
