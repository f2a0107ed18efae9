"""The KV arena against attention by explicit concatenation, for random plans; which bytes it moves."""

import math
import random
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from irope.cache import ArenaShape, KVArena, kv_bytes_per_page
from irope.infinity import InfinityRope
from irope.policy import CacheEvent, CachePlan, CacheView, Page, PageId, PolicyError, Recompute, pages_after
from irope.transformer import WanConfig

CONFIG = WanConfig(dim=40, num_heads=2, num_layers=2, ffn_dim=16, in_dim=2, out_dim=2, text_len=2, text_dim=2)
GRID = (2, 3)
TOKENS = 6
BATCH = 2
CPU = torch.device("cpu")


def arena(capacity: int = 8, dtype: torch.dtype = torch.float64, batch: int = BATCH, sink: int = 0) -> KVArena:
    return KVArena(CONFIG, ArenaShape(capacity, GRID, batch, sink), dtype, CPU)


def draw(frames: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Raw q, k, v [B, L, N, K] of every layer."""
    shape = (BATCH, frames * TOKENS, CONFIG.num_heads, CONFIG.head_dim)
    return [
        tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))  # type: ignore[misc]
        for _ in range(CONFIG.num_layers)
    ]


def turned(x: Tensor, index: int) -> Tensor:
    """Rotate one frame [B, S, N, K]; angle by angle: time, row and column have pairs of their own."""
    space = 2 * (CONFIG.head_dim // 6)
    sizes = (CONFIG.head_dim - 2 * space, space, space)
    angles = [
        [
            position * 10000 ** (-2 * j / size)
            for position, size in zip((index, token // GRID[1], token % GRID[1]), sizes, strict=True)
            for j in range(size // 2)
        ]
        for token in range(TOKENS)
    ]
    angle = torch.tensor(angles, dtype=torch.float64)[:, None]
    a, b = x[..., ::2], x[..., 1::2]
    out = torch.empty_like(x)
    out[..., ::2], out[..., 1::2] = a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()
    return out


def frames_of(x: Tensor) -> list[Tensor]:
    return list(x.split(TOKENS, dim=1))


@dataclass
class Plain:
    """What the arena must be: pages in a dictionary, attention over a concatenation."""

    pages: dict[PageId, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def attend(
        self,
        qkv: list[tuple[Tensor, Tensor, Tensor]],
        read: tuple[PageId, ...],
        key_index: tuple[int, ...],
        query_index: tuple[int, ...],
        seen: list[int] | None = None,
    ) -> list[Tensor]:
        """Output of every layer; ``seen``: which of the call's own frames are attended."""
        outputs = []
        for layer, (q, k, v) in enumerate(qkv):
            own = range(len(query_index)) if seen is None else seen
            keys = [turned(self.pages[page][layer][0], at) for page, at in zip(read, key_index, strict=True)]
            keys += [turned(frames_of(k)[i], query_index[i]) for i in own]
            values = [self.pages[page][layer][1] for page in read] + [frames_of(v)[i] for i in own]
            queries = torch.cat([turned(x, at) for x, at in zip(frames_of(q), query_index, strict=True)], dim=1)
            logits = torch.einsum("blnk,bmnk->bnlm", queries, torch.cat(keys, dim=1)) / math.sqrt(CONFIG.head_dim)
            outputs.append(torch.einsum("bnlm,bmnk->blnk", logits.softmax(-1), torch.cat(values, dim=1)))
        return outputs

    def store(self, qkv: list[tuple[Tensor, Tensor, Tensor]], places: dict[int, int]) -> None:
        """Keep frames of a call: frame number -> its place in the call."""
        for frame, place in places.items():
            self.pages[frame] = [(frames_of(k)[place], frames_of(v)[place]) for _, k, v in qkv]

    def keep(self, pages: set[PageId]) -> None:
        self.pages = {page: entry for page, entry in self.pages.items() if page in pages}


def close(made: list[Tensor], wanted: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, atol=1e-6, rtol=0) for a, b in zip(made, wanted, strict=True))


