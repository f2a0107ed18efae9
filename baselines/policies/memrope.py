"""MemRoPE: what leaves a short window flows into two memory pages, one of slow and one of fast moving averages."""

from __future__ import annotations

from dataclasses import dataclass

from irope.policy import CachePlan, CachePolicy, CacheView, Merge, PolicyError
from irope.registry import register_policy


@register_policy("memrope")
@dataclass(frozen=True)
class MemRoPE(CachePolicy):
    """Sink, long and short memory of all evicted frames, recent frames; indices are slot numbers.

    The slots are sink | long | short | recent | new block, k = 0, 1, .. and the block behind them, so that ``window``
    counts both memories. Before the window is full there are none: every frame is attended at its own number. From
    then on the block's worth of frames that leaves ``recent`` is merged, keys and values alike, once per block:
    memory = (1 - rate) memory + rate * (mean over all tokens of those frames), the same vector at every place of the
    grid; the first time the mean itself. Older frames that make room for the memories that first time are lost
    (published: latent frames 3 and 4). Keys are averaged un-rotated.

    Published with Self-Forcing's weights and with LongLive's (``video.model.generator=longlive``). A prompt switch
    renews cross-attention only; the memories keep what the old prompt showed.
    """

    window: int = 12
    sink: int = 3
    long_rate: float = 0.01
    short_rate: float = 0.1

    source = "arXiv 2603.12513; YoungRaeKimm/MemRoPE b89bf5b"

    def capacity(self, block: int) -> int:
        return self.window + 2  # the first memories are made while the frames they replace are still held

    def check(self, block: int, latents: int | None, horizon: int) -> None:
        least = self.sink + 2 + 1 + block
        if self.sink >= 0 and self.window < least:
            sink = self.window - (least - self.sink)
            raise PolicyError(
                f"impossible window: sink {self.sink} + 2 memories + 1 recent frame + block {block} = {least} latent "
                f"frames do not fit in window {self.window}; nearest valid: window {least}"
                + (f" or sink {sink}" if sink >= 0 else "")
            )
        super().check(block, latents, horizon)
        for name, rate in (("long_rate", self.long_rate), ("short_rate", self.short_rate)):
            if not 0 <= rate <= 1:
                nearest = min(max(0, rate), 1)
                raise PolicyError(f"{name} must lie in 0..1, got {rate}; nearest valid value: {nearest}")

    def plan(self, view: CacheView) -> CachePlan:
        n = len(view.block)
        begun = any(page.id == "long" for page in view.pages)
        if not begun and len(view.frames) + n <= self.window:
            return CachePlan(read=view.frames, key_index=view.frames, query_index=view.block)
        room = self.window - self.sink - 2 - n
        sink, rest = view.frames[: self.sink], view.frames[self.sink :]
        evicted, recent = rest[:-room][-n:], rest[-room:]
        slots = tuple(range(self.window))
        return CachePlan(
            read=(*sink, "long", "short", *recent),
            key_index=slots[:-n],
            query_index=slots[-n:],
            merge=tuple(
                merged(page, rate, evicted, begun)
                for page, rate in (("long", self.long_rate), ("short", self.short_rate))
            ),
        )


def merged(page: str, rate: float, evicted: tuple[int, ...], begun: bool) -> Merge:
    """The memory ``page`` moved towards the mean of the evicted frames by ``rate``, or begun with it."""
    share = (rate if begun else 1.0) / len(evicted)
    old = ((page, 1 - rate),) if begun else ()
    return Merge(page, (*old, *((frame, share) for frame in evicted)), pool_tokens=True)
