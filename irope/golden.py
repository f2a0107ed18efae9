"""Hold the generator and the policies to recorded roll-outs of the published implementations.

A folder of recordings holds ``weights.safetensors`` (a state dict under the published key names) and one file per
system, each with ``noise``, ``renoise``, ``context``, ``steps`` and one ``x0.<run>`` per recorded run. The name of a
run says which policy made it; everything else is read from the tensors and the file's metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from irope.errors import UserError
from irope.models.checkpoint import load_strict
from irope.policy import CacheEvent, CachePolicy
from irope.registry import make_policy
from irope.rollout import Rollout
from irope.sampler import TABLE, Sampler
from irope.schedules import EventTable
from irope.transformer import CausalWanTransformer, WanConfig

TOLERANCE = 5e-5
"""Largest absolute difference of a float32 run that counts as equal. Never loosened."""

WEIGHTS = "weights.safetensors"


class GoldenError(UserError, ValueError):
    """A recording cannot be read or its name is not understood."""


@dataclass(frozen=True)
class Result:
    """One line of ``irope verify golden``: the largest absolute difference, or why there is none."""

    name: str
    difference: float | None
    problem: str = ""

    @property
    def ok(self) -> bool:
        return self.difference is not None and self.difference <= TOLERANCE


def _window(name: str) -> dict[str, int]:
    """``w12_s3`` in a run's name -> window and sink."""
    match = re.search(r"_w(\d+)(?:_s(\d+))?", name)
    if match is None:
        raise GoldenError(f"run {name!r} names no window (expected ..._w<window>_s<sink>...)")
    return {"window": int(match[1]), "sink": int(match[2] or 0)}


def _switches(name: str, word: str) -> dict[int, CacheEvent]:
    """``switch6_8`` or ``flush4`` in a run's name -> prompt switches at those blocks."""
    match = re.search(rf"_{word}(\d+(?:_\d+)*)", name)
    return {int(block): CacheEvent.PROMPT_SWITCH for block in match[1].split("_")} if match else {}


Recipe = tuple[str, dict[str, object], dict[int, CacheEvent]]


def _self_forcing(name: str) -> Recipe:
    if match := re.fullmatch(r"full_(\d+)", name):
        return "full", {"window": int(match[1])}, {}
    return "rolling", {**_window(name)}, _switches(name, "keep")


def _infinity_rope(name: str) -> Recipe:
    events = _switches(name, "flush") | _switches(name, "keep")
    settings: dict[str, object] = {**_window(name), "on_switch": "keep" if "_keep" in name else "flush"}
    if match := re.search(r"_cut(\d+)_to(\d+)", name):
        events[int(match[1])] = CacheEvent.SCENE_CUT
        settings["cut_delta"] = int(match[2])
    return "infinity_rope", settings, events


def _longlive(name: str) -> Recipe:
    index = "relative" if "relativ" in name else "absolute"
    if "_keep" in name:  # the cache stays at a switch, as under Block-Relativistic RoPE without its flush
        return "infinity_rope", {**_window(name), "on_switch": "keep"}, _switches(name, "keep")
    sink = "renewed" if "_resink" in name else "kept"
    return "kv_recache", {**_window(name), "index": index, "sink_at_switch": sink}, _switches(name, "switch")


def _rolling_forcing(name: str) -> Recipe:
    return "rolling_forcing", {}, {}


def _memrope(name: str) -> Recipe:
    if name.startswith("memrope_eviction"):  # its code without memories: a sink and a window at slot numbers
        return "infinity_rope", {**_window(name)}, {}
    rates = re.search(r"_long([\d.]+)_short([\d.]+)", name)
    if rates is None:
        raise GoldenError(f"run {name!r} names no rates (expected ..._long<rate>_short<rate>)")
    return "memrope", {**_window(name), "long_rate": float(rates[1]), "short_rate": float(rates[2])}, {}


def _rolling_sink(name: str) -> Recipe:
    return "rolling_sink", {}, {}


RECIPES: dict[str, Callable[[str], Recipe]] = {
    "self_forcing": _self_forcing,
    "infinity_rope": _infinity_rope,
    "longlive": _longlive,
    "rolling_forcing": _rolling_forcing,
    "memrope": _memrope,
    "rolling_sink": _rolling_sink,
}


def recipe_of(system: str, run: str) -> tuple[CachePolicy, dict[int, CacheEvent]]:
    """Policy and events behind a recorded run.

    Raises:
        GoldenError: the system is unknown, or the run's name is not understood.
        PolicyError: the policy refuses the settings.
    """
    if system not in RECIPES:
        raise GoldenError(f"unknown recording {system!r}; known: {', '.join(RECIPES)}")
    name, settings, events = RECIPES[system](run)
    return make_policy(name, settings), events