def run(a: KVArena, qkv: list[tuple[Tensor, Tensor, Tensor]]) -> list[Tensor]:
    return [a(layer, *tensors) for layer, tensors in enumerate(qkv)]


@pytest.mark.parametrize("seed", range(6))
def test_random_plans_equal_explicit_concatenation(seed: int) -> None:
    """Random read orders, duplicates, retained pages, re-indexing, eviction, and recaches that store a subset."""
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    capacity, size = 8, 2
    made, plain = arena(capacity, sink=seed), Plain()
    for b in range(12):
        block = tuple(range(b * size, (b + 1) * size))
        recompute = None
        if b > 2 and choose.random() < 0.4:
            again = tuple(range(block[0] - 4, block[0]))
            store = tuple(choose.sample(again, choose.randint(1, 3)))
            others = [page for page in plain.pages if page not in store]
            beside = tuple(choose.sample(others, min(len(others), choose.randint(0, 2))))
            index = [tuple(choose.randint(0, 60) for _ in pages) for pages in (again, beside)]
            recompute = Recompute(again, index[0], store, beside, index[1])
        held = list(plain.pages | dict.fromkeys(recompute.store if recompute else ()))
        room = capacity - size - (len(recompute.read) if recompute else 0)
        kept = choose.sample(held, min(len(held), max(0, room)))
        split = choose.randint(0, len(kept))
        read = tuple(kept[:split]) + tuple(choose.choices(kept[:split], k=2) if split else ())  # two pages twice
        plan = CachePlan(
            read=read,
            key_index=tuple(choose.randint(-3, 90) for _ in read),
            query_index=tuple(choose.randint(0, 90) for _ in block),
            retain=tuple(kept[split:]),
            recompute=recompute,
        )
        if recompute is not None:
            qkv = draw(len(recompute.frames), generator)
            made.execute_recompute(plan, segment=b)
            places = {frame: recompute.frames.index(frame) for frame in recompute.store}
            seen = list(places.values())
            wanted = plain.attend(qkv, recompute.read, recompute.key_index, recompute.index, seen)
            assert close(run(made, qkv), wanted)
            plain.store(qkv, places)
        made.execute(plan, segment=b)
        plain.keep(set(kept))
        for _ in range(2):  # two denoising calls leave nothing behind
            qkv = draw(size, generator)
            assert close(run(made, qkv), plain.attend(qkv, plan.read, plan.key_index, plan.query_index))
        made.writing(block, segment=b)
        qkv = draw(size, generator)
        assert close(run(made, qkv), plain.attend(qkv, plan.read, plan.key_index, plan.query_index))
        plain.store(qkv, {frame: place for place, frame in enumerate(block)})
        assert made.pages.keys() == made.table.slots.keys() == plain.pages.keys()
        assert all(made.pages[frame].segment == b for frame in block)


def filled(frames: int, capacity: int = 8, dtype: torch.dtype = torch.float64, sink: int = 0) -> KVArena:
    """An arena that holds frames 0 .. ``frames`` - 1 with random keys and values."""
    a = arena(capacity, dtype, sink=sink)
    a.execute(CachePlan((), (), tuple(range(frames))), segment=0)
    a.writing(tuple(range(frames)), segment=0)
    run(a, [tuple(x.to(dtype) for x in layer) for layer in draw(frames, torch.Generator().manual_seed(3))])  # type: ignore[misc]
    return a


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("batch", [1, 3])
def test_declared_bytes_are_measured_bytes(dtype: torch.dtype, batch: int) -> None:
    a = arena(7, dtype, batch)
    assert a.page_bytes == 7 * kv_bytes_per_page(CONFIG, GRID, dtype, batch)
    assert kv_bytes_per_page(WanConfig(), (30, 52), torch.bfloat16) == 2 * 30 * 1560 * 1536 * 2


def copied(a: KVArena) -> tuple[Tensor, Tensor]:
    return a.keys.clone(), a.values.clone()


