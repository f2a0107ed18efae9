"""Attention maps against a softmax written out by hand, and what must hold for any policy."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from irope import measurements
from irope.attention_map import AttentionMapError, AttentionRecorder, frame_attention, load_maps, shares
from irope.config import CONF, load
from irope.policy import CachePlan, CachePolicy, Merge, Select
from irope.schedules import Denoise
from tests.rollout_kit import CONFIG, CUT, FAST, FULL, SWITCH, Script, latents, make, rollout

SCRIPT = Script(8, {3: SWITCH, 6: CUT})
TOKENS = 4


def recorder(blocks: int = 8, layer: Any = 1, step: int = 2, steps: int = 2, heads: int = 1) -> AttentionRecorder:
    return AttentionRecorder(3 * blocks, CONFIG.num_layers, steps, TOKENS, layer, step, heads)


def record(policy: CachePolicy, script: Script = SCRIPT, steps: tuple[int, ...] = FAST, **settings: Any) -> Any:
    made = rollout(policy, script, steps=steps)
    made.watch = recorder(script.blocks, steps=made.sampler.steps, **settings)
    frames = latents(made)
    return made.watch, frames


# --- one call ---------------------------------------------------------------------------------------------------------


def by_hand(q_LNK: Tensor, k_MNK: Tensor, tokens: int) -> np.ndarray:
    """Float64, pair by pair of tokens, as supplement G writes it; divided by the tokens of a frame."""
    q, k = q_LNK.double().numpy(), k_MNK.double().numpy()
    found = np.zeros((q.shape[1], len(q) // tokens, len(k) // tokens))
    for head in range(q.shape[1]):
        for i in range(len(q)):
            logits = [float(q[i, head] @ k[j, head]) / math.sqrt(q.shape[2]) for j in range(len(k))]
            total = sum(math.exp(x) for x in logits)
            for j, x in enumerate(logits):
                found[head, i // tokens, j // tokens] += math.exp(x) / total / tokens
    return found


def test_frame_attention_is_the_softmax_summed_over_token_pairs() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k = (2 * torch.randn(frames * 4, 2, 6, generator=draw) for frames in (3, 7))
    made = frame_attention(q, k, 4)
    np.testing.assert_allclose(made, by_hand(q, k, 4), atol=2e-6)
    np.testing.assert_allclose(made.sum(-1), 1, atol=1e-5)
    order = torch.randperm(7, generator=draw)  # keys are a set: frames in another order, columns in that order
    moved = frame_attention(q, k.unflatten(0, (7, 4))[order].flatten(0, 1), 4)
    np.testing.assert_allclose(moved, made[:, :, order], atol=1e-6)


# --- whole roll-outs --------------------------------------------------------------------------------------------------

POLICIES = {
    "infinity_rope": make("infinity_rope", window=9),
    "rolling": make("rolling", window=6),
    "kv_recache": make("kv_recache", window=6, sink=1),
    "rolling_forcing": make("rolling_forcing"),
    "causvid": make("causvid", window=9),
    "full": make("full", window=24),
}


@pytest.mark.parametrize("name", POLICIES)
def test_rows_are_distributions_over_true_frames_and_no_frame_changes(name: str) -> None:
    steps = FULL if POLICIES[name].steps is None else POLICIES[name].steps
    assert steps is not None
    seen, frames = record(POLICIES[name], steps=steps, step=1)
    assert torch.equal(frames, latents(rollout(POLICIES[name], SCRIPT, steps=steps)))
    rows = np.nansum(seen.maps[0], axis=1) + seen.memory[0]
    np.testing.assert_allclose(rows, 1, atol=1e-5)
    assert np.isfinite(np.diagonal(seen.maps[0])).all()


class Spy:
    """Keeps the queries and keys of every call, to compute a map another way."""

    def __init__(self) -> None:
        self.calls: list[tuple[Denoise, CachePlan, dict[int, tuple[Tensor, Tensor]]]] = []

    def __call__(self, op: Denoise, plan: CachePlan) -> Callable[[int, Tensor, Tensor], None]:
        kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.calls.append((op, plan, kept))

        def probe(layer: int, q: Tensor, k: Tensor) -> None:
            kept[layer] = (q[0].clone(), k[0].clone())

        return probe


@pytest.mark.parametrize("name", ["infinity_rope", "kv_recache", "rolling"])
def test_the_map_is_that_of_the_keys_attended(name: str) -> None:
    """The attention of every block by hand, placed by the plan's page numbers."""
    spy = Spy()
    made = rollout(POLICIES[name], SCRIPT)
    made.watch = spy
    latents(made)
    for layer, heads in ((2, 1), ("all", 2)):
        seen, _ = record(POLICIES[name], layer=layer, heads=heads, step=2)
        wanted = np.full((heads, 24, 24), np.nan)
        for op, plan, kept in spy.calls:
            if op.levels != (1,):
                continue
            layers = [1] if layer == 2 else [0, 1]
            share = np.mean([by_hand(*kept[number], TOKENS) for number in layers], axis=0)
            share = share if heads == 2 else share.mean(0, keepdims=True)
            for row, frame in enumerate(op.frames):
                wanted[:, frame, [*plan.read, *op.frames]] = share[:, row]
        np.testing.assert_allclose(seen.maps, wanted, atol=5e-6)


