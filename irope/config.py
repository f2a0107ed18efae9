"""Hydra configuration: composition with near-name hints, methods made from registered policies, typed reading."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

import conf
from irope.errors import UserError
from irope.policy import CachePolicy, PolicyError
from irope.registry import make_policy, policies, policy_fields
from irope.script import Clock, CutMark, PromptScript, Rounding, Timeline, load_prompts
from irope.settings import hint

CONF = Path(conf.__file__).parent
GROUPS = ("model", "method", "prompts", "protocol", "experiment", "launcher")
ALIASES = {"policy": "method"}
"""``policy=x`` is ``method=x``: every policy is a method of its own name."""

Settings: TypeAlias = "Mapping[str, Any]"
"""A resolved configuration: nested plain dicts and lists."""


class ConfigError(UserError, ValueError):
    """An override or a value of the configuration is not valid."""


def _store_methods() -> None:
    """Every registered policy is a method of its own name, with its settings as defaults."""
    store = ConfigStore.instance()
    for name, policy in policies().items():
        summary = (policy.__doc__ or "").strip().splitlines()
        node = {
            "name": name,
            "description": summary[0] if summary else "",
            "steps": list(policy.steps) if policy.steps else None,
            "generator": policy.generator,
            "policy": {"name": name, **policy_fields(policy)},
        }
        store.store(group="method", name=name, node=node, package="video.method")


_own: dict[str, Any] = {}  # experiments from files of the user's own, by name


def own_experiment(path: Path) -> str:
    """Make an experiment file of the user's own known to ``experiment=``; returns its name.

    Raises:
        ConfigError: the file cannot be read, or its name is one of the shipped experiments'.
    """
    node = read_yaml(path)
    if path.stem in {known.stem for known in (CONF / "experiment").glob("*.yaml")}:
        raise ConfigError(f"{path}: {path.stem} is an experiment that ships; give the file another name")
    _own[path.stem] = {"name": path.stem, "description": "", **node}
    _resolved.cache_clear()
    ConfigStore.instance().store(group="experiment", name=path.stem, node=_own[path.stem], package="experiment")
    return path.stem


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a configuration file, nothing resolved. ConfigError with file and line if it cannot be read."""
    try:
        node = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(node, dict):
        raise ConfigError(f"{path} holds no keys: expected a mapping such as description, sweep and tiers")
    return {str(key): value for key, value in node.items()}


def group_options(group: str) -> list[str]:
    """Names that ``group=`` accepts."""
    names = {path.stem for path in (CONF / group).glob("*.yaml")} | (set(_own) if group == "experiment" else set())
    return sorted(names | set(policies())) if group == "method" else sorted(names)


def _compose(overrides: Sequence[str]) -> DictConfig:
    _store_methods()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"cannot read the overrides {' '.join(overrides)}: {_first_lines(error)}") from error


def _first_lines(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:2])


def _leaves(config: Any, prefix: str = "") -> Iterable[str]:
    for key in config:
        name = f"{prefix}{key}"
        yield name
        if OmegaConf.is_config(child := config._get_node(key)) and OmegaConf.is_dict(child):
            yield from _leaves(child, f"{name}.")


def quote(override: str) -> str:
    """Quote a prompt script given as ``prompt=...``, so that '|', '[', ';' and commas need no second quoting."""
    match = re.fullmatch(r"(?s)((?:video\.)?prompt)=(.*)", override)
    if match is None or match[2] in ("", "null") or match[2][0] in "'\"":
        return override
    escaped = match[2].replace("\\", "\\\\").replace('"', '\\"')
    return f'{match[1]}="{escaped}"'


def load(overrides: Sequence[str]) -> Settings:
    """Compose and resolve the configuration from Hydra overrides.

    Raises:
        ConfigError: an unknown group option or key (with the nearest one), or an override that cannot be parsed.
    """
    overrides = [quote(_group(override)) for override in overrides]
    groups: list[str] = []
    for override in overrides:
        key, equals, value = override.lstrip("+~").partition("=")
        if not equals and not override.startswith("~"):
            raise ConfigError(f"{override!r} is not an override; write key=value, for example method=infinity_rope")
        if key in GROUPS:
            if value not in group_options(key):
                if "," in value or "(" in value:
                    raise ConfigError(f"{key}={value}: several values are a sweep; give -m: irope run -m {key}={value}")
                raise ConfigError(f"{key}={value}: unknown {key}{hint(value, group_options(key))}")
            groups.append(override)
    return _resolved(tuple(overrides), tuple(groups))


