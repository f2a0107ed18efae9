"""The reference mode makes the official frames, refuses what the official code lacks, and continues after a kill."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from irope.bench_rollout import SMALL, random_model, random_rollout
from irope.config import ConfigError, load
from irope.errors import UserError
from irope.generate import generate
from irope.generator import load_generator
from irope.golden import TOLERANCE, load_model, read_recording, recipe_of, replay
from irope.jobs import jobs_from
from irope.policy import CacheEvent, PolicyError
from irope.registry import policies
from irope.rollout import Rollout
from tests.rollout_kit import CUT, SWITCH, Script, latents, make, rollout

DATA = Path(__file__).parents[1] / "golden" / "data"
RUNS = {
    "infinity_rope": [
        "relativistic_w21_s1", "relativistic_w6_s1", "relativistic_w6_s1_flush4",
        "relativistic_w6_s1_flush4_cut6_to45", "relativistic_w6_s1_keep4", "relativistic_w9_s1",
    ],
    "self_forcing": [
        "full_21", "rolling_w12_s3_absolute", "rolling_w6_s0", "rolling_w6_s0_keep4", "rolling_w6_s1_absolute",
    ],
    "longlive": ["relativistic_w12_s3_keep6"],
}  # fmt: skip


def in_reference(made: Rollout) -> Rollout:
    return replace(made, execution="reference")


@pytest.mark.parametrize(("system", "run"), [(system, run) for system, runs in RUNS.items() for run in runs])
def test_recorded_runs_are_reproduced(system: str, run: str) -> None:
    """To the bit on the CPU it was written on: the order of operations is the recorded one."""
    config, data = read_recording(DATA / f"{system}.safetensors")
    policy, events = recipe_of(system, run)
    made = replay(policy, events, load_model(DATA, config), data, run, execution="reference")
    assert (made - data[f"x0.{run}"]).abs().max() <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "settings", "at"),
    [
        ("infinity_rope", {"window": 6}, {3: SWITCH, 5: CUT}),
        ("infinity_rope", {"window": 12}, {6: SWITCH}),
        ("infinity_rope", {"window": 9, "on_switch": "keep"}, {2: SWITCH}),
        ("rolling", {"window": 9, "sink": 2}, {4: SWITCH}),
    ],
)
def test_frames_are_those_of_fast(name: str, settings: dict[str, object], at: dict[int, CacheEvent]) -> None:
    policy, script = make(name, **settings), Script(8, at)
    fast = latents(rollout(policy, script, ("a", "b")))
    assert (latents(in_reference(rollout(policy, script, ("a", "b")))) - fast).abs().max() < 1e-4


def test_bfloat16_follows_fast_within_rounding() -> None:
    model = random_model(SMALL.config, torch.device("cpu"), torch.bfloat16)

    def made(execution: str) -> Tensor:
        return latents(random_rollout(model, SMALL, 6, 6, execution)).float()

    fast, reference = made("fast"), made("reference")
    assert (fast - reference).abs().mean() < 0.03 * fast.abs().mean()


def test_a_killed_run_continues_with_the_same_frames() -> None:
    policy, script = make("infinity_rope", window=6), Script(7, {4: SWITCH})
    whole = latents(in_reference(rollout(policy, script)))
    first = in_reference(rollout(policy, script))
    running = iter(first)
    for _ in range(4):
        next(running)
    tensors, record = first.state()
    second = in_reference(rollout(policy, script))
    second.load_state({key: tensor.clone() for key, tensor in tensors.items()}, record)
    assert torch.equal(latents(second), whole[:, 12:])


@pytest.mark.parametrize("name", sorted(set(policies()) - {"infinity_rope", "rolling", "full"}))
def test_other_policies_are_refused(name: str) -> None:
    with pytest.raises(PolicyError, match=rf"it has no {name}: use sys\.execution=fast"):
        in_reference(rollout(make(name), Script(1)))


@pytest.mark.parametrize("setting", [{"f0": 21}, {"flush_keep": 1}, {"sink_index": "attached"}, {"cut_mode": "offset"}])
def test_other_settings_are_refused(setting: dict[str, object]) -> None:
    (name,) = setting
    with pytest.raises(PolicyError, match=rf"infinity_rope, where {name} is .*use sys\.execution=fast"):
        in_reference(rollout(make("infinity_rope", **setting), Script(1)))


def test_the_published_table_ends() -> None:
    policy = make("infinity_rope", window=6, cut_delta=1022)
    with pytest.raises(PolicyError, match="angles for 1024 indices and fails at index 1024"):
        list(in_reference(rollout(policy, Script(3, {2: CUT}))))


def test_memory_does_not_grow() -> None:
    made = in_reference(rollout(make("infinity_rope", window=6), Script(5)))
    sizes = {(made.arena.page_bytes, made.arena.stage_bytes) for _ in made}
    assert sizes == {(2 * 2 * 6 * 4 * 48 * 4, 0)}


def test_a_checkpoint_of_the_other_mode_is_refused_with_its_name() -> None:
    policy, script = make("infinity_rope", window=6), Script(3)
    first = in_reference(rollout(policy, script))
    next(iter(first))
    with pytest.raises(UserError, match=r"begun with sys\.execution=reference; nearest valid: sys\.execution=ref"):
        rollout(policy, script).load_state(*first.state())


def test_execution_is_in_the_sidecar_and_not_in_the_key(tmp_path: Path) -> None:
    words = ["video.latents=6", "prompt=a red circle moving left over a navy plain background", f"sys.out={tmp_path}"]
    (fast,), config = jobs_from(load(words)), load([*words, "sys.execution=reference"])
    (job,) = jobs_from(config)
    assert job.key == fast.key
    assert generate(job, load_generator(config))["environment"]["execution"] == "reference"
    with pytest.raises(ConfigError, match=r"sys\.execution=refrence is not valid; did you mean 'reference'"):
        load_generator(load([*words, "sys.execution=refrence"]))


@pytest.mark.parametrize("execution", ["fast", "reference"])
def test_the_published_order_of_operations_is_not_compiled(execution: str) -> None:
    made = load_generator(load(["sys.compile=true", f"sys.execution={execution}"]))
    assert made.transformer.compiled == (execution == "fast")
