"""Videos that are known to be good, and what is done to them so that a scorer should notice, or should not.

Three sets of clips, all made here from a seed: takes of the embedded world (64x64), camera pans over a photograph
(240x160; the one that comes with Matplotlib), and scripts of the embedded world with a prompt switch and a scene cut.

Shapes: F frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from eval.scorer import Frames, Span, VideoFacts
from irope.world.render import FPS, render, sample_staging
from irope.world.scene import ACTIONS, COLORS, HUES, PATTERNS, SHAPES, Scene, sample_scene

BLOCK = 12
"""Pixel frames of a block of the embedded model."""

LATE_BLOCKS, CUT_FRAMES = 5, 2 * FPS


@dataclass(frozen=True)
class Clip:
    """A clip, uint8 [F, H, W, 3], and others of its length that distortions mix in, by name."""

    set: str
    number: int
    frames: Frames
    others: Mapping[str, Frames]
    spans: tuple[Span, ...] = ()
    fps: float = FPS

    @property
    def facts(self) -> VideoFacts:
        count, high, wide = self.frames.shape[:3]
        return VideoFacts(f"{self.set}-{self.number}", count, self.fps, high, wide, self.spans)


# --- clips ------------------------------------------------------------------------------------------------------------


def world_clip(number: int, frames: int = 160) -> Clip:
    """One scene of the embedded world; actions take turns. ``subject`` is the same take of another subject."""
    rng = np.random.default_rng([number, 1])
    scene = sample_scene(rng, action=ACTIONS[number % len(ACTIONS)])
    staging = sample_staging(rng)
    others = {
        "subject": render(another_subject(scene, rng), staging, frames)[0],
        "scene": render(another_place(another_subject(scene, rng), rng), sample_staging(rng), frames)[0],
    }
    return Clip("world", number, render(scene, staging, frames)[0], others, (Span(0, frames, scene.prompt),))


def script_clip(number: int, frames: int = 24 * BLOCK) -> Clip:
    """Three segments of equal length: a switch of action and colour, then a cut to another background.

    ``no switch`` goes on with the first prompt; ``subject`` and ``no cut`` differ after the cut.
    """
    rng = np.random.default_rng([number, 2])
    first = sample_scene(rng, action=ACTIONS[number % 4])
    second = replace(first, action=_other(rng, first.action, ACTIONS[:4]), color=_other(rng, first.color, COLORS))
    third = another_place(second, rng)
    third = replace(third, action=_other(rng, second.action, ACTIONS[:4]))
    switch, cut = (round(share * frames / BLOCK) * BLOCK for share in (1 / 3, 2 / 3))
    staging = sample_staging(rng)
    lengths = (switch, cut - switch, frames - cut)
    scenes = (first, second, third)
    takes = {scene: render(scene, staging, frames)[0] for scene in scenes}
    video = np.concatenate([takes[scene][:length] for scene, length in zip(scenes, lengths, strict=True)])
    stranger = render(another_subject(third, rng), staging, frames)[0]
    stayed = render(replace(third, background=second.background, pattern=second.pattern), staging, frames)[0]
    others = {
        "no switch": takes[first],
        "subject": np.concatenate([video[:cut], stranger[: lengths[2]]]),
        "no cut": np.concatenate([video[:cut], stayed[: lengths[2]]]),
    }
    edges = (0, switch, cut, frames)
    spans = tuple(Span(edges[i], edges[i + 1], scene.prompt, i == 2) for i, scene in enumerate(scenes))
    return Clip("script", number, video, others, spans)


def photo_clip(number: int, frames: int = 64, size: tuple[int, int] = (160, 240)) -> Clip:
    """A pan across a photograph with a slow zoom. ``subject`` and ``scene`` are the same pan over coloured clouds."""
    rng = np.random.default_rng([number, 3])
    begin = rng.uniform(0, 0.2, 2)
    begin, end = np.where(rng.random(2) < 0.5, [begin, 1 - begin], [1 - begin, begin])
    zoom = rng.uniform(1.5, 2.2, 2)
    photo = _photograph()
    clouds = _clouds(rng, photo.shape[0], photo.shape[1])
    film = [_pan(picture, begin, end, zoom, frames, size) for picture in (photo, clouds)]
    return Clip("photo", number, film[0], {"subject": film[1], "scene": film[1]})


def another_subject(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with another colour and another shape."""
    return replace(scene, color=_other(rng, scene.color, COLORS), shape=_other(rng, scene.shape, SHAPES))


