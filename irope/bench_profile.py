"""Where the time of a block goes: kernels of the device by kind, how many are launched, and the longest of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

KINDS = {
    "fused elementwise": r"^triton_(poi|red|per)|^_(norm_turn_store|norm_modulate|gated_sum|quantise_rows)",
    "attention": r"flash|fmha|sdpa|attention|softmax",
    "convolutions": r"conv\d|convolution|winograd|fprop",
    "matrix products": r"gemm|gemv|cutlass|cublas|nvjet|xmma|mm$|mm_|split_?k|linear",
    "copies": r"memcpy|memset|copy",
}
"""What the name of a kernel says it is; the first that fits. Everything else is single operations."""
OTHER = "single elementwise operations"
_LONGEST = 8


def kind_of(kernel: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, kernel, re.IGNORECASE)), OTHER)


def profiled(blocks: Iterator[Any], device: torch.device) -> dict[str, Any]:
    """Milliseconds and launches of the next block by kind of kernel, and its longest kernels.

    The profiler slows the host down, so the block's own time is not reported. On a CPU, where nothing is launched,
    operations take the place of kernels.
    """
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as recorded:
        next(blocks)
        if cuda:
            torch.cuda.synchronize(device)
    found = [
        (event.key, (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e3, event.count)
        for event in recorded.key_averages()
        if event.device_type.name == device.type.upper()
    ]
    kinds: dict[str, dict[str, float]] = {}
    for name, milliseconds, count in found:
        sums = kinds.setdefault(kind_of(name), {"ms": 0.0, "launches": 0})
        sums["ms"] += milliseconds
        sums["launches"] += count
    longest = sorted(found, key=lambda each: -each[1])[:_LONGEST]
    return {
        "kinds": dict(sorted(kinds.items(), key=lambda each: -each[1]["ms"])),
        "busy_ms": sum(milliseconds for _, milliseconds, _ in found),
        "launches": sum(count for *_, count in found),
        "longest": [{"kernel": name[:100], "ms": took, "launches": count} for name, took, count in longest],
    }
