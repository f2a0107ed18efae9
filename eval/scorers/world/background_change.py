"""Does a scene cut change the background when the prompts do?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eval.registry import register_scorer
from eval.scorer import Measurement, Take
from eval.world import WorldScorer
from eval.world_cuts import at_cuts
from irope.world.scene import Scene
from irope.world.tracker import Track


@register_scorer("background_change")
@dataclass(frozen=True)
class BackgroundChange(WorldScorer):
    """Share of the frames after a cut whose background is another than before, where the prompts ask for another.

    Hue and pattern count alike where the prompts change both; ``background`` and ``pattern`` alone are extras, and
    ``as_asked`` is the share that shows what the new prompt names. Raises Skip without such a cut.

    Attributes:
        seconds: compared on either side of the cut.
    """

    seconds: float = 2.0

    title: ClassVar[str] = "Background changed at cuts"
    source: ClassVar[str] = "irope.world.tracker"

    def measure(self, tracked: Track, take: Take, scenes: tuple[Scene, ...]) -> Measurement:
        frames = round(self.seconds * take.video.fps)
        return at_cuts(tracked, take, scenes, frames, ("background", "pattern"), changed=True)