def pages_changed(before: tuple[Tensor, Tensor], a: KVArena) -> tuple[int, int]:
    """Slots in which a key changed, and a value."""
    changed = [x != y for x, y in zip(before, (a.keys, a.values), strict=True)]
    return tuple(int(x.unflatten(2, (-1, TOKENS)).flatten(3).any(-1).any(1).any(0).sum()) for x in changed)  # type: ignore[return-value]


def test_a_window_that_moves_rigidly_moves_no_byte() -> None:
    a = filled(8)
    before, address = copied(a), a.keys.data_ptr()
    a.execute(CachePlan(read=(3, 4, 5, 6, 7), key_index=(0, 1, 2, 3, 4), query_index=(5, 6, 7)), segment=1)
    assert pages_changed(before, a) == (0, 0)
    assert a.keys.data_ptr() == address
    assert [a.pages[page].segment for page in (3, 7)] == [0, 0]  # still encoded under the old prompt
    run(a, draw(3, torch.Generator().manual_seed(4)))
    assert pages_changed(before, a) == (3, 3)  # the new block, in the slots of dropped frames


def test_of_a_full_window_only_the_keys_of_the_sink_change() -> None:
    a = filled(8, sink=1)
    before = copied(a)
    a.execute(CachePlan(read=(0, 4, 5, 6, 7), key_index=(0, 1, 2, 3, 4), query_index=(5, 6, 7)), segment=0)
    assert pages_changed(before, a) == (1, 0)
    assert (a.turned_pages, a.moved_pages) == (1, 0)
    assert a.stage_bytes == a.page_bytes // 8 // 2  # the un-rotated keys of one page


@pytest.mark.parametrize("window", [6, 9, 12, 21])
@pytest.mark.parametrize("block", [7, 30])
def test_a_flush_costs_the_same_for_every_window_and_history(window: int, block: int) -> None:
    """The flush changes integers, no more; the block behind it brings the sink beside the frames that are kept."""
    policy = InfinityRope(window=window)
    a, pages, generator = arena(window, batch=1, sink=1), tuple[Page, ...](), torch.Generator().manual_seed(0)
    for b in range(block):
        view = CacheView(pages, (3 * b, 3 * b + 1, 3 * b + 2))
        plan = policy.plan(view)
        a.execute(plan, 0)
        a.writing(view.block, 0)
        for layer, made in enumerate(draw(3, generator)):
            a(layer, *(x[:1] for x in made))
        pages = pages_after(view, plan, commit=True)
    assert a.moved_pages == 0
    before, turned = copied(a), a.turned_pages
    view = CacheView(pages, (3 * block, 3 * block + 1, 3 * block + 2), CacheEvent.PROMPT_SWITCH)
    plan = policy.plan(view)
    a.keep((*plan.read, *plan.retain))
    assert list(a.pages) == [0, 3 * block - 2, 3 * block - 1]
    assert pages_changed(before, a) == (0, 0)
    a.execute(plan, 1)
    assert a.turned_pages - turned == 1  # of the sink, as in every block
    assert a.moved_pages <= 1
    assert a.moved_pages == 0 or window > 6
    assert a.keys.shape[2] == window * TOKENS


def test_freed_slots_are_used_again() -> None:
    a = filled(8)
    a.execute(CachePlan(read=(0, 1, 2, 3, 4), key_index=(0, 1, 2, 3, 4), query_index=(5, 6, 7)), segment=0)
    a.writing((8, 9, 10), segment=0)
    assert sorted(slot for slots in a.table.slots.values() for slot in slots) == list(range(8))


def test_full_cache_says_so() -> None:
    a = filled(8)
    a.execute(CachePlan(read=tuple(range(8)), key_index=tuple(range(8)), query_index=(8,)), segment=0)
    with pytest.raises(PolicyError, match=r"cache is full: 8 pages.*no room for 8"):
        a.writing((8,), segment=0)


