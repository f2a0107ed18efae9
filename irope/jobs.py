"""From configurations to the videos they ask for: one `VideoJob` per prompt script and seed, with its key and place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

from irope.config import Choice, Settings, policy_from, scripts_from, timeline_of
from irope.errors import UserError
from irope.finished import finished
from irope.identity import canonical_json, config_key, key_of_parts
from irope.model_card import ModelCard, card_from
from irope.policy import CachePolicy, PolicyError
from irope.prompt_files import wrong_set
from irope.sampler import Sampler
from irope.script import Clock, PromptScript, TimedSegment, Timeline
from irope.systems import Found, ImpossibleError, System, make_system, place_from

RECORD = 2
"""Version of what a key stands for; raised when the same configuration would give other frames."""

T = TypeVar("T")


class Method(NamedTuple):
    """How a generator of ours makes a video."""

    policy: CachePolicy
    sampler: Sampler


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
        timeline: of a system, in frames.
        method: policy and sampler, or the system that makes the video its own way.
        config: the whole resolved configuration, shared by all videos of a cell.
        found: the video, if it exists already and is imported.
    """

    key: str
    record: Mapping[str, Any]
    folder: str
    name: str
    script: PromptScript
    timeline: Timeline
    method: Method | System
    seed: int
    file: FileOptions
    config: Settings
    found: Found | None = None

    @property
    def model(self) -> str:
        """Name of the model, or of the system."""
        return str(self.record["model"]["name"])

    @property
    def system(self) -> System | None:
        """The system that makes this video; None for a generator of ours."""
        return self.method if isinstance(self.method, System) else None

    @property
    def own(self) -> Method:
        """Policy and sampler.

        Raises:
            PolicyError: a system makes the video, which has neither.
        """
        if isinstance(self.method, System):
            raise PolicyError(f"{self.method.name} is a system of its own: it has no cache policy")
        return self.method

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
        """The configuration of this video alone, for its sidecar: of the prompts only its own script, written out, and

        no model where a system makes it.
        """
        video = dict(self.config["video"])
        if self.system is not None:
            video["model"] = None
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
        if system_of(video["method"]):
            yield from self._system_jobs(config, seeds)
            return
        card, policy, sampler, file, timed = self._parts(config)
        policy_part = self._once("policy", [policy], lambda: _Part.of({"name": policy.name, **vars(policy)}))
        steps_part = self._once("steps", [sampler], lambda: _Part.of(list(sampler.timesteps)))
        model_part = self._once("weights", [video["model"], card], lambda: _model_part(config, card))
        method = self._once("pair", [policy, sampler], lambda: Method(policy, sampler))
        folder = f"{config['sys']['out']}/{video['method']['name']}"
        version = _Part(RECORD, str(RECORD))
        for seed in seeds if seeds is not None else (Choice(config, "video.seed").integer(0),):
            whole = _seeded(config, seed)
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
                yield VideoJob(key, record, folder, name, script, timeline, method, seed, file, whole)

    def timelines(self, config: Settings) -> list[Timeline]:
        """The timelines of the videos of one seed, several times cheaper than `jobs` and with the same checks."""
        if system_of(config["video"]["method"]):
            jobs = self._system_jobs(config, [config["video"]["seed"]], any_seed=True)
            return list({job.script.id: job.timeline for job in jobs}.values())
        return [timeline for _, timeline, _, _ in self._parts(config)[-1]]

    def _system_jobs(self, config: Settings, seeds: Sequence[int] | None, any_seed: bool = False) -> Iterator[VideoJob]:
        """The videos of a system: one of each prompt and seed, or those it finds, with ``any_seed`` of all seeds."""
        video = config["video"]
        system = self._once("system", [video["method"]], lambda: make_system(video["method"]["system"]))
        place = place_from(config["sys"], system.name)
        scripts = self._once("scripts", [video["prompts"]], lambda: scripts_from(config), str(video["prompt"]))
        if (existing := system.found(scripts)) is not None:
            if seeds is not None:  # an experiment asks for its prompts and seeds only
                asked = {script.id for script in scripts}
                every = len(existing)
                existing = [f for f in existing if f.script.id in asked and (any_seed or f.seed in seeds)]
                if not existing:
                    raise ImpossibleError(
                        f"{system.model_name}: none of its {every} videos is of these prompts and seeds"
                    )
            yield from (_import(config, system, found) for found in existing)
            return
        timed = [_system_timeline(script, config, system) for script in scripts]
        settings = {"name": system.name, "settings": vars(system), "fps": system.rate(), "size": list(system.picture())}
        digest = self._once("digest", [system], lambda: dict(system.digest(place)))
        file = FileOptions(scale=1, lossless=False, subtitles=Choice(config, "video.file.subtitles").flag())
        for seed in seeds if seeds is not None else (Choice(config, "video.seed").integer(0),):
            for script, (seconds, timeline) in zip(scripts, timed, strict=True):
                record = {
                    "version": RECORD,
                    "model": {"name": system.model_name, "weights": digest},
                    "system": settings,
                    "seconds": seconds,
                    "timeline": timeline.canonical(),
                    "seed": seed,
                    "file": self._file_part(file, timeline).value,
                }
                yield _system_job(config, system, script, timeline, seed, file, record)

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


