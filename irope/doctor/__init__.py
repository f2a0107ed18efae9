"""Is this machine ready for what a configuration asks? Checks that look, change nothing and contact nobody.

Each check is a function of the configuration that answers with findings. What the configuration needs and is not there
is bad; what only other configurations need is worth a warning. Packages are looked up, and imported where only that
tells: torch, PyAV.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from irope.config import Settings
from irope.doctor import machine, needs
from irope.doctor.finding import Finding, State, told
from irope.errors import UserError

__all__ = ["CHECKS", "Check", "Finding", "State", "examine"]

Check: TypeAlias = Callable[[Settings], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "python": machine.python,
    "torch": machine.torch_build,
    "GPU": machine.gpu,
    "attention": machine.attention,
    "video": machine.video_files,
    "disk": machine.disk,
    "weights": needs.weights,
    "text and VAE": needs.packages,
    "systems": needs.systems,
    "W&B": needs.wandb,
    "Slurm": needs.slurm,
}
"""In the order of the screen; the command line adds what scoring needs."""


def examine(config: Settings, checks: Mapping[str, Check]) -> list[Finding]:
    """All findings, in order. A check that fails is a finding itself: whatever is broken here, the others answer."""
    found: list[Finding] = []
    for name, check in checks.items():
        try:
            found += check(config)
        except UserError as error:
            found.append(told(name, error))
        except Exception as error:
            found.append(Finding(name, "bad", f"cannot be checked: {type(error).__name__}: {error}"))
    return found
