"""The full cache of Self-Forcing: every frame attended at its own index, up to the trained horizon."""

from __future__ import annotations

from dataclasses import dataclass

from irope.policy import CachePlan, CachePolicy, CacheView, PolicyError
from irope.registry import register_policy


@register_policy("full")
@dataclass(frozen=True)
class Full(CachePolicy):
    """Every frame so far at its own index; nothing is evicted, so a video ends where the cache is full.

    Frames and k = 0 .. s-1, q = s .. s+2, where s is the first frame of the block.
    ``window`` is the number of latent frames the cache holds (21 = 5 s). The published code fails at the next block.
    A prompt switch renews cross-attention only.
    """

    source = "guandeh17/Self-Forcing 33593df"

    def check(self, block: int, latents: int | None, horizon: int) -> None:
        super().check(block, latents, horizon)
        if latents is not None and latents > self.window:
            raise PolicyError(
                f"the full cache holds {self.window} latent frames, this video needs {latents}; "
                f"shorten it, or choose a policy that forgets: rolling, infinity_rope, kv_recache"
            )

    def plan(self, view: CacheView) -> CachePlan:
        if view.block[-1] >= self.window:
            raise PolicyError(f"the full cache holds {self.window} latent frames; frame {view.block[-1]} does not fit")
        return CachePlan(read=view.frames, key_index=view.frames, query_index=view.block)