@lru_cache(maxsize=64)
def _resolved(overrides: tuple[str, ...], groups: tuple[str, ...]) -> Settings:
    try:
        composed = _compose(overrides)
    except ConfigError:
        known = list(_leaves(_compose(groups)))  # the same again if they are to blame
        for override in overrides:
            key = override.partition("=")[0]
            if key not in GROUPS and key not in known and not key.startswith("+"):
                raise ConfigError(f"unknown key {key!r}{_near_key(key, known)}") from None
        raise
    try:
        return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'a value'}: {_first_lines(error)}") from error


def patched(config: Settings, key: str, value: Any) -> Settings:
    """The configuration with another value at ``key`` and at what refers to it; shares all else with the original.

    Raises:
        ConfigError: there is no such key; with the nearest one.
    """
    for target in (key, *_references().get(key, ())):
        config = _replaced(config, target.split("."), value, config, key)
    return config


def _replaced(node: Settings, path: Sequence[str], value: Any, whole: Settings, key: str) -> Settings:
    name, *rest = path
    if not isinstance(node, dict) or name not in node:
        raise ConfigError(f"unknown key {key!r}{_near_key(key, [known for known, _ in _items(whole)])}")
    return {**node, name: _replaced(node[name], rest, value, whole, key) if rest else value}


