"""From a configuration to the videos it asks for: one `VideoJob` per prompt script, with its key and its place."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from irope.config import Choice, ConfigError, policy_from
from irope.generator import Generator
from irope.identity import config_key
from irope.policy import CachePolicy
from irope.sampler import Sampler
from irope.script import CutMark, PromptScript, Rounding, Timeline, load_prompts

RECORD = 1
"""Version of what a key stands for; raised when the same configuration would give other frames."""


@dataclass(frozen=True)
class FileOptions:
    """How frames become files; changes the files, never the frames."""

    scale: int
    lossless: bool
    subtitles: bool


@dataclass(frozen=True)
class VideoJob:
    """One video to make.

    Attributes:
        record: everything the frames depend on, and the file options; ``key`` is its hash.
        stem: path without suffix; the mp4, the lossless companion and the sidecar JSON share it.
        config: the whole resolved configuration, for the sidecar.
    """

    key: str
    record: dict[str, Any]
    stem: Path
    script: PromptScript
    timeline: Timeline
    policy: CachePolicy
    sampler: Sampler
    seed: int
    file: FileOptions
    config: dict[str, Any]

    @property
    def sidecar(self) -> Path:
        return self.stem.with_name(self.stem.name + ".json")

    @property
    def done(self) -> bool:
        """The sidecar, written last, is there with this key."""
        try:
            return bool(json.loads(self.sidecar.read_text())["key"] == self.key)
        except (OSError, ValueError, KeyError):
            return False


def scripts_from(config: DictConfig) -> tuple[PromptScript, ...]:
    """The prompt scripts of ``prompt``, ``video.prompts.file`` or the chosen prompt set.

    Raises:
        ScriptError: a script is broken; names file, line and column.
    """
    cut_mark: CutMark = Choice(config, "video.cut_mark").one_of("start", "published")  # type: ignore[assignment]
    if (text := Choice(config, "video.prompt").text()) is not None:
        return load_prompts(text, cut_mark)
    if (file := Choice(config, "video.prompts.file").text()) is not None:
        return load_prompts(Path(file), cut_mark)
    scripts = config.video.prompts.scripts
    if not isinstance(scripts, ListConfig) or not scripts:
        raise ConfigError("video.prompts.scripts is empty; give prompt=..., video.prompts.file=... or prompts=demo")
    lines = [
        json.dumps(OmegaConf.to_container(line), ensure_ascii=False) if OmegaConf.is_config(line) else str(line)
        for line in scripts
    ]
    return load_prompts("\n".join(lines), cut_mark)


def timeline_of(script: PromptScript, config: DictConfig, generator_clock: Any, horizon: int) -> Timeline:
    """Blocks of one script; without any duration a video has the model's native length, ``horizon`` latent frames."""
    seconds, latents = Choice(config, "video.duration").seconds(), Choice(config, "video.latents").value()
    if latents is not None:
        latents = Choice(config, "video.latents").integer(1)
    elif seconds is None and all(segment.seconds is None for segment in script.segments):
        latents = horizon
    rounding: Rounding = Choice(config, "video.rounding").one_of("nearest", "published")  # type: ignore[assignment]
    return script.timeline(seconds, latents, generator_clock, rounding)


def jobs_from(config: DictConfig, generator: Generator) -> list[VideoJob]:
    """Every video the configuration asks for.

    Raises:
        UserError: of any kind, before anything is generated.
    """
    policy = policy_from(config)
    steps = OmegaConf.to_container(config.video.method)["steps"] or generator.steps  # type: ignore[index, call-overload]
    sampler = Sampler.from_nominal(tuple(steps), generator.shift)
    seed = Choice(config, "video.seed").integer(0)
    file = FileOptions(
        scale=Choice(config, "video.model.scale").integer(1, 64),
        lossless=Choice(config, "video.model.lossless").flag(),
        subtitles=Choice(config, "video.file.subtitles").flag(),
    )
    folder = Path(str(Choice(config, "sys.out").text())) / str(config.video.method.name)
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    jobs = []
    for script in scripts_from(config):
        timeline = timeline_of(script, config, generator.clock, generator.horizon)
        for segment in timeline.segments:
            generator.check_prompt(segment.prompt)
        policy.check(generator.clock.block, timeline.latents, generator.horizon)
        record = {
            "version": RECORD,
            "model": {"name": generator.name, "weights": generator.digest, "dtype": str(config.video.model.dtype)},
            "policy": {"name": policy.name, **asdict(policy)},
            "timesteps": list(sampler.timesteps),
            "timeline": timeline.canonical(),
            "noise": {"seed": seed, "key": script.noise_key},
            "file": asdict(file) | {"text": [s.subtitle for s in timeline.segments] if file.subtitles else None},
        }
        key = config_key(record)
        stem = folder / f"{script.id}-seed{seed}-{key[:8]}"
        jobs.append(
            VideoJob(key, record, stem, script, timeline, policy, sampler, seed, file, {str(k): v for k, v in resolved.items()})
        )
    return jobs
