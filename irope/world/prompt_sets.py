"""The prompt sets of the embedded world that ship in conf/prompts, made by rules instead of by hand.

``python -m irope.world.prompt_sets`` writes the files again; a test holds them to what is made here. Script n of a set
depends on n alone, so the first scripts of a set are the same however many follow. Fields are dealt like cards: a field
with k values takes each of them once in every k scripts, so any first n are balanced to one card; adding ``n // k``
shifts the deal from round to round, so that no two fields run in step.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from irope.world.scene import ACTIONS, COLORS, HUES, PATTERNS, SHAPES, Scene

T = TypeVar("T")
FOLDER = Path(__file__).parents[2] / "conf" / "prompts"
COLOR, HUE = tuple(COLORS), tuple(HUES)
MOTIONS = tuple(action for action in ACTIONS if action != "pulsing")  # seven: see `world_actions`
ACTION_SECONDS = 10.0  # as in the paper: a cut, or another action, every 10 s


@dataclass(frozen=True)
class Shot:
    """One segment: a scene of the world; ``seconds`` None leaves the length to the configuration."""

    scene: Scene
    seconds: float | None = None
    cut: bool = False
    subtitle: str | None = None


@dataclass(frozen=True)
class PromptSet:
    """A file of conf/prompts: ``scripts`` maps ids to their shots."""

    name: str
    description: str
    scripts: dict[str, list[Shot]]

    def to_yaml(self) -> str:
        """The whole file; strings are written as JSON, which is YAML as well."""
        lines = [
            "# @package video.prompts",
            "# Made by irope/world/prompt_sets.py: python -m irope.world.prompt_sets",
            f"name: {self.name}",
            f"description: {json.dumps(self.description)}",
            "model: tiny",
            "file: null",
            "scripts:",
        ]
        for name, shots in self.scripts.items():
            if len(shots) == 1:
                lines.append(f"  - {{id: {name}, {_fields(shots[0])}}}")
            else:
                lines += [f"  - id: {name}", "    segments:", *(f"      - {{{_fields(shot)}}}" for shot in shots)]
        return "\n".join(lines) + "\n"


def _fields(shot: Shot) -> str:
    parts = [f"prompt: {shot.scene.prompt}"]
    parts += [f"seconds: {shot.seconds:g}"] if shot.seconds is not None else []
    parts += ["cut: true"] if shot.cut else []
    parts += [f"subtitle: {json.dumps(shot.subtitle)}"] if shot.subtitle is not None else []
    return ", ".join(parts)


def _deal(values: Sequence[T], n: int) -> T:
    """Card n of a deck that is dealt again and again, shifted by one each time."""
    return values[(n + n // len(values)) % len(values)]


def _subject(n: int) -> tuple[str, str]:
    """Colour and shape n; 7 and 4 have no common divisor, so the first 28 are all different."""
    return COLOR[n % len(COLOR)], SHAPES[n % len(SHAPES)]


def _word(action: str) -> str:
    return action.removeprefix("moving ").removeprefix("standing ")


def world_128() -> PromptSet:
    """Plain prompts, balanced over colour, shape, motion, background and pattern."""
    scripts = {}
    for n in range(128):
        color, shape = _subject(n)
        action = ACTIONS[(n + n // 16) % len(ACTIONS)]  # shifted every second round, else out of step with no field
        scene = Scene(color, shape, action, _deal(HUE, n), _deal(PATTERNS, n))
        scripts[f"{color}-{shape}-{_word(scene.action)}-{scene.background}-{scene.pattern}"] = [Shot(scene)]
    text = "128 plain prompts for the embedded world; any first n are balanced over colour, shape, motion, background"
    return PromptSet("world_128", text, scripts)


def world_cuts40(segments: int = 4) -> PromptSet:
    """One subject a script; every cut brings a background, a pattern and a motion not seen in the shot before."""
    scripts = {}
    for n in range(20):
        color, shape = _subject(n)
        shots = []
        for s in range(segments):
            hue = HUE[(n + (1, 5)[n // 6 % 2] * s) % len(HUE)]  # forwards or backwards through the hues
            pattern = PATTERNS[(n // 3 + s) % len(PATTERNS)]
            action = ACTIONS[(n // 2 + (1 + n % 3) * s) % len(ACTIONS)]
            shots.append(Shot(Scene(color, shape, action, hue, pattern), ACTION_SECONDS, cut=s > 0))
        scripts[f"{color}-{shape}"] = shots
    text = "20 scripts for the embedded world, a scene cut every 10 s: the same subject, another background and motion"
    return PromptSet("world_cuts40", text, scripts)


def world_actions() -> PromptSet:
    """Every subject once, in one place; every fifth script has six actions, the others four."""
    scripts = {}
    for n in range(len(COLOR) * len(SHAPES)):
        color, shape = _subject(n)
        hue, pattern = _deal(HUE, n), _deal(PATTERNS, n)
        step = 1 + n % (len(MOTIONS) - 1)  # 7 is prime: no action comes twice in a script
        first = n + 4 * (n // len(MOTIONS))  # 4: each motion, and each change between two, about equally often
        actions = [MOTIONS[(first + step * s) % len(MOTIONS)] for s in range(6 if n % 5 == 4 else 4)]
        shots = [Shot(Scene(color, shape, action, hue, pattern), ACTION_SECONDS) for action in actions]
        scripts[f"{color}-{shape}-{_word(actions[0])}-to-{_word(actions[1])}"] = shots
    text = "28 action scripts for the embedded world: one subject and place, every 10 s another motion without a cut"
    return PromptSet("world_actions", text, scripts)


@dataclass(frozen=True)
class Story:
    """A trailer; a shot is ``#1 0 moving left | subtitle``: a cut to ``cast[1]`` in ``places[0]``."""

    name: str
    cast: tuple[str, ...]
    places: tuple[str, ...]
    shots: tuple[str, ...]


