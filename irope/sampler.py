"""Few-step flow matching: timesteps, sigmas, x0 from the flow, and renoising (Self-Forcing's scheduler)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor  # plans are made without it: importing torch takes a second

TABLE = 1000


@cache
def sigma_table(shift: float) -> NDArray[np.float32]:
    """sigma_i = shift*u / (1 + (shift-1)*u) with u = 1 - i/1000, i = 0..999; float32 [1000]. t_i = 1000 * sigma_i."""
    u = 1 - np.arange(TABLE, dtype=np.float64) / TABLE
    table = (shift * u / (1 + (shift - 1) * u)).astype(np.float32)
    table.flags.writeable = False
    return table


@dataclass(frozen=True)
class Sampler:
    """The denoising steps of a method.

    Attributes:
        timesteps: t of every step, 1000 first.
        sigmas: noise share of every step, in (0, 1].
    """

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]

    @classmethod
    def from_nominal(cls, steps: Sequence[float], shift: float, warp: bool = True) -> Sampler:
        """Steps as configurations write them (1000, 750, 500, 250).

        With ``warp`` a nominal step n stands for the timestep at table position 1000 - n.

        Raises:
            ValueError: no steps, steps that do not fall, or steps outside (0, 1000].
        """
        if not steps or list(steps) != sorted(set(steps), reverse=True) or not 0 < steps[-1] <= steps[0] <= TABLE:
            raise ValueError(f"denoising steps must fall within (0, {TABLE}], got {list(steps)}")
        table = sigma_table(shift)
        if warp:
            return cls.from_timesteps([float(table[TABLE - round(n)]) * TABLE for n in steps], shift)
        return cls.from_timesteps(steps, shift)

    @classmethod
    def from_timesteps(cls, timesteps: Sequence[float], shift: float) -> Sampler:
        """Steps given as timesteps; sigma is that of the nearest timestep in the shifted table."""
        table = sigma_table(shift)
        t = np.asarray(list(timesteps), dtype=np.float32)
        nearest = np.abs(t[:, None] - table * np.float32(TABLE)).argmin(1)
        return cls(tuple(t.tolist()), tuple(table[nearest].tolist()))

    @property
    def steps(self) -> int:
        return len(self.timesteps)


def clean(x: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """x0 = x - sigma*v, computed in float64 and rounded to the dtype of ``x``; ``sigma`` broadcasts."""
    return (x.double() - sigma.double() * v.double()).to(x.dtype)


def renoise(x0: Tensor, eps: Tensor, sigma: float) -> Tensor:
    """(1 - sigma)*x0 + sigma*eps, computed in float32 and rounded to the dtype of ``x0``."""
    return ((1 - sigma) * x0.float() + sigma * eps.float()).to(x0.dtype)
