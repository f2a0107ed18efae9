"""Numbers on their way to a device; frames on their way back are in `test_lock_step`."""

from typing import Any

import torch

from irope.hand_over import sent

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Watched:
    """Stands in for a tensor of the host and notes what is asked of it."""

    device = CPU

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def pin_memory(self) -> "Watched":
        self.calls.append("pinned")
        return self

    def to(self, device: torch.device, non_blocking: bool = False) -> "Watched":
        self.calls.append((device, non_blocking))
        return self


def test_what_goes_to_a_gpu_is_pinned_and_not_waited_for() -> None:
    there: Any = Watched()
    sent(there, CUDA)
    assert there.calls == ["pinned", (CUDA, True)]
    x = torch.ones(3)
    assert sent(x, CPU) is x
