"""Rolling Forcing: a window of blocks at rising noise levels, a re-anchored sink, and a context pass of its own."""

from __future__ import annotations

from dataclasses import dataclass

from irope.policy import CachePlan, CachePolicy, CacheView, Call
from irope.registry import register_policy


@register_policy("rolling_forcing")
@dataclass(frozen=True)
class RollingForcing(CachePolicy):
    """Several blocks at rising noise in one call, the sink moved up to the past.

    Denoising F frames from s: past = the newest ``window`` - F - sink cached frames, the sink contiguous before them:
    k = s - past - sink .. s - 1 for sink and past, q = s .. s + F - 1: all frames of the call see each other. The
    context pass of the first block reads the last ``window`` - 3 cached frames at their own indices, the sink only
    while it is one of them. Held besides: the sink and the newest frames, ``window`` + sink in all. Needs weights
    trained with mixed noise levels in one call, and as many denoising steps as the window has blocks.
    """

    window: int = 21
    sink: int = 3

    schedule = "rolling_window"
    steps = (1000, 800, 600, 400, 200)
    generator = "rolling_forcing_dmd"
    source = "arXiv 2509.25161; TencentARC/RollingForcing a1477d0"

    def capacity(self, block: int) -> int:
        return self.window + self.sink

    def plan(self, view: CacheView) -> CachePlan:
        start, n = view.block[0], len(view.block)
        sink, rest = view.frames[: self.sink], view.frames[self.sink :]
        if view.call is Call.CONTEXT:
            read = view.frames[max(0, len(view.frames) - (self.window - n)) :]
            retain = tuple(frame for frame in sink if frame not in read)
            return CachePlan(read, key_index=read, query_index=view.block, retain=retain)
        past = rest[len(rest) - max(0, min(len(rest), self.window - n - self.sink)) :]
        anchor = start - len(past) - len(sink)
        return CachePlan(
            read=sink + past,
            key_index=tuple(range(anchor, start)),
            query_index=view.block,
            retain=rest[: len(rest) - len(past)],
        )