def replay(policy: CachePolicy, events: dict[int, CacheEvent], model: CausalWanTransformer, data: dict[str, Tensor],
           run: str, execution: str = "fast") -> Tensor:  # fmt: skip
    """Clean latents [1, frames, C, H, W] of one recorded run, from its own noise, renoise and prompts.

    Raises:
        GoldenError: the file holds less noise or fewer prompts than the run needs.
    """
    size = data["renoise"].shape[3]
    blocks, rest = divmod(data[f"x0.{run}"].shape[1], size)
    available = min(data["noise"].shape[1] // size, len(data["renoise"]))
    if rest or blocks > available or len(events) >= len(data["context"]):
        raise GoldenError(
            f"run {run!r} has {blocks * size + rest} latent frames in blocks of {size} and {len(events) + 1} prompts, "
            f"the file holds noise for {available} blocks and {len(data['context'])} prompts"
        )

    steps = data["steps"].tolist()

    def noise(block: int, step: int) -> Tensor:
        frames = slice(block * size, (block + 1) * size)
        return data["noise"][:, frames] if step == 0 else data["renoise"][block, step - 1]

    rollout = Rollout(
        model=model,
        policy=policy,
        events=EventTable(blocks, events),
        # Recorded steps are entries of the shifted table, where sigma is t / 1000 whatever the shift.
        sampler=Sampler(tuple(steps), tuple(t / TABLE for t in steps)),
        texts=lambda segment: data["context"][segment : segment + 1],
        noise=noise,
        frame_shape=(data["noise"].shape[2], data["noise"].shape[3], data["noise"].shape[4]),
        block=size,
        horizon=max(21, policy.window),
        execution=execution,
    )
    return torch.cat([part.latents for part in rollout], dim=1)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file; GoldenError if it is none or is cut off."""
    try:
        with safe_open(str(path), "pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise GoldenError(f"{path} cannot be read ({error}); is the file complete?") from error


def read_recording(path: Path) -> tuple[WanConfig, dict[str, Tensor]]:
    """Geometry (from the metadata) and tensors of a recording.

    Raises:
        GoldenError: not a safetensors file, no geometry, a tensor is missing, or its shape contradicts the others.
    """
    metadata, data = _read(path)
    missing = [key for key in ("noise", "renoise", "context", "steps") if key not in data]
    if "config" not in metadata or missing:
        what = f"tensor {missing[0]!r}" if missing else "metadata entry 'config' with the geometry"
        raise GoldenError(f"{path} is no recording: {what} is missing")
    config = WanConfig.from_dict(json.loads(metadata["config"]))
    noise, renoise, context = (tuple(data[key].shape) for key in ("noise", "renoise", "context"))
    frame = (config.in_dim, *noise[3:])
    wanted = {
        "noise": (1, *noise[1:2], *frame),
        "renoise": (*renoise[:1], len(data["steps"]) - 1, 1, *renoise[3:4], *frame),
        "context": (*context[:1], config.text_len, config.text_dim),
    }
    wanted |= {key: (1, *tensor.shape[1:2], *frame) for key, tensor in data.items() if key.startswith("x0.")}
    _check_shapes(str(path), wanted, data)
    return config, data


def _check_shapes(what: str, wanted: Mapping[str, Sequence[int]], found: Mapping[str, Tensor]) -> None:
    """Raise GoldenError naming the first tensor that is missing or of another shape."""
    for key, shape in wanted.items():
        if key not in found:
            raise GoldenError(f"{what}: tensor {key!r} is missing")
        if tuple(found[key].shape) != tuple(shape):
            raise GoldenError(
                f"{what}: tensor {key!r} has the wrong shape: expected {list(shape)}, found {list(found[key].shape)}"
            )


def load_model(folder: Path, config: WanConfig) -> CausalWanTransformer:
    """The generator of a folder of recordings, in evaluation mode.

    Raises:
        GoldenError: the weights are missing or cut off.
        WeightsError: they do not fit the geometry (which key, expected, found).
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise GoldenError(f"{folder} holds no {WEIGHTS}")
    model = CausalWanTransformer(config)
    load_strict(model, _read(path)[1], str(path))
    return model.eval()


def verify(folder: Path) -> Iterator[Result]:
    """Replay every recorded run found in ``folder`` in float32; one `Result` each, in order of file and run.

    Raises:
        GoldenError: the folder holds no weights or no recordings, or a file is cut off or does not fit the others.
    """
    paths = sorted(path for path in folder.glob("*.safetensors") if path.name != WEIGHTS)
    if not paths:
        raise GoldenError(f"{folder} holds no recordings (*.safetensors)")
    for path in paths:
        config, data = read_recording(path)
        model = load_model(folder, config)
        for run in sorted(key.removeprefix("x0.") for key in data if key.startswith("x0.")):
            name = f"{path.stem}/{run}"
            try:
                policy, events = recipe_of(path.stem, run)
                made = replay(policy, events, model, data, run)
            except ValueError as error:  # an unknown name or an impossible setting fails its line, not the others
                yield Result(name, None, str(error))
            else:
                yield Result(name, (made - data[f"x0.{run}"]).abs().max().item())