def _items(config: Settings, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Every key, dotted, with its value."""
    for name, value in config.items():
        yield f"{prefix}{name}", value
        if isinstance(value, Mapping):
            yield from _items(value, f"{prefix}{name}.")


@cache
def _references() -> dict[str, list[str]]:
    """Key -> keys whose value is ``${key}``, in conf/config.yaml."""
    found: dict[str, list[str]] = {}
    for name, value in _items(OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))):  # type: ignore[arg-type]
        if match := re.fullmatch(r"\$\{(\w+)\}", str(value)):
            found.setdefault(match[1], []).append(name)
    return found


def _group(override: str) -> str:
    key, equals, value = override.partition("=")
    return f"{ALIASES[key]}{equals}{value}" if key in ALIASES else override


def _near_key(key: str, known: list[str]) -> str:
    """The same last word elsewhere comes first: ``window`` means ``video.method.policy.window``."""
    same = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    if same:
        return f"; did you mean {' or '.join(same)}?"
    parent = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == parent and parent]
    return hint(key, siblings or [name for name in known if "." not in name])


def policy_from(config: Settings) -> CachePolicy:
    """The cache policy of ``video.method``.

    Raises:
        PolicyError: naming the configuration key at fault.
    """
    values = config["video"]["method"].get("policy")
    if values is None:
        raise PolicyError(f"method={config['video']['method']['name']} is a system of its own: it has no cache policy")
    settings = {key: value for key, value in values.items() if key != "name"}
    try:
        return make_policy(values["name"], settings)
    except PolicyError as error:
        raise PolicyError(f"video.method.policy: {error}") from error


@dataclass(frozen=True)
class Choice:
    """Read ``key`` of a configuration as one type, with the key named in the error."""

    config: Settings
    key: str

    def _fail(self, value: Any, expected: str) -> ConfigError:
        return ConfigError(f"{self.key}={value}: expected {expected}")

    def value(self) -> Any:
        found: Any = self.config
        for name in self.key.split("."):
            found = found[name]
        return found

    def integer(self, least: int, most: int | None = None) -> int:
        value = self.value()
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or value < least
            or (most is not None and value > most)
        ):
            raise self._fail(value, f"a whole number from {least}" + (f" to {most}" if most is not None else " up"))
        return value

    def flag(self) -> bool:
        if not isinstance(value := self.value(), bool):
            raise self._fail(value, "true or false")
        return value

    def one_of(self, *choices: str) -> str:
        if (value := self.value()) not in choices:
            raise ConfigError(f"{self.key}={value} is not valid{hint(str(value), choices)}")
        return str(value)

    def seconds(self) -> float | None:
        value = self.value()
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool)):
            raise self._fail(value, "seconds as a number, or null")
        return None if value is None else float(value)

    def steps(self) -> tuple[float, ...] | None:
        """Nominal denoising steps, falling within (0, 1000], or None for the model's own."""
        value = self.value()
        if value is None:
            return None
        steps = tuple(value) if isinstance(value, list) else ()
        numbers = all(isinstance(step, (int, float)) and 0 < step <= 1000 for step in steps)
        if not steps or not numbers or list(steps) != sorted(set(steps), reverse=True):
            raise self._fail(value, "falling numbers within (0, 1000], for example [1000,750,500,250], or null")
        return steps

    def text(self) -> str | None:
        value = self.value()
        return None if value is None else str(value)


def scripts_from(config: Settings) -> tuple[PromptScript, ...]:
    """The prompt scripts of ``prompt``, or those chosen of ``video.prompts.file`` or of the prompt set.

    Raises:
        ScriptError: a script is broken; names file, line and column.
        UserError: a choice that the set cannot give; names the key.
    """
    cut_mark: CutMark = Choice(config, "video.cut_mark").one_of("start", "published")  # type: ignore[assignment]
    if (text := Choice(config, "video.prompt").text()) is not None:
        return load_prompts(text, cut_mark)
    from irope.prompt_files import read_prompts, select

    if (file := Choice(config, "video.prompts.file").text()) is not None:
        found: Sequence[PromptScript] = read_prompts(
            file, cut_mark, Choice(config, "video.prompts.extended").text()
        ).scripts
    else:
        scripts = Choice(config, "video.prompts.scripts").value()
        if not isinstance(scripts, list) or not scripts:
            raise ConfigError("video.prompts.scripts is empty; give prompt=..., video.prompts.file=... or prompts=demo")
        lines = [json.dumps(line, ensure_ascii=False) if isinstance(line, dict) else str(line) for line in scripts]
        found = load_prompts("\n".join(lines), cut_mark)
    chosen = select(
        found,
        first=_optional(config, "video.prompts.limit"),
        dimension=Choice(config, "video.prompts.dimension").text(),
        sample=_optional(config, "video.prompts.sample"),
    )
    return _only(chosen, Choice(config, "video.prompts.only").value())


def prompt_notes(config: Settings) -> tuple[str, ...]:
    """What was merged when ``video.prompts.file`` was read, in words."""
    from irope.prompt_files import read_prompts

    file = Choice(config, "video.prompts.file").text()
    if file is None or Choice(config, "video.prompt").text() is not None:
        return ()
    cut_mark: CutMark = Choice(config, "video.cut_mark").one_of("start", "published")  # type: ignore[assignment]
    return read_prompts(file, cut_mark, Choice(config, "video.prompts.extended").text()).notes


def _optional(config: Settings, key: str) -> int | None:
    return None if Choice(config, key).value() is None else Choice(config, key).integer(1)


def _only(scripts: Sequence[PromptScript], ids: Any) -> tuple[PromptScript, ...]:
    if ids is None:
        return tuple(scripts)
    wanted = [str(name) for name in ids] if isinstance(ids, list) else [str(ids)]
    known = {script.id: script for script in scripts}
    for name in wanted:
        if name not in known:
            raise ConfigError(f"video.prompts.only: no prompt {name!r} in this set{hint(name, known)}")
    return tuple(known[name] for name in wanted)


def timeline_of(script: PromptScript, config: Settings, clock: Clock, horizon: int) -> Timeline:
    """Blocks of one script; without any duration a video has the model's native length, ``horizon`` latent frames."""
    seconds, latents = Choice(config, "video.duration").seconds(), Choice(config, "video.latents").value()
    if latents is not None:
        latents = Choice(config, "video.latents").integer(1)
    elif seconds is None and all(segment.seconds is None for segment in script.segments):
        latents = horizon
    rounding: Rounding = Choice(config, "video.rounding").one_of("nearest", "published")  # type: ignore[assignment]
    return script.timeline(seconds, latents, clock, rounding)
