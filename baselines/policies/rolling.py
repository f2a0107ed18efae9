"""Plain rolling window, with or without an attention sink, at absolute indices (Self-Forcing's long roll-outs)."""

from __future__ import annotations

from dataclasses import dataclass

from irope.policy import CachePlan, CachePolicy, CacheView, split_window
from irope.registry import register_policy


@register_policy("rolling")
@dataclass(frozen=True)
class Rolling(CachePolicy):
    """Sink and newest past at their own frame numbers.

    Frames = sink + past, k = the same, q = s .. s+2, where s is the first frame of the block.
    Without a sink this equals Block-Relativistic RoPE exactly, because only index differences matter; with a sink its
    distance to the block grows without bound. A prompt switch renews cross-attention only ("keep"). The published
    code stops at index 1,023; angles are computed here, so nothing happens there.
    """

    source = "guandeh17/Self-Forcing 33593df (local_attn_size, sink_size)"

    def plan(self, view: CacheView) -> CachePlan:
        sink, past = split_window(view.frames, len(view.block), self.window, self.sink)
        return CachePlan(read=sink + past, key_index=sink + past, query_index=view.block)