# Every story has at least two subjects, one of whom comes back after a cut to another.
STORIES = (
    Story(
        "the-chase",
        ("red circle", "blue triangle"),
        ("navy plain", "olive striped", "brown gradient"),
        (
            "0 0 moving left | Red runs",
            "0 0 moving up | No way out",
            "#1 1 moving left | Blue follows",
            "1 1 bouncing | Blue loses the track",
            "#0 2 circling | Red is lost",
            "#1 2 moving right | Blue arrives",
            "#0 0 standing still | Home again",
        ),
    ),
    Story(
        "two-sisters",
        ("pink square", "cyan square"),
        ("teal plain", "plum striped", "gray gradient"),
        (
            "0 0 circling | The elder dances",
            "#1 1 circling | The younger dances",
            "1 1 moving down | She falls",
            "#0 1 moving down | The elder goes after her",
            "0 1 moving right | A search",
            "#1 2 standing still | Waiting",
            "#0 2 standing still | Together",
        ),
    ),
    Story(
        "night-watch",
        ("white triangle", "yellow circle"),
        ("navy gradient", "gray plain"),
        (
            "0 0 standing still | The watch begins",
            "0 0 moving right | A round of the wall",
            "#1 1 bouncing | Something stirs",
            "1 1 moving up | It climbs",
            "#0 0 moving up | The alarm",
            "#1 0 moving down | Driven off",
        ),
    ),
    Story(
        "the-postman",
        ("green cross", "red square", "cyan circle"),
        ("brown striped", "teal gradient", "plum plain", "olive plain"),
        (
            "0 0 moving right | First street",
            "#1 1 standing still | A letter for Red",
            "#0 2 moving right | Second street",
            "0 2 moving up | Uphill",
            "#2 3 bouncing | A letter for Cyan",
            "#0 3 moving left | The way back",
            "#1 1 circling | Red has read it",
            "1 1 bouncing | Good news",
        ),
    ),
    Story(
        "tides",
        ("blue circle", "white cross"),
        ("teal striped", "navy plain", "gray striped"),
        (
            "0 0 moving down | Ebb",
            "0 0 standing still | Slack water",
            "0 0 moving up | Flood",
            "#1 1 moving left | The ship",
            "1 1 circling | No wind",
            "#0 2 moving up | The tide comes",
            "#1 2 moving left | Under way",
        ),
    ),
    Story(
        "the-duel",
        ("yellow triangle", "green circle"),
        ("olive gradient", "brown plain"),
        (
            "0 0 moving right | Yellow enters",
            "#1 0 moving left | Green enters",
            "1 0 standing still | They measure each other",
            "#0 1 bouncing | Yellow strikes",
            "#1 1 circling | Green turns aside",
            "1 1 moving down | Green bows",
            "#0 0 standing still | Honour",
            "0 0 moving left | Farewell",
        ),
    ),
    Story(
        "lighthouse",
        ("yellow cross", "pink circle"),
        ("gray gradient", "navy striped", "teal plain"),
        (
            "0 0 circling | The light turns",
            "#1 1 moving right | A boat at night",
            "1 1 moving down | Off course",
            "#0 0 standing still | The light fails",
            "#1 2 bouncing | High water",
            "#0 0 circling | The light is back",
        ),
    ),
    Story(
        "the-heist",
        ("cyan triangle", "red cross", "white square"),
        ("plum gradient", "gray plain", "brown striped"),
        (
            "0 0 moving down | The way in",
            "#1 1 moving left | The lookout",
            "#0 2 standing still | The vault",
            "0 2 moving up | The way out",
            "#2 1 moving right | The guard",
            "2 1 standing still | A noise",
            "#0 0 moving up | Almost",
            "#1 1 bouncing | Made it",
        ),
    ),
    Story(
        "seasons",
        ("green triangle", "pink cross"),
        ("olive plain", "teal gradient", "brown gradient", "gray striped"),
        (
            "0 0 bouncing | Spring",
            "#0 1 moving right | Summer",
            "#1 2 moving down | Autumn: another comes",
            "1 2 circling | Leaves in the wind",
            "#0 3 standing still | Winter",
            "#1 3 standing still | Both asleep",
            "#0 0 bouncing | Spring again",
        ),
    ),
)


def world_trailers() -> PromptSet:
    """Stories of 6 to 8 shots, cuts and switches mixed; 9 s after a cut, 7.5 s after a switch: whole blocks."""
    scripts = {}
    for story in STORIES:
        shots: list[Shot] = []
        for line in story.shots:
            words, _, subtitle = line.partition(" | ")
            who, where, action = words.removeprefix("#").split(maxsplit=2)
            (color, shape), (hue, pattern) = story.cast[int(who)].split(), story.places[int(where)].split()
            scene = Scene(color, shape, action, hue, pattern)
            cut = words.startswith("#")
            shots.append(Shot(scene, 9.0 if cut or not shots else 7.5, cut, subtitle))
        scripts[story.name] = shots
    text = "9 trailers for the embedded world: 6 to 8 shots, cuts and switches, subtitles, subjects that come back"
    return PromptSet("world_trailers", text, scripts)


def prompt_sets() -> list[PromptSet]:
    """All sets that are made by rule."""
    return [world_128(), world_cuts40(), world_actions(), world_trailers()]


def write(sets: Iterable[PromptSet], folder: Path = FOLDER) -> None:
    for made in sets:
        (folder / f"{made.name}.yaml").write_text(made.to_yaml(), encoding="utf-8")


if __name__ == "__main__":
    write(prompt_sets())
