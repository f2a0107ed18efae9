"""∞-RoPE (arXiv 2511.20649): Block-Relativistic RoPE, KV Flush and RoPE Cut, in every documented reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from irope.policy import CacheEvent, CachePlan, CachePolicy, CacheView, PolicyError, split_window
from irope.registry import register_policy

PRESETS: dict[str, dict[str, Any]] = {
    "official": {"f0": None, "flush_keep": 2, "cut_mode": "target", "cut_frames": "all", "cut_delta": 45},
    "paper": {"f0": 21, "flush_keep": 1, "cut_mode": "offset", "cut_frames": "last2", "cut_delta": 45},
}


@register_policy("infinity_rope")
@dataclass(frozen=True)
class InfinityRope(CachePolicy):
    """Sink + short window whose indices never leave the trained horizon.

    Indices (0-based; q0 is the index of the block's first frame, n the frames per block):

    * block: q0 = min(s, f0 - n), the past contiguous before it, index max(0, q0 - distance) (section 4, eq. 2; the
      maximum collapses frames beyond f_limit to one shared minimum, eq. 3);
    * sink: at 0, 1, .. (``pinned``) or contiguous before the past (``attached``);
    * KV Flush, at a prompt switch or a cut: only the sink and the last ``flush_keep`` frames stay;
    * RoPE Cut, at a scene cut, for that block only (eq. 4): ``cut_frames=all`` moves the whole block, ``last2`` keeps
      its first frame as an anchor; ``cut_mode=target`` reads Δ as the index aimed at, ``offset`` as a distance.

    ``compat`` fills every setting that is left null:

    * ``official`` (the released code): f0 = window, so the sink sits 3..5 frames away at window 6; flush keeps the last
      two frames; a cut puts the whole block at 45, 46, 47 whatever the present index.
    * ``paper`` (the text behind the published numbers): f0 = 21, so the sink sits 18..20 frames away; flush keeps the
      last frame; a cut keeps the first frame of the block and moves the other two by Δ (eq. 4 as printed).

    They differ in nothing else: only index differences matter. Defects of the released code that are not reproduced:
    a flush before the cache is full never reads empty or stale slots (it keeps what exists), and a block's queries
    always have the index of its own keys, also while a window above 6 refills after a flush.
    """

    window: int = 6
    sink: int = 1
    compat: Literal["official", "paper"] = "official"
    f0: int | None = None
    sink_index: Literal["pinned", "attached"] = "pinned"
    on_switch: Literal["flush", "keep"] = "flush"
    flush_keep: int | None = None
    cut_delta: int | None = None
    cut_mode: Literal["target", "offset"] | None = None
    cut_frames: Literal["all", "last2"] | None = None

    generator = "infinite_forcing"
    source = "arXiv 2511.20649; yesiltepe-hidir/infinity-rope 63d7b84"

    def __post_init__(self) -> None:
        for name, value in PRESETS[self.compat].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.window if name == "f0" and value is None else value)

    def check(self, block: int, latents: int | None, horizon: int) -> None:
        super().check(block, latents, horizon)
        assert self.f0 is not None  # filled by __post_init__
        assert self.flush_keep is not None
        if self.f0 < self.sink + block:
            raise PolicyError(
                f"f0 {self.f0} leaves no room for sink {self.sink} + block {block}; nearest valid: {self.sink + block}"
            )
        assert self.cut_delta is not None
        if self.flush_keep < 0:
            raise PolicyError(f"flush_keep must not be negative, got {self.flush_keep}; nearest valid value: 0")
        # A target of the last frame leaves room for the anchor and the others at indices that are not negative.
        least = block if (self.cut_mode, self.cut_frames) == ("target", "last2") else 0
        if self.cut_delta < least:
            raise PolicyError(f"cut_delta must be at least {least}, got {self.cut_delta}; nearest valid value: {least}")

    def plan(self, view: CacheView) -> CachePlan:
        assert self.f0 is not None  # filled by __post_init__
        assert self.flush_keep is not None
        n = len(view.block)
        sink, past = split_window(view.frames, n, self.window, self.sink)
        if view.event is CacheEvent.SCENE_CUT or (view.event is CacheEvent.PROMPT_SWITCH and self.on_switch == "flush"):
            past = past[max(0, len(past) - self.flush_keep) :]
        q0 = min(view.block[0], self.f0 - n)
        past_index = tuple(max(0, q0 - distance) for distance in range(len(past), 0, -1))
        start = 0 if self.sink_index == "pinned" else q0 - len(past) - len(sink)
        sink_index = tuple(max(0, start + i) for i in range(len(sink)))
        return CachePlan(
            read=sink + past,
            key_index=sink_index + past_index,
            query_index=self.cut(q0, n) if view.event is CacheEvent.SCENE_CUT else tuple(range(q0, q0 + n)),
        )

    def cut(self, q0: int, n: int) -> tuple[int, ...]:
        """Indices of a block of ``n`` frames after RoPE Cut, where it would have stood at q0, q0 + 1, .."""
        assert self.cut_delta is not None
        if self.cut_frames == "all":
            start = self.cut_delta if self.cut_mode == "target" else q0 + self.cut_delta
            return tuple(range(start, start + n))
        # The anchor stays; a target is the 1-based index of the block's last frame, as in the paper's figure 5.
        last = self.cut_delta - 1 if self.cut_mode == "target" else q0 + n - 1 + self.cut_delta
        return (q0, *range(last - n + 2, last + 1))
