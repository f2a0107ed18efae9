"""What a clip of the embedded world shows, and the small English it is described in.

A prompt reads ``a red circle moving left over a navy striped background``; the background clause may be left out.
"""

from __future__ import annotations

import difflib
import re
import zlib
from dataclasses import dataclass, replace

import numpy as np

from irope.errors import UserError

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.96, 0.12, 0.10),
    "green": (0.12, 0.92, 0.18),
    "blue": (0.15, 0.35, 1.00),
    "yellow": (0.98, 0.92, 0.10),
    "pink": (1.00, 0.25, 0.90),
    "cyan": (0.10, 0.92, 0.96),
    "white": (0.97, 0.97, 0.97),
}
"""Subject colours, RGB in 0..1; every one has a channel above .9, which is how the tracker finds the subject."""

SHAPES = ("circle", "square", "triangle", "cross")

DIRECTIONS: dict[str, tuple[int, int]] = {
    "moving left": (-1, 0),
    "moving right": (1, 0),
    "moving up": (0, -1),
    "moving down": (0, 1),
}
"""Unit velocity (x to the right, y down) of the straight motions."""

ACTIONS = (*DIRECTIONS, "circling", "bouncing", "pulsing", "standing still")

HUES: dict[str, float | None] = {
    "brown": 20.0,
    "olive": 75.0,
    "teal": 170.0,
    "navy": 228.0,
    "plum": 305.0,
    "gray": None,
}
"""Background hue angle in degrees; ``None`` is colourless."""

PATTERNS = ("plain", "striped", "gradient")

FILLERS = ("a", "an", "over", "background")
HELD_OUT_ONE_IN = 8
_GRAMMAR = "a <colour> <shape> <action> [over a <background> <pattern> background]"


class PromptError(UserError, ValueError):
    """The prompt does not describe a scene of the embedded world."""


@dataclass(frozen=True)
class Scene:
    """One subject, what it does and what lies behind it; ``background`` and ``pattern`` are both given or both None."""

    color: str
    shape: str
    action: str
    background: str | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        _known("colour", self.color, COLORS)
        _known("shape", self.shape, SHAPES)
        _known("action", self.action, ACTIONS)
        if (self.background is None) != (self.pattern is None):
            raise PromptError("a scene needs both a background and a pattern, or neither")
        if self.background is not None and self.pattern is not None:
            _known("background", self.background, HUES)
            _known("pattern", self.pattern, PATTERNS)

    @property
    def prompt(self) -> str:
        """The scene in words; ``parse_prompt`` gives the same scene back."""
        subject = f"a {self.color} {self.shape} {self.action}"
        if self.background is None:
            return subject
        article = "an" if self.background[0] in "aeiou" else "a"
        return f"{subject} over {article} {self.background} {self.pattern} background"

    def without_background(self) -> Scene:
        """The same subject with the background left to the model."""
        return replace(self, background=None, pattern=None)

    @property
    def held_out(self) -> bool:
        """True for the fixed share of full prompts (1 in 8, by checksum) that training never sees."""
        return self.background is not None and zlib.crc32(self.prompt.encode()) % HELD_OUT_ONE_IN == 0


def _known(kind: str, word: str, words: object) -> None:
    names = list(words)  # type: ignore[call-overload]
    if word not in names:
        raise PromptError(f'unknown {kind} "{word}"{_hint(word, names)}; the {kind}s are: {", ".join(names)}')


def _hint(word: str, names: list[str]) -> str:
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f', did you mean "{near[0]}"?' if near else ""


def vocabulary() -> tuple[str, ...]:
    """Every word a prompt may use, sorted."""
    actions = [word for action in ACTIONS for word in action.split()]
    return tuple(sorted({*FILLERS, *COLORS, *SHAPES, *actions, *HUES, *PATTERNS}))


def parse_prompt(text: str) -> Scene:
    """Read a prompt back into its scene; a missing pattern means plain.

    Raises PromptError with the nearest known word for a word outside the vocabulary, and with the grammar for known
    words in another order.
    """
    words = re.findall(r"[a-z]+", text.lower())
    known = vocabulary()
    for word in words:
        if word not in known:
            raise PromptError(
                f'unknown word "{word}" in prompt "{text}"{_hint(word, list(known))}. '
                f"The embedded world understands: {_GRAMMAR}"
            )
    head, _, tail = (" " + " ".join(word for word in words if word not in ("a", "an")) + " ").partition(" over ")
    subject, ground = head.split(), tail.split()
    try:
        color, shape, action = subject[0], subject[1], " ".join(subject[2:])
        if not ground:
            return Scene(color, shape, action)
        if ground[-1] == "background":
            ground = ground[:-1]
        background, pattern = ground if len(ground) == 2 else (ground[0], "plain")
        if len(ground) > 2:
            raise PromptError(f'too many words after "over": {" ".join(ground)}')
        return Scene(color, shape, action, background, pattern)
    except IndexError:
        raise PromptError(f'cannot read prompt "{text}"; expected: {_GRAMMAR}') from None
    except PromptError as error:
        raise PromptError(f'cannot read prompt "{text}": {error}. Expected: {_GRAMMAR}') from None


def sample_scene(rng: np.random.Generator, *, held_out: bool = False, action: str | None = None) -> Scene:
    """A scene drawn uniformly from the held-out share or from the rest, optionally with its action given."""
    while True:
        scene = Scene(
            color=_pick(rng, tuple(COLORS)),
            shape=_pick(rng, SHAPES),
            action=action or _pick(rng, ACTIONS),
            background=_pick(rng, tuple(HUES)),
            pattern=_pick(rng, PATTERNS),
        )
        if scene.held_out == held_out:
            return scene


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]
