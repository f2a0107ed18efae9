"""Experiments that measure the engine instead of scoring videos: the kinds ``attention_maps`` and ``latency``.

Each takes the whole configuration (`experiment`, `tier`, and `video.model`, `sys` as for a video), a folder and a
function for progress messages; it returns its files, and makes only those that are missing under their key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from irope.attention_map import AttentionRecorder, Maps, check_in, load_maps, save_maps, shares
from irope.bench import one_thread
from irope.config import Choice, Settings, load, policy_from
from irope.errors import UserError
from irope.generator import Generator, load_generator
from irope.identity import config_key
from irope.latency import Sweep, bench_switch
from irope.latency_report import as_markdown, load_report
from irope.noise import KeyedNoise
from irope.policy import CacheEvent, CachePolicy
from irope.provenance import device_record, write_atomic, write_json_atomic
from irope.rollout import Rollout
from irope.sampler import Sampler
from irope.script import PromptScript, Timeline, load_prompts
from irope.settings import hint

RECORD = 1
"""Version of what a key stands for; raised when the same settings would be measured otherwise."""

Report = Callable[[str], None]
EVENTS = {CacheEvent.PROMPT_SWITCH: "switch", CacheEvent.SCENE_CUT: "cut"}


def tier_of(config: Settings) -> tuple[str, dict[str, Any]]:
    """Name and settings of the tier that ``tier=`` chose.

    Raises:
        UserError: the experiment has no such tier.
    """
    tiers, tier = config["experiment"]["tiers"], str(config["tier"])
    if tier not in tiers:
        raise UserError(f"tier={tier}: {config['experiment']['name']} has no such tier{hint(tier, tiers)}")
    return tier, dict(tiers[tier])


def model_record(config: Settings, generator: Generator) -> dict[str, str]:
    """What of the model decides a measurement."""
    return {"name": generator.name, "weights": generator.digest, "dtype": str(config["video"]["model"]["dtype"])}


# --- attention maps ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """One method of a figure of attention maps; ``key`` is the hash of everything its map depends on."""

    label: str
    policy: CachePolicy
    sampler: Sampler
    key: str


def attention_maps(config: Settings, folder: Path, report: Report) -> list[Path]:
    """``attention_maps-KEY.npz`` with a map for every panel of the tier; `irope.attention_map` says what a map is.

    ``maps`` is float32 [n, T, T], ``memory`` float32 [n, T], ``info`` a JSON string with the panels (label, events,
    block, sink, segments, shares), layer, step, model and prompt. Every panel is kept in a file of its own as soon as
    it is there, so the same command continues.

    Raises:
        AttentionMapError: the model has no such layer or step.
        UserError: a tier, method, policy or prompt is not valid; all of that before anything is generated.
    """
    tier, settings = tier_of(config)
    generator = load_generator(config)
    script = load_prompts(str(settings["script"]))[0]
    timeline = script.timeline(clock=generator.clock)
    for segment in timeline.segments:
        generator.check_prompt(segment.prompt)
    panels = _panels(config, settings, generator, script, timeline)
    whole = folder / f"attention_maps-{config_key([[panel.label, panel.key] for panel in panels])[:8]}.npz"
    if whole.is_file():
        report(f"{whole.name} is there")
        return [whole]
    parts = []
    for number, panel in enumerate(panels, start=1):
        parts.append(folder / "panels" / f"{panel.label}-{panel.key[:8]}.npz")
        there = parts[-1].is_file()
        report(f"[{number}/{len(panels)}] {panel.label}, {timeline.latents} latent frames" + " (is there)" * there)
        if not there:
            recorder = _record(panel, settings, generator, script, timeline)
            entries = _entries(panel, timeline, recorder.maps)
            save_maps(parts[-1], recorder.maps, recorder.memory, {"panels": entries, "key": panel.key})
    loaded = [load_maps(part) for part in parts]
    info = {
        "panels": [entry for _, _, found in loaded for entry in found["panels"]],
        "layer": settings["layer"],
        "layers": generator.transformer.config.num_layers,
        "step": settings["step"],
        "model": generator.name,
        "prompt": " | ".join(segment.prompt for segment in timeline.segments),
        "command": f"irope run attention_maps tier={tier}",
    }
    maps, memory = (np.concatenate([found[part] for found in loaded]) for part in (0, 1))
    save_maps(whole, maps, memory, info)
    return [whole]


def _panels(
    config: Settings, settings: dict[str, Any], generator: Generator, script: PromptScript, timeline: Timeline
) -> list[Panel]:
    if settings["layer"] != "all":
        check_in("layer", settings["layer"], generator.transformer.config.num_layers, "layers", ", or all")
    if settings["heads"] not in ("mean", "each"):
        raise UserError(f"heads={settings['heads']}{hint(str(settings['heads']), ('mean', 'each'))}")
    panels = []
    for label, overrides in settings["panels"].items():
        policy, steps = _method(overrides)
        sampler = Sampler.from_nominal(steps or generator.steps, generator.shift)
        check_in("step", settings["step"], sampler.steps, "denoising steps")
        policy.check(generator.clock.block, timeline.latents, generator.horizon)
        record = {
            "version": RECORD,
            "model": model_record(config, generator),
            "policy": {"name": policy.name, **asdict(policy)},
            "timesteps": list(sampler.timesteps),
            "timeline": timeline.canonical(),
            "noise": {"seed": settings["seed"], "key": script.noise_key},
            **{name: settings[name] for name in ("layer", "step", "heads")},
        }
        panels.append(Panel(label, policy, sampler, config_key(record)))
    return panels


def _method(overrides: Sequence[str]) -> tuple[CachePolicy, tuple[float, ...] | None]:
    """The policy that the overrides of a panel choose, and its denoising steps."""
    config = load(overrides)
    return policy_from(config), Choice(config, "video.method.steps").steps()


def _record(
    panel: Panel, settings: dict[str, Any], generator: Generator, script: PromptScript, timeline: Timeline
) -> AttentionRecorder:
    """Roll a video out, look at its attention and drop it."""
    geometry = generator.transformer.config
    rows, columns = geometry.grid(*generator.frame_shape[1:])
    recorder = AttentionRecorder(
        frames=timeline.latents,
        layers=geometry.num_layers,
        steps=panel.sampler.steps,
        tokens=rows * columns,
        layer=settings["layer"],
        step=settings["step"],
        heads=geometry.num_heads if settings["heads"] == "each" else 1,
    )
    rollout = Rollout(
        model=generator.transformer,
        policy=panel.policy,
        events=timeline,
        sampler=panel.sampler,
        texts=lambda segment: generator.encode_text(timeline.segments[segment].prompt),
        noise=KeyedNoise(settings["seed"], [script.noise_key], (generator.clock.block, *generator.frame_shape)),
        frame_shape=generator.frame_shape,
        codec=generator.codec if panel.policy.schedule == "restart" else None,  # nobody looks at the pixels
        block=generator.clock.block,
        horizon=generator.horizon,
        watch=recorder,
    )
    with one_thread():  # several on a busy machine wait for each other
        for _ in rollout:
            pass
    return recorder


def _entries(panel: Panel, timeline: Timeline, maps: Maps) -> list[dict[str, Any]]:
    """The panel's description, once for every head recorded."""
    block = timeline.clock.block
    happened = [(number * block, timeline.event(number)) for number in range(timeline.blocks)]
    events = [(frame, EVENTS[event]) for frame, event in happened if event in EVENTS]
    return [
        {
            "label": panel.label + (f" · head {head + 1}" if len(maps) > 1 else ""),
            "events": [list(event) for event in events],
            "block": block,
            "sink": panel.policy.sink,
            "segments": [
                {"prompt": s.prompt, "start": s.start_block * block, "stop": s.stop_block * block, "cut": s.cut}
                for s in timeline.segments
            ],
            "shares": shares(map_TT, panel.policy.sink, block, events),
        }
        for head, map_TT in enumerate(maps)
    ]


# --- latency ----------------------------------------------------------------------------------------------------------


def latency(config: Settings, folder: Path, report: Report) -> list[Path]:
    """``latency-KEY.json`` and ``.md``: what a prompt switch costs, flush against recache (`irope.latency`).

    Raises:
        UserError: a tier, window or prompt is not valid.
    """
    tier, values = tier_of(config)
    sweep = Sweep.from_config(values)
    generator = load_generator(config)
    for prompt in sweep.prompts:
        generator.check_prompt(prompt)
    device = device_record(generator.transformer.device)["name"]
    key = config_key({"version": RECORD, "model": model_record(config, generator), "device": device, **values})
    path = folder / f"latency-{key[:8]}.json"
    if path.is_file() and load_report(path).get("key") == key:
        report(f"{path.name} is there")
    else:
        made = bench_switch(generator, sweep, report)
        made |= {"key": key, "command": f"irope run latency tier={tier}"}
        write_json_atomic(path, made | {"date": datetime.now(UTC).isoformat(timespec="seconds")})
    table = path.with_suffix(".md")
    write_atomic(table, as_markdown(load_report(path)).encode())
    return [path, table]