def system_of(method: Mapping[str, Any]) -> str | None:
    """Name of the system of ``video.method``; None for a cache policy."""
    system = method.get("system")
    return None if system is None else str(system["name"])


def in_step(one: VideoJob, other: VideoJob) -> bool:
    """Whether two videos can be made in lock step: alike in everything but prompts, seed and place."""
    if one.system is not None or other.system is not None or one.timeline.blocks != other.timeline.blocks:
        return False
    shapes = ([(s.start_block, s.stop_block, s.cut) for s in job.timeline.segments] for job in (one, other))
    return (
        next(shapes) == next(shapes)
        and all(one.record[part] == other.record[part] for part in ("model", "policy", "timesteps"))
        and one.config["video"]["model"] == other.config["video"]["model"]
    )


def model_of(config: Settings) -> str:
    """Name of the model, or of the system, that makes the videos of a configuration. Raises as `card_from`."""
    method = config["video"]["method"]
    return make_system(method["system"]).model_name if system_of(method) else card_from(config).name


def jobs_from(config: Settings) -> list[VideoJob]:
    """Every video one configuration asks for. Raises as `JobMaker.jobs`."""
    return list(JobMaker().jobs(config))


def _seeded(config: Settings, seed: int) -> Settings:
    video = config["video"]
    return config if seed == video["seed"] else {**config, "seed": seed, "video": {**video, "seed": seed}}


def _system_timeline(script: PromptScript, config: Settings, system: System) -> tuple[float, Timeline]:
    """Seconds of a script, and its frames under a system. ImpossibleError if it cannot make such a video."""
    if config["video"]["latents"] is not None:
        raise UserError(
            f"video.latents={config['video']['latents']}: {system.name} has no latent frames; give duration"
        )
    if system.one_prompt and len(script.segments) > 1:
        raise ImpossibleError(
            f"{system.name} takes one prompt a video, and the script {script.id!r} has {len(script.segments)}"
        )
    timeline = timeline_of(script, config, system.clock(), max(1, system.frames(system.native_seconds)))
    seconds = timeline.blocks / system.rate()
    kept = system.plan(seconds).frames_kept
    last = replace(timeline.segments[-1], stop_block=kept)
    return seconds, replace(timeline, blocks=kept, segments=(*timeline.segments[:-1], last))


def _import(config: Settings, system: System, found: Found) -> VideoJob:
    """A video that exists already."""
    segments = tuple(TimedSegment(shot.start, shot.stop, shot.prompt, shot.cut) for shot in found.shots)
    timeline = Timeline(found.frames, segments, clock=Clock(fps=max(1, round(found.fps)), block=1, stride=1))
    record = {
        "version": RECORD,
        "model": {"name": system.model_name, "weights": None},
        "system": {"name": system.name, "fps": found.fps, "size": list(found.size), "found": dict(found.record)},
        "timeline": timeline.canonical(),
        "seed": found.seed,
    }
    file = FileOptions(scale=1, lossless=False, subtitles=False)
    return _system_job(config, system, found.script, timeline, found.seed, file, record)._replace(found=found)


def _system_job(
    config: Settings,
    system: System,
    script: PromptScript,
    timeline: Timeline,
    seed: int,
    file: FileOptions,
    record: Mapping[str, Any],
) -> VideoJob:
    key = config_key(record)
    folder = f"{config['sys']['out']}/{config['video']['method']['name']}"
    name = f"{script.id}-seed{seed}-{key[:8]}"
    return VideoJob(key, record, folder, name, script, timeline, system, seed, file, _seeded(config, seed))


def _method(config: Settings, card: ModelCard) -> tuple[CachePolicy, Sampler]:
    steps = Choice(config, "video.method.steps").steps() or card.steps
    return policy_from(config), _sampler(steps, card.shift, card.warp)


_sampler = cache(Sampler.from_nominal)


def _files(config: Settings) -> FileOptions:
    return FileOptions(
        scale=Choice(config, "video.model.scale").integer(1, 64),
        lossless=Choice(config, "video.model.lossless").flag(),
        subtitles=Choice(config, "video.file.subtitles").flag(),
    )


def _model_part(config: Settings, card: ModelCard) -> _Part:
    record = {"name": card.name, "weights": card.digest, "dtype": str(config["video"]["model"]["dtype"])}
    if (linear := Choice(config, "video.model.linear").one_of("bfloat16", "fp8")) != "bfloat16":
        record["linear"] = linear  # none: the key it always had
    return _Part.of(record)


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
