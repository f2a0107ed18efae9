"""Compile every Triton kernel for an H100, as its caller in `irope.kernels` launches it; no GPU is needed for that.

In a process of its own, which `test_kernels` starts: elsewhere the kernels may be made to be interpreted.
"""

from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from irope import kernels

H100 = GPUTarget("cuda", 90, 32)
TYPES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.int32: "i32", torch.float8_e4m3fn: "fp8e4nv"}


class Launches:
    """Stands in for a kernel: compiles what would be launched."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self.compile

    def compile(self, *arguments: Any, num_warps: int, **constants: Any) -> None:
        names = [name for name in self.kernel.arg_names if name not in constants]
        types = {name: self.type_of(value) for name, value in zip(names, arguments, strict=True)}
        source = ASTSource(
            fn=self.kernel, signature=types | dict.fromkeys(constants, "constexpr"), constexprs=constants
        )
        made = triton.compile(source, target=H100, options={"num_warps": num_warps})
        assert made.asm["cubin"]

    @staticmethod
    def type_of(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"*{TYPES[value.dtype]}"
        return "fp32" if isinstance(value, float) else "i32" if value < 2**31 else "i64"


def main() -> None:
    launched = ("_norm_turn_store", "_norm_modulate", "_gated_sum", "_quantise_rows")
    for name in launched:
        setattr(kernels, name, Launches(getattr(kernels, name)))
    for dtype in (torch.bfloat16, torch.float32):
        heads, size, tokens = 12, 128, 6
        y = torch.zeros(1, 3 * tokens, 3, heads * size, dtype=dtype)
        cache = torch.zeros(1, 6 * tokens, heads, size, dtype=dtype)
        phase = torch.zeros(3 * tokens, 1, size // 2, dtype=torch.complex64)
        slots = torch.zeros(3, dtype=torch.int32)
        kernels.norm_turn_store(y, torch.zeros(2, heads * size, dtype=dtype), 1e-6, phase, slots, cache, cache)
        x, row = (torch.zeros(1, 3, n, heads * size, dtype=dtype) for n in (tokens, 1))
        for modulation in (row, row.float()):
            kernels.norm_modulate(x, modulation, modulation, 1e-6)
            kernels.gated_sum(x, x, modulation)
        for width in (1536, 8960):
            kernels.quantise_rows(torch.zeros(8, width, dtype=dtype))
    print(f"{len(launched)} kernels")


if __name__ == "__main__":
    main()
