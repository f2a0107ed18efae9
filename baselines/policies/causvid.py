"""CausVid: independent 5 s roll-outs chained by re-encoding their last frames (overlapping-window restart)."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.policies.full import Full
from irope.policy import CachePolicy
from irope.registry import register_policy


@register_policy("causvid")
@dataclass(frozen=True)
class CausVid(Full):
    """Independent 5 s roll-outs with a full cache, each begun from the end of the last.

    ``irope.schedules.restart`` begins a new one every ``window`` latent frames.

    ``overlap`` latent frames start the next roll-out as context: pixel frame 72 encoded again as a single image, then
    the last ``overlap`` - 1 latents; 72 of 81 pixel frames are new per roll-out. A prompt switch waits for the next
    roll-out.
    """

    overlap: int = 3

    schedule = "restart"
    generator = "causvid"
    source = "arXiv 2412.07772; tianweiy/CausVid ca21150"

    def check(self, block: int, latents: int | None, horizon: int) -> None:
        # The video may be longer than the cache: every roll-out starts with an empty one.
        CachePolicy.check(self, block, None, horizon)
