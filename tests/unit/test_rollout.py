"""What holds for whole roll-outs."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from irope.policy import CachePlan, CachePolicy, CacheView
from irope.rollout import Block, Rollout
from irope.schedules import Context, Run, chunkwise
from tests.rollout_kit import CUT, FULL, SWITCH, FakeCodec, Script, latents, make, rollout, text

# --- a longer video starts with the shorter one -----------------------------------------------------------------------


@cache
def five_minutes() -> tuple[Tensor, dict[int, tuple[int, int]]]:
    """402 blocks of ∞-RoPE: the video, and what the roll-out holds after some of the blocks."""
    made, parts, sizes = rollout(make("infinity_rope"), Script(402), steps=(1000,)), [], {}
    for block in made:
        parts.append(block.latents)
        sizes[block.index] = held(made)
    return torch.cat(parts, dim=1), sizes


def test_a_long_video_starts_with_the_short_one() -> None:
    short = latents(rollout(make("infinity_rope"), Script(80), steps=(1000,)))
    assert short.shape[1] == 240
    assert torch.equal(short, five_minutes()[0][:, :240])
    short, long = (latents(rollout(make("kv_recache"), Script(blocks), steps=(1000,))) for blocks in (8, 20))
    assert torch.equal(short, long[:, :24])


def test_rolling_forcing_starts_alike_until_its_window_drains() -> None:
    """Blocks are denoised together, so the last ones of the short video have no future beside them."""
    policy = make("rolling_forcing")
    short, long = (latents(rollout(policy, Script(blocks))) for blocks in (12, 20))
    same = 3 * (12 - 4)
    assert torch.equal(short[:, :same], long[:, :same])
    assert not torch.equal(short, long[:, :36])


def test_first_block_is_the_same_under_every_policy() -> None:
    policies = [make(name) for name in ("full", "rolling", "infinity_rope", "kv_recache", "causvid")]
    policies += [make("infinity_rope", compat="paper", window=9, sink=3)]
    first = [next(iter(rollout(policy, Script(4), steps=FULL))).latents for policy in policies]
    assert all(torch.equal(made, first[0]) for made in first)


def test_every_schedule_draws_the_same_noise() -> None:
    """Rolling Forcing mixes levels, but the noise of a block and step is the one that every other policy meets."""
    drawn = []
    for name in ("rolling_forcing", "infinity_rope"):
        made, keys = rollout(make(name), Script(6), steps=(1000, 800, 600, 400, 200)), {}
        source = made.noise

        def noise(block: int, step: int, source=source, keys=keys) -> Tensor:
            return keys.setdefault((block, step), source(block, step))

        list(replace(made, noise=noise))
        drawn.append(keys)
    assert drawn[0].keys() == drawn[1].keys() == {(block, step) for block in range(6) for step in range(5)}
    assert all(torch.equal(drawn[0][key], drawn[1][key]) for key in drawn[0])


# --- kill and resume --------------------------------------------------------------------------------------------------

RESUMED = {
    "infinity_rope flush and cut": (make("infinity_rope", window=9), {3: SWITCH, 6: CUT}),
    "infinity_rope paper": (make("infinity_rope", compat="paper"), {3: SWITCH, 5: CUT}),
    "infinity_rope keep": (make("infinity_rope", on_switch="keep"), {4: SWITCH}),
    "full": (make("full", window=27), {4: SWITCH}),
    "rolling": (make("rolling", window=6, sink=1), {4: SWITCH}),
    "recache": (make("kv_recache", window=6, sink=1), {2: SWITCH, 6: SWITCH}),
    "recache renewed": (make("kv_recache", window=6, sink=1, sink_at_switch="renewed"), {4: SWITCH, 6: CUT}),
    "recache relative": (make("kv_recache", window=9, sink=3, index="relative"), {4: SWITCH, 5: SWITCH}),
    "rolling_forcing": (make("rolling_forcing"), {4: SWITCH}),
    "causvid": (make("causvid", window=9), {3: SWITCH}),
}


@pytest.mark.parametrize("name", RESUMED)
def test_resume_at_every_block(name: str) -> None:
    policy, events = RESUMED[name]

    def fresh() -> Rollout:
        return rollout(policy, Script(9, events), codec=FakeCodec())

    blocks, states = [], []
    running = fresh()
    for block in running:
        tensors, record = running.state()
        states.append((save(tensors), json.dumps(record)))
        blocks.append(block)
    assert len(blocks) >= 9
    for number, (tensors, record) in enumerate(states):
        resumed = fresh()
        resumed.load_state(load(tensors), json.loads(record))
        rest = list(resumed)
        assert [block.index for block in rest] == [block.index for block in blocks[number + 1 :]]
        for made, wanted in zip(rest, blocks[number + 1 :], strict=True):
            assert torch.equal(made.latents, wanted.latents)
            assert torch.equal(made.frames, wanted.frames)
            assert made.plan == wanted.plan


def test_a_resumed_roll_out_can_be_resumed_again() -> None:
    policy, events = RESUMED["recache"]
    whole = list(rollout(policy, Script(9, events)))
    made: list[Block] = []
    tensors: dict[str, Tensor] = {}
    record: dict[str, object] = {}
    while len(made) < 9:  # a process that dies after every block
        running = rollout(policy, Script(9, events))
        if made:
            running.load_state(tensors, record)
        made.append(next(iter(running)))
        tensors, record = running.state()
    assert torch.equal(latents(made), latents(whole))


# --- batches, far indices, constant memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["infinity_rope flush and cut", "recache", "rolling_forcing", "causvid"])
def test_batch_equals_single_runs(name: str) -> None:
    policy, events = RESUMED[name]
    prompts = ("a cat", "a dog")

    def texts(row: slice) -> Callable[[int], Tensor]:
        return lambda segment: torch.cat([text(segment), text(50 + segment)])[row]

    together = latents(rollout(policy, Script(9, events), prompts, texts=texts(slice(0, 2))))
    for row, prompt in enumerate(prompts):
        alone = latents(rollout(policy, Script(9, events), (prompt,), texts=texts(slice(row, row + 1))))
        assert (together[row] - alone[0]).abs().max() < 1e-5
    assert not torch.allclose(together[0], together[1], atol=0.1)


@dataclass(frozen=True)
class Shifted(CachePolicy):
    """Another policy, every index moved by ``offset``, as if the video had begun long ago."""

    inner: CachePolicy | None = None
    offset: int = 0

    def plan(self, view: CacheView) -> CachePlan:
        assert self.inner is not None
        plan = self.inner.plan(view)
        key_index, query_index = (
            tuple(at + self.offset for at in index) for index in (plan.key_index, plan.query_index)
        )
        return replace(plan, key_index=key_index, query_index=query_index)


@pytest.mark.parametrize("offset", [1023, 2**24 + 1, 2**30])
@pytest.mark.parametrize("name", ["infinity_rope", "rolling"])
def test_far_indices_change_nothing(name: str, offset: int) -> None:
    inner = make(name, window=6, sink=1)
    near = latents(rollout(inner, Script(10)))
    far = latents(rollout(Shifted(6, 1, inner, offset), Script(10)))
    assert far.isfinite().all()
    assert (far - near).abs().max() < 1e-4


def held(thing: object, seen: set[int] | None = None) -> tuple[int, int]:
    """(number of tensors, bytes) reachable from a roll-out without its model and codec; shared memory counts once."""
    seen = set() if seen is None else seen
    if isinstance(thing, Tensor):
        storage = thing.untyped_storage()
        fresh = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return 1, storage.nbytes() if fresh else 0
    if isinstance(thing, (torch.nn.Module, FakeCodec)) or id(thing) in seen:
        return 0, 0
    seen.add(id(thing))
    if isinstance(thing, dict):
        parts = list(thing.values())
    elif isinstance(thing, (list, tuple)):
        parts = list(thing)
    else:
        parts = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    counts = [held(part, seen) for part in parts]
    return sum(number for number, _ in counts), sum(size for _, size in counts)


def test_nothing_grows_in_five_minutes() -> None:
    _, sizes = five_minutes()
    assert len({sizes[block] for block in range(20, 401)}) == 1


@pytest.mark.parametrize("name", ["rolling", "kv_recache", "rolling_forcing", "causvid"])
def test_nothing_grows(name: str) -> None:
    """CausVid repeats itself every six blocks; the others are the same after every block."""
    made, sizes = rollout(make(name), Script(96), steps=(1000,)), {}
    for block in made:
        if block.index in (20, 44, 86):
            sizes[block.index] = held(made)
    assert sizes[20][1] > made.arena.page_bytes
    assert sizes[20] == sizes[44] == sizes[86]


# --- who equals whom --------------------------------------------------------------------------------------------------


def apart(first: CachePolicy, second: CachePolicy, events: Script, **kwargs) -> float:
    made = [latents(rollout(policy, events, **kwargs)) for policy in (first, second)]
    return (made[0] - made[1]).abs().max().item()


def test_relative_indices_without_a_sink_are_absolute_ones() -> None:
    assert apart(make("rolling", window=6, sink=0), make("infinity_rope", sink=0), Script(40)) < 1e-4
    assert apart(make("rolling", window=6, sink=1), make("infinity_rope", sink=1), Script(40)) > 1e-2


def test_flush_at_window_6_acts_through_the_prompt_alone() -> None:
    flush, keep = make("infinity_rope"), make("infinity_rope", on_switch="keep")
    script = Script(10, {5: SWITCH})
    assert apart(flush, keep, script, texts=lambda segment: text(0)) == 0
    assert apart(flush, keep, script) == 0
    wide = [make("infinity_rope", window=9, on_switch=what) for what in ("flush", "keep")]
    assert apart(*wide, script, texts=lambda segment: text(0)) > 1e-3


def test_f0_without_a_pinned_sink_is_no_change() -> None:
    attached = [make("infinity_rope", sink_index="attached", f0=f0) for f0 in (6, 21)]
    assert apart(*attached, Script(14)) < 1e-4
    pinned = [make("infinity_rope", f0=f0) for f0 in (6, 21)]
    assert apart(*pinned, Script(14)) > 1e-2


@pytest.mark.parametrize("compat", ["official", "paper"])
def test_a_cut_moves_one_block(compat: str) -> None:
    policy = make("infinity_rope", compat=compat)
    plain, cut = (list(rollout(policy, Script(10, events))) for events in ({}, {5: CUT}))
    plans = [(a.plan, b.plan) for a, b in zip(plain, cut, strict=True)]
    moved = [number for number, (a, b) in enumerate(plans) if a.query_index != b.query_index]  # type: ignore[union-attr]
    assert moved == [5]
    differ = [not torch.equal(a.latents, b.latents) for a, b in zip(plain, cut, strict=True)]
    assert differ == [False] * 5 + [True] * 5


def test_rolling_forcing_emits_in_order() -> None:
    blocks = list(rollout(make("rolling_forcing"), Script(11)))
    assert [block.index for block in blocks] == list(range(11))
    assert latents(blocks).isfinite().all()


@pytest.mark.parametrize(("name", "skipped"), [("infinity_rope", 1), ("causvid", 4)])
def test_keys_that_nothing_reads_are_not_made(monkeypatch: pytest.MonkeyPatch, name: str, skipped: int) -> None:
    """The context pass of the last block, and of the last one before each of three restarts."""
    made = rollout(make(name), Script(20), codec=FakeCodec())
    calls: list[int] = []
    store = made._store
    monkeypatch.setattr(made, "_store", lambda *args: calls.append(1) or store(*args))
    contexts = sum(isinstance(op, Context) for op in made.operations())
    list(made)
    assert len(calls) == contexts - skipped


# --- the restarting schedule ------------------------------------------------------------------------------------------


def test_causvid_has_as_many_pixel_frames() -> None:
    counts = {}
    for name in ("causvid", "infinity_rope"):
        blocks = rollout(make(name), Script(80), steps=(1000,), codec=FakeCodec())
        counts[name] = sum(block.frames.shape[1] for block in blocks)
    assert counts == {"causvid": 957, "infinity_rope": 957}


def test_causvid_restarts_from_pixel_frame_72() -> None:
    codec = FakeCodec()
    decoded: dict[int, list[Tensor]] = {}
    video: list[Block] = []
    for block in rollout(make("causvid"), Script(20), codec=codec):
        video.append(block)
        decoded[len(codec.encoded)] = list(codec.decoded)  # of the roll-out that runs now
    assert [block.index for block in video] == [*range(7), *range(6, 13), *range(12, 19), 18, 19]
    assert len(codec.encoded) == 3
    for number, (pixels, encoded) in enumerate(codec.encoded):
        assert len(decoded[number]) == 81
        assert torch.equal(pixels[:, 0], decoded[number][72].movedim(-1, 1).float() / 127.5 - 1)
        end, context = video[7 * number + 6].latents, video[7 * number + 7].latents
        assert torch.equal(context[:, 0], encoded[:, 0])
        assert torch.equal(context[:, 1:], end[:, 1:])
        # 72 new frames per roll-out: the last block gives 3 of its 12, the context block the 9 that replace the rest.
        assert video[7 * number + 6].frames.shape[1] == 3
        assert video[7 * number + 7].frames.shape[1] == 9


def test_causvid_needs_a_codec() -> None:
    made = rollout(make("causvid"), Script(9))
    with pytest.raises(ValueError, match="needs a codec"):
        list(replace(made, codec=None))


def test_schedule_and_model_agree_on_operations() -> None:
    """What the roll-out executes is what `explain` prints: the schedule alone, without a model."""
    policy, script = make("infinity_rope"), Script(5, {3: SWITCH})
    made = rollout(policy, script)
    assert list(made.operations()) == list(chunkwise(policy, script, Run(steps=2)))
