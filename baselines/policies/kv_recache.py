"""LongLive: frame sink + short window, and KV Recache at a prompt switch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from irope.policy import CacheEvent, CachePlan, CachePolicy, CacheView, Recompute, split_window
from irope.registry import register_policy


@register_policy("kv_recache")
@dataclass(frozen=True)
class KVRecache(CachePolicy):
    """Window and sink; at a prompt switch the window is encoded again under the new prompt.

    The last min(window, s) latent frames are recached, where s is the first frame of the block.
    The recache is one call at timestep 0 in which all those frames see each other. ``sink_at_switch=kept`` (LongLive's
    ``global_sink=true``) keeps the old-prompt sink and stores only the newest window - sink frames; ``renewed`` stores
    them all, and the oldest becomes the new sink. While s <= window the sink lies inside and is encoded again either
    way. ``index=absolute`` uses frame numbers (LongLive), ``relative`` slot numbers (LongLive-infinity): k = 0, 1, ..
    and the block behind them. A scene cut acts as a switch.
    """

    window: int = 12
    sink: int = 3
    sink_at_switch: Literal["kept", "renewed"] = "kept"
    index: Literal["absolute", "relative"] = "absolute"

    generator = "longlive"
    source = "arXiv 2509.22622; NVlabs/LongLive v1.0 e52d9ef"
    needs = frozenset({"recompute"})

    def plan(self, view: CacheView) -> CachePlan:
        n = len(view.block)
        recompute = None if view.event is CacheEvent.BLOCK else self.recache(view)
        held = view.frames if recompute is None else recompute.read + recompute.store
        sink, past = split_window(held, n, self.window, self.sink)  # type: ignore[arg-type]
        read = sink + past
        if self.index == "absolute":
            return CachePlan(read, key_index=read, query_index=view.block, recompute=recompute)
        slots = tuple(range(len(read) + n))
        return CachePlan(read, key_index=slots[:-n], query_index=slots[-n:], recompute=recompute)

    def recache(self, view: CacheView) -> Recompute:
        """The call that encodes the window again; ``held`` above is what the cache holds behind it."""
        start = view.block[0]
        frames = tuple(range(max(0, start - self.window), start))
        keep_sink = self.sink_at_switch == "kept" and start > self.window
        sink = view.frames[: self.sink] if keep_sink else ()
        store = frames[self.sink :] if keep_sink else frames
        if self.index == "absolute":
            return Recompute(frames, index=frames, store=store, read=sink, key_index=sink)
        slots = tuple(range(len(frames)))
        return Recompute(frames, index=slots, store=store, read=sink, key_index=slots[: len(sink)])
