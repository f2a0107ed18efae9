"""From configurations to the videos they ask for: one `VideoJob` per prompt script and seed, with its key and place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

from irope.config import Choice, Settings, policy_from, scripts_from, timeline_of
from irope.errors import UserError
from irope.finished import finished
from irope.identity import canonical_json, key_of_parts
from irope.model_card import ModelCard, card_from
from irope.policy import CachePolicy, PolicyError
from irope.prompt_files import wrong_set
from irope.sampler import Sampler
from irope.script import PromptScript, Timeline

RECORD = 1
"""Version of what a key stands for; raised when the same configuration would give other frames."""

T = TypeVar("T")


class ImpossibleError(PolicyError):
    """A policy cannot make a video of this length, or not with this model; others can."""


@dataclass(frozen=True)
class FileOptions:
    """How frames become files; changes the files, never the frames."""

    scale: int
    lossless: bool
    subtitles: bool


class VideoJob(NamedTuple):
    """One video to make.

    Attributes:
        record: everything the frames depend on, and the file options; ``key`` is its hash.
        folder, name: place of the video, without suffix; see ``stem``.
        config: the whole resolved configuration, shared by all videos of a cell.
    """

    key: str
    record: Mapping[str, Any]
    folder: str
    name: str
    script: PromptScript
    timeline: Timeline
    policy: CachePolicy
    sampler: Sampler
    seed: int
    file: FileOptions
    config: Settings

    @property
    def stem(self) -> Path:
        """Path without suffix; the mp4, the lossless companion and the sidecar JSON share it."""
        return Path(self.folder, self.name)

    @property
    def sidecar(self) -> Path:
        return self.stem.with_name(self.stem.name + ".json")

    @property
    def video(self) -> Path:
        return self.stem.with_name(self.stem.name + ".mp4")

    @property
    def own_config(self) -> Settings:
        """The configuration of this video alone, for its sidecar: of the prompts only its own script, written out."""
        video = self.config["video"]
        prompts = dict.fromkeys(video["prompts"]) | {
            "name": video["prompts"]["name"],
            "scripts": [self.script.canonical()],
        }
        return {**self.config, "prompt": None, "video": {**video, "prompt": None, "prompts": prompts}}

    @property
    def done(self) -> bool:
        """The sidecar, written last, is there with this key, and so are the files it names, whole."""
        return finished(self.stem, self.key)


class _Part(NamedTuple):
    """A part of a record, as it is and as the canonical JSON that goes into the key."""

    value: Any
    text: str

    @classmethod
    def of(cls, value: Any) -> _Part:
        return cls(value, canonical_json(value))


_Timed: TypeAlias = tuple[PromptScript, Timeline, _Part, str]
"""A script, its timeline with the canonical JSON, and the canonical JSON of its noise key."""


class JobMaker:
    """Makes the jobs of many configurations; what those share (by identity of their subtrees) is worked out once.

    A plan of 100,000 videos takes seconds because of it.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def jobs(self, config: Settings, seeds: Sequence[int] | None = None) -> Iterator[VideoJob]:
        """Every video the configuration asks for, with each of ``seeds`` instead of ``video.seed`` if given.

        Raises:
            UserError: of any kind; nothing is generated here.
        """
        video = config["video"]
        card, policy, sampler, file, timed = self._parts(config)
        policy_part = self._once("policy", [policy], lambda: _Part.of({"name": policy.name, **vars(policy)}))
        steps_part = self._once("steps", [sampler], lambda: _Part.of(list(sampler.timesteps)))
        model_part = self._once("weights", [video["model"], card], lambda: _model_part(config, card))
        folder = f"{config['sys']['out']}/{video['method']['name']}"
        version = _Part(RECORD, str(RECORD))
        for seed in seeds if seeds is not None else (Choice(config, "video.seed").integer(0),):
            whole = config if seed == video["seed"] else {**config, "seed": seed, "video": {**video, "seed": seed}}
            for script, timeline, timeline_part, noise_key in timed:
                noise = _Part({"seed": seed, "key": script.noise_key}, f'{{"key":{noise_key},"seed":{seed}}}')
                parts = {
                    "version": version,
                    "model": model_part,
                    "policy": policy_part,
                    "timesteps": steps_part,
                    "timeline": timeline_part,
                    "noise": noise,
                    "file": self._file_part(file, timeline),
                }
                key = key_of_parts({name: part.text for name, part in parts.items()})
                record = {name: part.value for name, part in parts.items()}
                name = f"{script.id}-seed{seed}-{key[:8]}"
                yield VideoJob(key, record, folder, name, script, timeline, policy, sampler, seed, file, whole)

    def timelines(self, config: Settings) -> list[Timeline]:
        """The timelines of the videos of one seed, several times cheaper than `jobs` and with the same checks."""
        return [timeline for _, timeline, _, _ in self._parts(config)[-1]]

    def _parts(self, config: Settings) -> tuple[ModelCard, CachePolicy, Sampler, FileOptions, list[_Timed]]:
        """What the videos of a configuration are made of, checked."""
        video = config["video"]
        card = self._once("card", [video["model"]], lambda: card_from(config))
        policy, sampler = self._once("method", [video["method"], card], lambda: _method(config, card))
        file = self._once("file", [video["model"], video["file"]], lambda: _files(config))
        timed = self._once(
            "prompts",
            [video["prompts"], card],
            lambda: _timed(config, card),
            *(str(video[name]) for name in ("prompt", "duration", "latents", "cut_mark", "rounding")),
        )
        for latents in self._once("lengths", [timed], lambda: {timeline.latents for _, timeline, _, _ in timed}):
            try:
                policy.check(card.clock.block, latents, card.horizon)
            except PolicyError as error:
                raise ImpossibleError(str(error)) from error
        return card, policy, sampler, file, timed

    def _file_part(self, file: FileOptions, timeline: Timeline) -> _Part:
        def make() -> _Part:
            text = [segment.subtitle for segment in timeline.segments] if file.subtitles else None
            return _Part.of(asdict(file) | {"text": text})

        return self._once("file text", [file, timeline], make)

    def _once(self, what: str, of: Sequence[Any], make: Callable[[], T], *more: Any) -> T:
        """``make()``, remembered by the identity of the objects ``of``, which are kept alive with the result."""
        key = (what, *map(id, of), *more)
        if key not in self._known:
            self._known[key] = (of, make())
        found: T = self._known[key][1]
        return found


