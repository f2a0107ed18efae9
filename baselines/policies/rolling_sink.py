"""Rolling Sink: the first frames of the video are replayed, there and back, as if they were its recent past."""

from __future__ import annotations

from dataclasses import dataclass

from irope.policy import CachePlan, CachePolicy, CacheView, PolicyError
from irope.registry import register_policy


@register_policy("rolling_sink")
@dataclass(frozen=True)
class RollingSink(CachePolicy):
    """The first frames replayed forwards and backwards in place of the past, at contiguous frame numbers.

    k = s - (window - n) .. s - 1, q = s .. s + n - 1, where s is the first frame of the block and n its length. The
    last ``recent`` indices hold the true frames. Index i before them holds frame i mod ``sink`` of the first ``sink``
    frames while i div ``sink`` is even, and the mirrored one (sink - 1 - i mod sink) while it is odd; a frame keeps
    its rows and columns. Until the window is full every frame is read at its own number. The published setting, in
    blocks of 3: a cache of K = 6 (``sink`` 18), of which S = 5 are replayed and one is true.

    The first ``sink`` frames are held for ever, read or not, besides the ``recent`` ones; near a turning point some are
    read twice, at two indices, and take a second slot meanwhile (as published at most 6 slots beyond ``capacity``). A
    prompt switch renews cross-attention only, and the replayed frames keep showing the old prompt. The published code
    ends at index 8,191; angles are computed here, so nothing happens there.
    """

    window: int = 21
    sink: int = 18
    recent: int = 3

    source = "arXiv 2602.07775; haodong2000/Rolling-Sink 6eaed1e"

    def capacity(self, block: int) -> int:
        return self.sink + self.recent + block

    def check(self, block: int, latents: int | None, horizon: int) -> None:
        super().check(block, latents, horizon)
        past = self.window - block
        if not 0 <= self.recent <= past:
            raise PolicyError(
                f"recent must lie in 0..{past} (window {self.window} - block {block}), got {self.recent}; "
                f"nearest valid value: {min(max(0, self.recent), past)}"
            )
        # A smaller bank would be replayed before the window is full.
        valid = [sink for sink in range(0, past + 1, block) if sink >= past - self.recent]
        if self.sink not in valid:
            nearest = min(valid, key=lambda sink: abs(sink - self.sink), default=None)
            raise PolicyError(
                f"impossible bank: with window {self.window} and recent {self.recent} the first {past - self.recent} "
                f"to {past} frames can be replayed, in whole blocks of {block}, not {self.sink} (sink); "
                f"nearest valid: {f'recent {past % block}' if nearest is None else f'sink {nearest}'}"
            )

    def plan(self, view: CacheView) -> CachePlan:
        start, n = view.block[0], len(view.block)
        index = tuple(range(max(0, start - (self.window - n)), start))
        read = tuple(i if i >= start - self.recent else self.replayed(i) for i in index)
        waiting = tuple(frame for frame in view.frames if frame < self.sink and frame not in read)
        return CachePlan(read, key_index=index, query_index=view.block, retain=waiting)

    def replayed(self, index: int) -> int:
        """The frame of the bank that stands for frame ``index``: 0, 1, .., sink - 1, sink - 1, .., 1, 0, 0, 1, .."""
        turn, place = divmod(index, self.sink)
        return self.sink - 1 - place if turn % 2 else place