def test_what_a_policy_keeps_is_what_its_map_shows() -> None:
    """Known from the policies' definitions: window 6 rolls over three past frames; a flush leaves sink + two frames."""
    plain = record(make("rolling", window=6))[0].maps[0]
    assert all(np.isnan(plain[row, : row // 3 * 3 - 3]).all() for row in range(6, 24))
    sink = record(make("rolling", window=6, sink=1))[0].maps[0]
    assert np.isfinite(sink[:, 0]).all()
    assert (sink[:, 0] > 0).all()
    flushed = record(make("infinity_rope", window=12))[0].maps[0]
    assert [int(frame) for frame in np.flatnonzero(np.isfinite(flushed[9]))] == [0, 7, 8, 9, 10, 11]
    assert np.isfinite(flushed[8, :9]).all()


def test_rows_are_those_of_the_step_asked_for() -> None:
    """A frame of Rolling Forcing passes every level, beside frames at others; its row comes from the wanted one."""
    first, last = (record(POLICIES["rolling_forcing"], step=step)[0].maps[0] for step in (1, 5))
    assert np.nanmax(np.abs(first - last)) > 1e-3
    assert np.isfinite(last[6, 7:15]).all()  # at the last level the window reaches four blocks ahead
    assert np.isnan(first[6, 9:]).all()  # at the first level a block is the newest


@pytest.mark.parametrize(
    ("plan", "memory"),
    [
        (CachePlan(("long", 0, 2), (0, 1, 2), (3, 4, 5), merge=(Merge("long", ((1, 1.0),)),)), "long"),
        (CachePlan((0, "top", 2), (0, 1, 2), (3, 4, 5), select=(Select(("top",), (1,)),)), "top"),
    ],
)
def test_memory_pages_have_a_column_of_their_own(plan: CachePlan, memory: str) -> None:
    seen = AttentionRecorder(9, 1, 1, tokens=2, layer=1, step=1)
    draw = torch.Generator().manual_seed(1)
    q, k = torch.randn(1, 6, 2, 6, generator=draw), torch.randn(1, 12, 2, 6, generator=draw)
    probe = seen(Denoise((3, 4, 5), (0,), plan, SWITCH, 0, 1), plan)
    assert probe is not None
    probe(0, q, k)
    share = by_hand(q[0], k[0], 2).mean(0)
    np.testing.assert_allclose(seen.memory[0, 3:6], share[:, plan.read.index(memory)], atol=1e-6)
    np.testing.assert_allclose(seen.maps[0, 3:6, 2], share[:, 2], atol=1e-6)
    assert np.isnan(seen.maps[0, 3:6, 1]).all()


def test_a_page_read_twice_counts_twice() -> None:
    seen = AttentionRecorder(9, 1, 1, tokens=1, layer=1, step=1)
    plan = CachePlan((0, 2, 0), (0, 1, 2), (3, 4, 5))
    probe = seen(Denoise((3, 4, 5), (0,), plan, SWITCH, 0, 1), plan)
    assert probe is not None
    probe(0, torch.zeros(1, 3, 1, 6), torch.zeros(1, 6, 1, 6))
    np.testing.assert_allclose(seen.maps[0, 3, [0, 2, 3, 4, 5]], np.array([2, 1, 1, 1, 1]) / 6, atol=1e-6)


def test_a_layer_or_step_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(AttentionMapError, match=r"layer=13: the model has 2 layers.*nearest valid: layer=2, or all"):
        recorder(layer=13)
    with pytest.raises(AttentionMapError, match=r"step=0: .*nearest valid: step=1"):
        recorder(step=0)


def test_shares_of_a_map_made_by_hand() -> None:
    """Even attention over sink, one past frame and the block of one; a switch at frame 3."""
    even = np.full((5, 5), np.nan, dtype=np.float32)
    for row in range(5):
        seen = sorted({0, max(0, row - 1), row})
        even[row, seen] = 1 / len(seen)
    before, after = shares(even, sink=1, block=1, events=[(3, "switch")])
    assert (before["start"], before["stop"], after["start"], after["stop"]) == (0, 3, 3, 5)
    assert before["sink"] == before["own"] == before["past"] == before["even_sink"] == pytest.approx(1 / 3, abs=1e-4)
    assert after["old"] == pytest.approx(1 / 6, abs=1e-4)  # frame 2, seen by frame 3 alone
    assert after["first_block"]["old"] == pytest.approx(1 / 3, abs=1e-4)


# --- the experiment ---------------------------------------------------------------------------------------------------


def config(tier: str = "smoke", **settings: Any) -> Mapping[str, Any]:
    experiment: Any = OmegaConf.to_container(OmegaConf.load(CONF / "experiment" / "attention_maps.yaml"))
    experiment["tiers"][tier] |= settings
    return {**load(["sys.device=cpu"]), "experiment": experiment, "tier": tier}


SMALL = {"script": "a red circle moving left[1.5s] | a red circle moving up[1.5s#]"}


def test_the_experiment_writes_one_file_and_continues(tmp_path: Path) -> None:
    said: list[str] = []
    (path,) = measurements.attention_maps(config(**SMALL), tmp_path, said.append)
    maps, memory, info = load_maps(path)
    assert maps.shape == (2, 12, 12)
    assert maps.dtype == np.float32
    assert memory.shape == (2, 12)
    assert [panel["label"] for panel in info["panels"]] == ["infinity_rope", "rolling_w6"]
    assert info["panels"][0]["events"] == [[6, "cut"]]
    assert info["panels"][0]["block"] == 3
    assert (info["layer"], info["step"], info["model"]) == (2, 4, "tiny/stable")
    json.dumps(info, allow_nan=False)
    before = path.read_bytes()
    said.clear()
    assert measurements.attention_maps(config(**SMALL), tmp_path, said.append) == [path]
    assert said == [f"{path.name} is there"]
    path.unlink()  # as after a kill before the end: the panels are there
    said.clear()
    measurements.attention_maps(config(**SMALL), tmp_path, said.append)
    assert all("is there" in line for line in said)
    assert np.array_equal(load_maps(path)[0], maps, equal_nan=True)
    assert len(path.read_bytes()) == len(before)
    (other,) = measurements.attention_maps(config(**SMALL, layer="all"), tmp_path, said.append)
    assert other != path


def test_heads_can_be_told_apart(tmp_path: Path) -> None:
    panels = {"rolling_w6": ["method=rolling_w6"]}
    (mean,), (each,) = (
        measurements.attention_maps(config(**SMALL, panels=panels, heads=heads), tmp_path, str)
        for heads in ("mean", "each")
    )
    maps, _, info = load_maps(each)
    assert [panel["label"] for panel in info["panels"]] == [f"rolling_w6 · head {head}" for head in (1, 2, 3)]
    np.testing.assert_allclose(maps.mean(0), load_maps(mean)[0][0], atol=1e-6)


def bad_settings() -> Sequence[tuple[dict[str, Any], str]]:
    return [
        ({"layer": 13}, "nearest valid: layer=4"),
        ({"step": 9}, "nearest valid: step=4"),
        ({"heads": "some"}, "heads=some"),
        ({"panels": {"x": ["method=infinty_rope"]}}, "did you mean 'infinity_rope'"),
    ]


@pytest.mark.parametrize(("settings", "message"), bad_settings())
def test_bad_settings_are_refused_before_anything_is_made(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        measurements.attention_maps(config(**settings), tmp_path, str)
    assert not any(tmp_path.iterdir())


def test_a_file_that_holds_no_maps_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_text("no")
    with pytest.raises(AttentionMapError, match="irope run attention_maps"):
        load_maps(tmp_path / "x.npz")
