"""Does a scene cut keep the subject that both prompts name?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eval.registry import register_scorer
from eval.scorer import Measurement, Take
from eval.world import WorldScorer
from eval.world_cuts import at_cuts
from irope.world.scene import Scene
from irope.world.tracker import Track


@register_scorer("identity_kept")
@dataclass(frozen=True)
class IdentityKept(WorldScorer):
    """Share of the frames after a cut with the colour and the shape seen before it, where both prompts name the same.

    What was seen, not what was asked for, is to be kept; a frame without subject keeps nothing. The mean over the
    attributes of a cut, then over the cuts; ``color`` and ``shape`` alone are extras. Raises Skip without such a cut.

    Attributes:
        seconds: compared on either side of the cut.
    """

    seconds: float = 2.0

    title: ClassVar[str] = "Identity kept at cuts"
    source: ClassVar[str] = "irope.world.tracker"

    def measure(self, tracked: Track, take: Take, scenes: tuple[Scene, ...]) -> Measurement:
        frames = round(self.seconds * take.video.fps)
        return at_cuts(tracked, take, scenes, frames, ("color", "shape"), changed=False)
