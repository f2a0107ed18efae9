"""A procedural world of one moving shape on a torus: scenes, a renderer, and a tracker that reads scenes back."""

from irope.world.render import SIZE, Staging, render, sample_staging
from irope.world.scene import PromptError, Scene, parse_prompt, sample_scene
from irope.world.tracker import Agreement, Track, agreement, track

__all__ = [
    "SIZE",
    "Agreement",
    "PromptError",
    "Scene",
    "Staging",
    "Track",
    "agreement",
    "parse_prompt",
    "render",
    "sample_scene",
    "sample_staging",
    "track",
]