def jobs_from(config: Settings) -> list[VideoJob]:
    """Every video one configuration asks for. Raises as `JobMaker.jobs`."""
    return list(JobMaker().jobs(config))


def _method(config: Settings, card: ModelCard) -> tuple[CachePolicy, Sampler]:
    steps = Choice(config, "video.method.steps").steps() or card.steps
    return policy_from(config), _sampler(steps, card.shift)


_sampler = cache(Sampler.from_nominal)


def _files(config: Settings) -> FileOptions:
    return FileOptions(
        scale=Choice(config, "video.model.scale").integer(1, 64),
        lossless=Choice(config, "video.model.lossless").flag(),
        subtitles=Choice(config, "video.file.subtitles").flag(),
    )


def _model_part(config: Settings, card: ModelCard) -> _Part:
    dtype = str(config["video"]["model"]["dtype"])
    return _Part.of({"name": card.name, "weights": card.digest, "dtype": dtype})


def _timed(config: Settings, card: ModelCard) -> list[_Timed]:
    """Every script with its timeline, and the canonical JSON of its noise key."""
    found = []
    for script in scripts_from(config):
        timeline = timeline_of(script, config, card.clock, card.horizon)
        for segment in timeline.segments:
            _check_prompt(segment.prompt, config, card)
        found.append((script, timeline, _Part.of(timeline.canonical()), canonical_json(script.noise_key)))
    return found


def _check_prompt(prompt: str, config: Settings, card: ModelCard) -> None:
    """A prompt of a set that is written for another model names the set to take instead."""
    try:
        card.check_prompt(prompt)
    except UserError as error:
        video = config["video"]
        advice = wrong_set(video["prompts"], video["model"]["name"]) if video["prompt"] is None else ""
        raise UserError(f"{error}{advice}") from error
