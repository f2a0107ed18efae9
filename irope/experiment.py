"""An experiment: base overrides and a sweep, in tiers; from its file to cells, and from cells to videos.

A cell is one combination of settings, with a label of its own: ``infinity_rope@cut_delta=6``. Its videos are prompts x
seeds. Durations are windows of one video where a longer video begins with the shorter one, else videos of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, TypeAlias

from irope.config import ConfigError, Settings, load, patched, scripts_from
from irope.errors import UserError
from irope.jobs import JobMaker, VideoJob, system_of
from irope.registry import policy_class
from irope.schedules import NESTED
from irope.script import Timeline
from irope.settings import hint
from irope.sweep import Axis, axis, key_of, split, value_of, without
from irope.systems import ImpossibleError, systems

TIERS = ("smoke", "quick", "paper")
_FIELDS = {
    "name",
    "description",
    "kind",
    "set",
    "sweep",
    "systems",
    "published",
    "prompt_set",
    "seconds",
    "prompts",
    "seeds",
    "tiers",
}
_TIER_FIELDS = {"seconds", "prompts", "seeds", "set", "sweep"}
_UNFIT = re.compile(r"[^A-Za-z0-9._,=@+-]+")
_SEED, _DURATION, _METHOD = ("seed", "video.seed"), ("duration", "video.duration"), "method"


@dataclass(frozen=True)
class Cell:
    """One combination of settings.

    Attributes:
        label: names its folder and its row in tables.
        method: the method it is a variant of.
        axes: what was varied besides method, seed and duration, by short name.
        seconds: durations to score, each a window from the start; empty: videos as long as their scripts.
        overrides: compose ``config``, seed apart.
        beside: one of the experiment's other systems, which has a row where it can run and else a reason.
    """

    label: str
    method: str
    axes: Mapping[str, Any]
    seconds: tuple[float, ...]
    overrides: tuple[str, ...]
    config: Settings = field(repr=False)
    beside: bool = False


@dataclass(frozen=True)
class Experiment:
    """Cells to make and to score.

    Attributes:
        axes: short names of what varies besides method, seed and duration.
        published: tables of conf/paper it answers, each with the axis behind the table's own keys.
        config: the configuration without any cell's settings: ``sys.*`` and ``score.*`` are read from it.
        arguments: of the command line, as they were given.
        left_out: rows without videos, or without those of one length, and why.
    """

    name: str
    description: str
    tier: str
    axes: tuple[str, ...]
    seeds: tuple[int, ...]
    published: Mapping[str, Mapping[str, str]]
    cells: tuple[Cell, ...]
    config: Settings = field(repr=False)
    arguments: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict, compare=False)

    @cached_property
    def _maker(self) -> JobMaker:
        return JobMaker()

    @cached_property
    def _methods(self) -> int:
        return len({cell.method for cell in self.cells})

    def jobs(self, cell: Cell) -> Iterator[VideoJob]:
        """The videos of a cell: every prompt with every seed.

        One method of several that cannot make such videos has none, and ``left_out`` says why: a sweep over all
        policies meets one that holds 21 frames and no more. Of the systems beside them also one that is not installed.

        Raises:
            UserError: for settings that are not valid.
        """
        with self._leaving_out(cell):
            yield from self._maker.jobs(cell.config, self.seeds)

    def timelines(self, cell: Cell) -> list[Timeline]:
        """The timelines of the videos of a cell, one for each prompt; all a plan needs where nothing is made yet."""
        found: list[Timeline] = []
        with self._leaving_out(cell):
            found += self._maker.timelines(cell.config)
        return found

    @contextmanager
    def _leaving_out(self, cell: Cell) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            if not (cell.beside or (isinstance(error, ImpossibleError) and self._methods > 1)):
                raise
            said = self.left_out.setdefault(cell.label, str(error))
            if str(error) not in said:  # of another length: that the reason says
                self.left_out[cell.label] = f"{said}; {error}"

    @property
    def reasons(self) -> list[str]:
        """``left_out`` in words, each reason once with the rows it is true of; complete when all jobs were listed."""
        said: dict[str, list[str]] = {}
        for label, why in self.left_out.items():
            said.setdefault(why, []).append(label)
        return [f"{', '.join(labels)}: {why}" for why, labels in said.items()]

    @property
    def title(self) -> str:
        return f"{self.name}, tier {self.tier}" if self.tier else self.name


def experiment_from(arguments: Sequence[str], multirun: bool = False) -> Experiment:
    """Compose an experiment from overrides, of which one may be ``experiment=NAME``.

    An override of the command line wins over the experiment's own setting and replaces its axis of that key; with
    ``multirun`` it may sweep. Without an experiment the sweep stands for itself.

    Raises:
        UserError: naming the key at fault and the nearest valid value.
    """
    given, more = split([_addable(argument) for argument in arguments], multirun)
    config = load(given)
    spec = _spec(config)
    axes = {a.key: a for a in (axis(key, str(values)) for key, values in spec["sweep"].items())}
    axes = {key: a for key, a in axes.items() if key not in {key_of(o) for o in given}}
    axes |= {a.key: a for a in more}
    seeds = _pop_numbers(axes, _SEED) or _given(given, _SEED) or range(spec["seeds"])
    seconds = _pop_numbers(axes, _DURATION) or _given(given, _DURATION) or spec["seconds"]
    fixed = [*without(spec["set"], map(key_of, given)), *without(given, [*_SEED, *_DURATION])]
    names = _short_names([a for key, a in axes.items() if key != _METHOD])
    beside, left_out = _beside(spec["systems"], config, [*map(key_of, given), *(a.key for a in more)])
    if beside:
        axes[_METHOD] = Axis(_METHOD, (*axes[_METHOD].values, *beside))
    return Experiment(
        name=spec["name"],
        description=spec["description"],
        tier=spec["tier"],
        axes=tuple(names.values()),
        seeds=tuple(int(seed) for seed in seeds),
        published=spec["published"],
        cells=tuple(_cells(fixed, list(axes.values()), names, _seconds(seconds), beside)),
        config=config,
        arguments=tuple(arguments),
        left_out=left_out,
    )


def _beside(systems: Sequence[str], config: Settings, given: Sequence[str]) -> tuple[Sequence[str], dict[str, str]]:
    """The other systems of an experiment that have cells, and why there are none of those that have not.

    ``given`` are the keys of the command line: methods chosen there are all there are.
    """
    if not systems or _METHOD in given:
        return (), {}
    own = next((key for key in given if key.startswith("video.method.")), None)
    if config["video"]["model"]["name"] == "tiny":
        why = "other systems stand beside the 1.3B model, never beside the embedded one: model=wan_1_3b"
    elif own is not None:
        why = f"{own} is a setting of the other methods; method=... runs one of them alone"
    else:
        return systems, {}
    return (), dict.fromkeys(systems, why)


def _spec(config: Settings) -> dict[str, Any]:
    """The experiment's fields, those of the tier filled in; a value given beside the tiers wins over the tier's."""
    found = config.get("experiment")
    if found is None:
        found, tier = {"name": "sweep", "description": "a sweep of the command line", "tiers": {"": {}}}, ""
    else:
        tier = str(config["tier"])
    where = f"experiment {found.get('name')}"
    if found.get("kind") not in (None, "videos"):
        raise ConfigError(f"{where} measures the engine and has no videos to list; irope run {found['name']} makes it")
    for key in found.keys() - _FIELDS:
        raise ConfigError(f"{where} has no field {key!r}{hint(key, _FIELDS)}")
    if tier not in found["tiers"]:
        raise ConfigError(f"tier={tier}: {where} has no such tier{hint(tier, found['tiers'])}")
    tiers = found["tiers"][tier] or {}
    for key in tiers.keys() - _TIER_FIELDS:
        raise ConfigError(f"{where}, tier {tier}: no field {key!r}{hint(key, _TIER_FIELDS)}")
    one = {key: found[key] if found.get(key) is not None else tiers.get(key) for key in ("seconds", "prompts", "seeds")}
    sweep = {**(found.get("sweep") or {}), **(tiers.get("sweep") or {})}
    settings = [*(found.get("set") or []), *(tiers.get("set") or [])]
    sets = found.get("prompt_set") or {}
    if (model := config["video"]["model"]["name"]) in sets:
        settings.insert(0, f"prompts={sets[model]}")
    if one["prompts"] is not None:
        settings.append(f"video.prompts.limit={one['prompts']}")
    systems = _list(found.get("systems"))
    if systems and _METHOD not in sweep:
        raise ConfigError(f"{where}: systems stand beside the methods of a sweep: sweep: {{method: ...}}")
    seeds = one["seeds"] if one["seeds"] is not None else 1
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise ConfigError(
            f"{where}: seeds={seeds}: expected a whole number from 1 up; single ones are chosen by seed=3,4"
        )
    return {
        "name": str(found["name"]),
        "description": str(found["description"]),
        "tier": tier,
        "seeds": seeds,
        "seconds": _list(one["seconds"]),
        "set": settings,
        "sweep": {key: values for key, values in sweep.items() if values is not None},
        "systems": systems,
        "published": {name: dict(keys or {}) for name, keys in (found.get("published") or {}).items()},
    }


def _seconds(values: Sequence[Any]) -> tuple[float, ...]:
    for value in values:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0:
            raise ConfigError(f"seconds={value}: expected a number above 0, for example duration=5,60")
    return tuple(sorted({float(value) for value in values}))


def _addable(override: str) -> str:
    """``experiment.prompts=5`` is allowed though the file has it in its tiers only."""
    return f"++{override}" if key_of(override) in {f"experiment.{key}" for key in _TIER_FIELDS} else override


def _list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _pop_numbers(axes: dict[str, Axis], keys: Sequence[str]) -> list[Any]:
    found = [axes.pop(key) for key in keys if key in axes]
    return [value_of(a.key, text) for a in found for text in a.values]


def _given(overrides: Sequence[str], keys: Sequence[str]) -> list[Any]:
    values = [value_of(key_of(o), o.partition("=")[2]) for o in overrides if key_of(o) in keys]
    return [value for value in values if value is not None]


def _short_names(axes: Sequence[Axis]) -> dict[str, str]:
    """Key -> the shortest name that no other axis has."""
    shorts = [a.short for a in axes]
    return {a.key: a.short if shorts.count(a.short) == 1 else a.key for a in axes}


def _cells(
    fixed: Sequence[str],
    axes: Sequence[Axis],
    names: Mapping[str, str],
    seconds: tuple[float, ...],
    beside: Sequence[str] = (),
) -> Iterator[Cell]:
    groups = [a for a in axes if a.is_group]
    values = [
        (a.key, [(f"{names[a.key]}={text}", f"{a.key}={text}", value_of(a.key, text)) for text in a.values])
        for a in axes
        if not a.is_group
    ]
    # Scripts that are swept may switch prompts at times that depend on the duration.
    nested = not any(a.key in ("prompt", "video.prompt") for a in axes)
    for chosen in product(*(a.values for a in groups)):
        choices = [f"{a.key}={text}" for a, text in zip(groups, chosen, strict=True)]
        base = load([*without(fixed, [a.key for a in axes]), *choices])
        group_axes = {names[a.key]: text for a, text in zip(groups, chosen, strict=True) if a.key != _METHOD}
        own = [] if _imports(base) else [o for o in fixed if _of_method(o)]  # imported videos have a label
        said = [f"{o.partition('=')[0].rpartition('.')[2]}={o.partition('=')[2]}" for o in own]
        said += [f"{name}={text}" for name, text in group_axes.items()]
        method = str(base["video"]["method"]["name"])
        for windows in _windows(base, seconds, nested):
            timed = patched(base, "duration", windows[-1]) if windows else base
            length = [f"duration={windows[-1]:g}"] if windows else []
            for config, settings, overrides, varied in _combinations(timed, values):
                label = _label(method, (*said, *settings))
                named = patched(config, "video.method.name", label)
                cell_axes = group_axes | {names[key]: value for key, value in varied.items()}
                composed = (*fixed, *choices, *overrides, *length)
                yield Cell(label, method, cell_axes, windows, composed, named, method in beside)


_Combination: TypeAlias = tuple[Settings, tuple[str, ...], tuple[str, ...], dict[str, Any]]


def _combinations(
    config: Settings,
    axes: Sequence[tuple[str, Sequence[tuple[str, str, Any]]]],
    done: _Combination | None = None,
) -> Iterator[_Combination]:
    """Every combination of the axes' values: configuration, short settings, overrides, key -> value."""
    _, settings, overrides, varied = done or (config, (), (), {})
    if not axes:
        yield config, settings, overrides, varied
        return
    (key, values), *rest = axes
    for setting, override, value in values:
        changed = patched(config, key, value)
        so_far = (changed, (*settings, setting), (*overrides, override), {**varied, key: value})
        yield from _combinations(changed, rest, so_far)


def _of_method(override: str) -> bool:
    key = key_of(override)
    return key.startswith("video.method.") and key != "video.method.name"


def _imports(config: Settings) -> bool:
    name = system_of(config["video"]["method"])
    return name is not None and name in systems() and systems()[name].imports


def _label(method: str, settings: Sequence[str]) -> str:
    """The name of a method is fit for a folder as it is, what is set on it is made so."""
    return f"{method}@{_UNFIT.sub('_', ','.join(settings))}" if settings else method


def _windows(config: Settings, seconds: tuple[float, ...], nested: bool) -> list[tuple[float, ...]]:
    """The durations of each video to make: all windows of the longest, where it begins with the shorter ones."""
    if len(seconds) < 2:
        return [seconds]
    if system_of(config["video"]["method"]):
        return [seconds] if _imports(config) else [(one,) for one in seconds]
    schedule = policy_class(config["video"]["method"]["policy"]["name"]).schedule
    if nested and schedule in NESTED and all(len(script.segments) == 1 for script in scripts_from(config)):
        return [seconds]
    return [(one,) for one in seconds]
