"""From a configuration to the videos it asks for: one `VideoJob` per prompt script, with its key and its place."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from irope.config import Choice, policy_from, scripts_from, timeline_of
from irope.generator import Generator
from irope.identity import config_key
from irope.policy import CachePolicy
from irope.sampler import Sampler
from irope.script import PromptScript, Timeline

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
        """The sidecar, written last, is there with this key, and so are the files it names."""
        try:
            facts = json.loads(self.sidecar.read_text())
            files = [self.stem.with_name(name) for name in facts["files"].values() if name is not None]
            return bool(facts["key"] == self.key) and all(file.is_file() for file in files)
        except (OSError, ValueError, KeyError, AttributeError):
            return False


def jobs_from(config: DictConfig, generator: Generator) -> list[VideoJob]:
    """Every video the configuration asks for.

    Raises:
        UserError: of any kind, before anything is generated.
    """
    policy = policy_from(config)
    sampler = Sampler.from_nominal(Choice(config, "video.method.steps").steps() or generator.steps, generator.shift)
    seed = Choice(config, "video.seed").integer(0)
    file = FileOptions(
        scale=Choice(config, "video.model.scale").integer(1, 64),
        lossless=Choice(config, "video.model.lossless").flag(),
        subtitles=Choice(config, "video.file.subtitles").flag(),
    )
    folder = Path(str(Choice(config, "sys.out").text())) / str(config.video.method.name)
    whole: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
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
        jobs.append(VideoJob(key, record, stem, script, timeline, policy, sampler, seed, file, whole))
    return jobs