def test_own_keys_stand_where_the_queries_do() -> None:
    """A block on its own is the same wherever it stands, and another one when its frames are further apart."""
    qkv = draw(2, torch.Generator().manual_seed(5))
    made = []
    for index in ((0, 1), (45, 46), (2**24, 2**24 + 1), (0, 9)):
        a = arena()
        a.execute(CachePlan((), (), index), segment=0)
        made.append(run(a, qkv))
    assert close(made[0], made[1])
    assert close(made[0], made[2])
    assert not torch.allclose(made[0][0], made[3][0], atol=1e-3)


def test_nothing_of_the_size_of_the_window_is_copied() -> None:
    """Neither in a call, nor where a plan is executed."""
    a = filled(8, sink=1)
    moved: list[int] = []

    class Moves(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            if not func.is_view and isinstance(out, Tensor):
                moved.append(out.numel())
            return out

    qkv = draw(3, torch.Generator().manual_seed(1))
    with Moves():
        a.execute(CachePlan(read=(0, 4, 5, 6, 7), key_index=(0, 1, 2, 3, 4), query_index=(5, 6, 7)), segment=0)
        run(a, qkv)
    # The largest is one page of all layers, or what a call makes of its own frames.
    assert max(moved) <= max(CONFIG.num_layers, 3) * BATCH * TOKENS * CONFIG.dim < a.keys[0].numel()


def test_a_page_turned_a_thousand_times_is_as_near_as_one_turned_once() -> None:
    """bfloat16: one rounding for the sink, three for a page without a copy, however often; rms error over rms."""
    errors = {}
    for sink in (0, 1):
        a = filled(8, dtype=torch.bfloat16, sink=sink)
        raw = draw(8, torch.Generator().manual_seed(3))[0][1][:, :TOKENS].bfloat16().double()
        for b in range(300):  # two pages that stay, one that is ever further from them
            a.execute(CachePlan(read=(5, 0, 6), key_index=(3 * b, 0, 3 * b + 1), query_index=(3 * b + 2,)), segment=0)
            shift = a.table.turns[a.table.slots[0][0]]
            assert shift is not None
            slot = a.table.slots[0][0]
            found = a.keys[0][:, slot * TOKENS : (slot + 1) * TOKENS].double()
            wanted = turned(raw, shift[0])
            errors[sink, b] = ((found - wanted).pow(2).mean() / wanted.pow(2).mean()).sqrt().item()
    assert errors[1, 299] < 2e-3
    assert errors[0, 299] < 4e-3
    assert errors[0, 299] < 1.2 * errors[0, 5]


def test_recompute_spares_what_the_plan_reads() -> None:
    """Pages that the recache does not look at survive it when the plan itself names them."""
    a = filled(6)
    plan = CachePlan(
        read=(0, 4, 5),
        key_index=(0, 1, 2),
        query_index=(3, 4),
        retain=(1,),
        recompute=Recompute(frames=(4, 5), index=(0, 1), store=(4, 5)),
    )
    old = a.values[:, :, :TOKENS].clone()
    a.execute_recompute(plan, segment=1)
    run(a, draw(2, torch.Generator().manual_seed(9)))
    a.execute(plan, segment=1)
    slot = a.table.slots[0][0]
    assert torch.equal(a.values[:, :, slot * TOKENS : (slot + 1) * TOKENS], old)
    assert {page: entry.segment for page, entry in a.pages.items()} == {0: 0, 1: 0, 4: 1, 5: 1}


def test_state_restores_pages() -> None:
    a = filled(6)
    a.keep((1, 4, 5))
    tensors, record = a.state()
    b = filled(3)
    b.load_state(tensors, record)
    plan = CachePlan(read=(5, 1, 4), key_index=(0, 7, 8), query_index=(9, 10))
    qkv = draw(2, torch.Generator().manual_seed(2))
    outputs = []
    for each in (a, b):
        each.execute(plan, segment=0)
        outputs.append(run(each, qkv))
    assert all(torch.equal(x, y) for x, y in zip(*outputs, strict=True))
    assert a.pages == b.pages