def another_place(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene before another hue and another pattern."""
    assert scene.background is not None
    assert scene.pattern is not None
    return replace(scene, background=_other(rng, scene.background, HUES), pattern=_other(rng, scene.pattern, PATTERNS))


def _other(rng: np.random.Generator, word: str, words: Mapping[str, object] | tuple[str, ...]) -> str:
    rest = [name for name in words if name != word]
    return rest[int(rng.integers(len(rest)))]


def _photograph() -> Frames:
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with Image.open(str(get_sample_data("grace_hopper.jpg", asfileobj=False))) as picture:
        return np.asarray(picture.convert("RGB"))


def _clouds(rng: np.random.Generator, high: int, wide: int) -> Frames:
    """Coloured noise whose amplitude falls with frequency, as that of natural pictures does; uint8 [high, wide, 3]."""
    frequency = np.hypot(np.fft.fftfreq(high)[:, None], np.fft.rfftfreq(wide)[None, :])
    fall = 1 / np.maximum(frequency, 1 / max(high, wide)) ** 1.3
    waves = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(high, wide))) * fall, (high, wide)) for _ in range(3)]
    picture = np.stack(waves, axis=2)
    picture = (picture - picture.mean((0, 1))) / picture.std((0, 1))
    return np.clip(128 + 45 * picture, 0, 255).astype(np.uint8)


def _pan(
    picture: Frames, begin: np.ndarray, end: np.ndarray, zoom: np.ndarray, frames: int, size: tuple[int, int]
) -> Frames:
    """Windows of the picture, from one corner position (shares of the room there is) and zoom to another."""
    import cv2

    high, wide = size
    film = np.empty((frames, high, wide, 3), np.uint8)
    for frame, at in zip(film, np.linspace(0, 1, frames), strict=True):
        scale = (zoom[0] + at * (zoom[1] - zoom[0])) * wide / picture.shape[1]
        room = np.array([picture.shape[1] - wide / scale, picture.shape[0] - high / scale])
        x, y = (begin + at * (end - begin)) * room
        window = np.array([[scale, 0, -scale * x], [0, scale, -scale * y]])
        frame[:] = cv2.warpAffine(picture, window, (wide, high), flags=cv2.INTER_LINEAR)
    return film


# --- distortions ------------------------------------------------------------------------------------------------------


def _shown(values: np.ndarray) -> Frames:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def noise(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """White noise, standard deviation up to 30 grey levels, new in every frame."""
    return _shown(clip.frames + rng.normal(0, 30 * strength, clip.frames.shape))


def blur(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """Gaussian, standard deviation up to a fortieth of the height."""
    import cv2

    width = strength * clip.frames.shape[1] / 40
    return np.stack([cv2.GaussianBlur(frame, (0, 0), width) for frame in clip.frames])


def saturation(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """Colours up to three times as far from grey (Rec. 601 luma)."""
    frames = clip.frames.astype(np.float32)
    luma = frames @ np.array([0.299, 0.587, 0.114], np.float32)
    return _shown(luma[..., None] + (1 + 2 * strength) * (frames - luma[..., None]))


def freeze(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """The last part of the clip, up to all of it, stands still."""
    last = round((1 - strength) * (len(clip.frames) - 1))
    return clip.frames[np.minimum(np.arange(len(clip.frames)), last)]


def loop(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """The clip starts over and over: only its first part, down to a third, is ever shown."""
    period = round(len(clip.frames) * (1 - 2 / 3 * strength))
    return clip.frames[np.arange(len(clip.frames)) % period]


def cut(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """An unasked cut to another scene, which takes up to the second half."""
    at = round(len(clip.frames) * (1 - strength / 2))
    return np.concatenate([clip.frames[:at], clip.others["scene"][at:]])


def identity_drift(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """The subject slowly dissolves into another one; at full strength it has become it at the end."""
    share = strength * np.linspace(0, 1, len(clip.frames))[:, None, None, None]
    return _shown((1 - share) * clip.frames + share * clip.others["subject"])


def reversal(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """Time runs backwards from a later moment to the start, then forwards; at full strength backwards throughout."""
    begin = round(strength * (len(clip.frames) - 1))
    return clip.frames[np.abs(begin - np.arange(len(clip.frames)))]


def stutter(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """Frames are shown again in place of the next one, each with a chance of up to one half."""
    held = rng.random(len(clip.frames)) < strength / 2
    held[0] = False
    return clip.frames[np.maximum.accumulate(np.where(held, 0, np.arange(len(clip.frames))))]


def late_switch(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """The new prompt shows up to `LATE_BLOCKS` blocks late."""
    return _replaced(clip, "no switch", clip.spans[1].start, round(strength * LATE_BLOCKS) * BLOCK)


def identity_lost(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """For up to two seconds after the scene cut another subject is seen."""
    return _replaced(clip, "subject", clip.spans[2].start, round(strength * CUT_FRAMES))


def background_kept(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """For up to two seconds after the scene cut the old background is seen."""
    return _replaced(clip, "no cut", clip.spans[2].start, round(strength * CUT_FRAMES))


def _replaced(clip: Clip, other: str, start: int, count: int) -> Frames:
    frames = clip.frames.copy()
    frames[start : start + count] = clip.others[other][start : start + count]
    return frames


Distortion = Callable[[Clip, float, np.random.Generator], Frames]


@dataclass(frozen=True)
class ClipSet:
    """Clips of one kind and what is done to them; a strength of 0 leaves a clip as it is, 1 is the strongest."""

    make: Callable[[int], Clip]
    distortions: tuple[Distortion, ...] = field(
        default=(noise, blur, saturation, freeze, loop, cut, identity_drift, reversal, stutter)
    )


CLIP_SETS: dict[str, ClipSet] = {
    "world": ClipSet(world_clip),
    "photo": ClipSet(photo_clip),
    "script": ClipSet(script_clip, (late_switch, identity_lost, background_kept)),
}


def distorted(clip: Clip, distortion: Distortion, strength: float) -> Frames:
    """The frames [F, H, W, 3] of a clip, distorted; the same call gives the same frames."""
    if strength == 0:
        return clip.frames
    return distortion(clip, strength, np.random.default_rng([clip.number, 4]))
