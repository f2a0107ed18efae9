"""A checkpoint of a batch is that of its videos, and frames are handed over in order, one block later on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from irope.hand_over import SideStream
from irope.lock_step import of_one, together
from irope.rollout import Rollout
from tests.contract.test_fake_policies import DeepForcing
from tests.rollout_kit import CUT, SWITCH, FakeCodec, Script, latents, make, rollout, text

CPU = torch.device("cpu")
PROMPTS = ("a cat", "a dog", "a bird")
CASES = {
    "flush and cut": (make("infinity_rope", window=9), {3: SWITCH, 5: CUT}),
    "recache": (make("kv_recache", window=6, sink=1), {3: SWITCH}),
    "merged pages": (make("memrope"), {4: SWITCH}),
    "frames read twice": (make("rolling_sink", window=12, sink=9, recent=0), {4: SWITCH}),
    "selected tokens": (DeepForcing(), {4: SWITCH}),
    "rolling window": (make("rolling_forcing"), {4: SWITCH}),
    "restart": (make("causvid", window=9), {3: SWITCH}),
}


def videos(name: str, rows: slice) -> Rollout:
    policy, at = CASES[name]

    def texts(segment: int) -> Tensor:
        return torch.cat([text(10 * row + segment) for row in range(len(PROMPTS))])[rows]

    return rollout(policy, Script(8, at), PROMPTS[rows], texts=texts, codec=FakeCodec())


def state_after(running: Rollout, blocks: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    for block in running:
        if block.index + 1 == blocks:
            break
    tensors, record = running.state()
    return {key: tensor.clone() for key, tensor in tensors.items()}, record


@pytest.mark.parametrize("name", CASES)
def test_a_batch_is_taken_apart_and_put_together(name: str) -> None:
    whole, record = state_after(videos(name, slice(0, 3)), 6)
    parts = [of_one(whole, video) for video in range(3)]
    back = together(parts)
    assert back.keys() == whole.keys()
    assert all(torch.equal(back[key], whole[key]) for key in whole)
    for video, part in enumerate(parts):
        alone, alone_record = state_after(videos(name, slice(video, video + 1)), 6)
        assert alone_record == record
        assert {key: tensor.shape for key, tensor in alone.items()} == {key: t.shape for key, t in part.items()}
        for key, tensor in alone.items():
            torch.testing.assert_close(part[key], tensor, rtol=1e-3, atol=1e-3, msg=key)
    pair = videos(name, slice(1, 3))  # without the first one
    pair.load_state(together(parts[1:]), record)
    rest = latents(block for block in videos(name, slice(1, 3)) if block.index > 5)
    assert (latents(pair) - rest).abs().max() < 1e-4


class FakeCuda:
    """Notes what is asked of a device; work on the CPU is done at once."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.count = 0

    def Stream(self, _: torch.device) -> FakeCuda:  # noqa: N802
        return self

    def current_stream(self, _: torch.device) -> str:
        return "main"

    def wait_stream(self, other: str) -> None:
        self.events.append(f"after {other}")

    @contextmanager
    def stream(self, _: object) -> Any:
        self.events.append(f"decoding {self.count}")
        yield

    def record_event(self) -> Any:
        number, self.count = self.count, self.count + 1

        class Event:
            synchronize = staticmethod(lambda: self.events.append(f"waited for {number}"))

        return Event()


def test_frames_come_one_block_later_and_at_once_where_a_checkpoint_follows() -> None:
    plain = list(videos("flush and cut", slice(0, 2)))
    cuda, running = FakeCuda(), videos("flush and cut", slice(0, 2))
    running._lane = SideStream(CPU, cuda)
    settled = []

    def settle(block: int) -> bool:
        settled.append(block)
        return block == 3

    blocks = []
    for block in running.blocks(settle):
        cuda.events.append(f"block {block.index}")
        blocks.append(block)
        if block.index == 3:
            state, _ = running.state()
    assert settled == list(range(8)), "asked once about every block"
    steps = [event for event in cuda.events if event != "after main"]
    waits = {event: number for number, event in enumerate(steps)}
    for index in range(7):
        assert waits[f"waited for {index}"] < waits[f"block {index}"]
        later = waits[f"decoding {index + 1}"] < waits[f"waited for {index}"]
        assert later == (index != 3), "the next block is under way, but for the one with a checkpoint"
    assert [block.index for block in blocks] == list(range(8))
    assert all(torch.equal(a.frames, b.frames) for a, b in zip(blocks, plain, strict=True))
    expected, _ = state_after(videos("flush and cut", slice(0, 2)), 4)
    assert all(torch.equal(state[key], expected[key]) for key in expected)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_restart_has_its_anchor_in_time(ahead: bool) -> None:
    def made(change: Callable[[Rollout], None]) -> Tensor:
        policy, _ = CASES["restart"]
        running = rollout(policy, Script(8), ("a cat", "a dog"), codec=FakeCodec())
        change(running)
        return torch.cat([block.frames for block in running.blocks(lambda _: not ahead)], dim=1)

    beside = made(lambda running: setattr(running, "_lane", SideStream(CPU, FakeCuda())))
    assert torch.equal(made(lambda running: None), beside)
