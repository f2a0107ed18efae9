"""The KV arena: one buffer of rotated keys and values a layer, attended in place, that executes cache plans.

Shape letters: P slots, B batch, S tokens per latent frame, N heads, K head dimension, L tokens of a call.

A slot holds one latent frame. Its keys are stored *rotated*, once, at the temporal index of the call that wrote them.
Attention sees differences of indices only: while a window moves rigidly its pages stay as they are, and the queries and
keys of the new block are rotated at their index plus a common shift. Keys are a set, their order does not matter. So a
new block is written into the slots of dropped pages, in every call, and what the last call wrote, the clean one, simply
stays. What is attended lies in one range of slots (`irope.ring`): attention reads views, without a copy or a mask, at
addresses that never change. Evicting and flushing are changes of integers.

Bytes move in two cases, both counted:

* A page whose distance to the block changes is rotated anew (``turned_pages``): the sink of ∞-RoPE once per block, what
  is left of the old window once after a cut. It is rotated from un-rotated keys. Those of the sink are kept when it is
  written; any other page is turned back once, the first time, and its un-rotated keys kept. So a page turned a thousand
  times is as near as one turned once: in bfloat16 one rounding for the sink, three for any other page.
* A page that lies outside the range of its plan is moved into it (``moved_pages``). A full window has no outside. After
  a flush of a window with more past than is kept, the sink is brought beside what is kept: the same few pages,
  whatever the window and the history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from irope import kernels, rope
from irope.hand_over import sent
from irope.memory_pages import best_tokens, weighted_sum
from irope.policy import CachePlan, Merge, Page, PageId, PolicyError, Select, TokenScorer
from irope.projections import AttentionProjections
from irope.ring import SlotTable, Turn, runs
from irope.transformer import Store, WanConfig, attention

Probe = Callable[[int, Tensor, Tensor], None]
"""Sees the rotated queries [B, L, N, K] and keys [B, M, N, K] of a layer and takes no part: (layer, queries, keys).

Keys are in the order of the plan: pages read, then the call's own frames.
"""


@dataclass(frozen=True)
class ArenaShape:
    """Static size of an arena.

    Attributes:
        capacity: pages that it may hold, the new block included.
        grid: token rows and columns of a latent frame.
        sink: frames with a number below this one are written with a copy of their un-rotated keys.
    """

    capacity: int
    grid: tuple[int, int]
    batch: int = 1
    sink: int = 0

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]


def kv_bytes_per_page(config: WanConfig, grid: tuple[int, int], dtype: torch.dtype, batch: int = 1) -> int:
    """Bytes of the keys and values of one latent frame over all layers (287.5 MB for the 1.3B model in bfloat16)."""
    return 2 * config.num_layers * batch * math.prod(grid) * config.dim * dtype.itemsize


class KVArena(Store):
    """Holds pages, executes plans, and is the self-attention of every layer (`irope.transformer.SelfAttention`).

    Life of a block: `execute` a plan, then any number of forwards with the arena as ``attend``; what the last forward
    behind `writing` writes stays in the cache, under the block's frame numbers.

    Attributes:
        keys, values: [layers, B, P * S, N, K].
        turned_pages, moved_pages: how often a page was rotated anew and moved.
    """

    def __init__(self, config: WanConfig, shape: ArenaShape, dtype: torch.dtype, device: torch.device) -> None:
        self.config, self.shape, self.dtype, self.device = config, shape, dtype, device
        self.table = SlotTable(shape.capacity)
        self.keys, self.values = self._buffer(), self._buffer()
        self.turned_pages = self.moved_pages = 0
        self.last_queries: dict[int, Tensor] = {}
        self.keep_queries = False
        self.probe: Probe | None = None
        self._raw: dict[PageId, Tensor] = {}  # un-rotated keys [layers, B, S, N, K]
        self._spare: list[Tensor] = []  # of dropped pages, for the next copies
        self._token_ids: dict[PageId, Tensor] = {}  # where in the grid selected tokens come from, [layers, B, S]
        work = torch.complex128 if dtype == torch.float64 else torch.complex64
        self._spatial_SP = rope.unit(rope.spatial_angles(shape.grid, config.rope_dims), work).to(device)
        self._attended = slice(0)  # tokens
        self._order: tuple[int, ...] = ()  # slots attended, in the order of the plan
        self._own: tuple[int, ...] = ()  # slots of the call's own frames
        self._own_turns: list[Turn] = []
        self._runs: list[tuple[int, int, int]] = []
        self._by_kernel = kernels.usable(device, dtype)
        self._own_slots = torch.empty(0)  # of every frame of the call, on the device, -1 for none
        self._stored: Tensor | None = None  # of the call's own frames those that are attended, None: all
        self._shift = 0
        self._phase = torch.empty(0)  # of the call's own tokens, complex [L, 1 or N, K/2]
        self._writing: tuple[int, ...] = ()

    def _buffer(self) -> Tensor:
        config, tokens = self.config, self.table.count * self.shape.tokens
        shape = (config.num_layers, self.shape.batch, tokens, config.num_heads, config.head_dim)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    @property
    def pages(self) -> dict[PageId, Page]:
        """What the cache holds."""
        return self.table.pages

    @property
    def page_bytes(self) -> int:
        """Bytes of keys and values of as many pages as the cache may hold."""
        return self.shape.capacity * kv_bytes_per_page(self.config, self.shape.grid, self.dtype, self.shape.batch)

    @property
    def stage_bytes(self) -> int:
        """Bytes allocated besides: un-rotated keys, and slots of frames that are read twice or never kept."""
        raw = sum(copy.nbytes for copy in (*self._raw.values(), *self._spare))
        return self.keys.nbytes + self.values.nbytes - self.page_bytes + raw

    # --- the page table ---------------------------------------------------------------------------------------------

    def _add(self, page: Page, slot: int, turn: Turn | None) -> None:
        """Enter a page, in the place of what was held under its name."""
        self.keep(self.pages.keys() - {page.id})
        self.table.add(page, slot, turn)

    def keep(self, pages: Iterable[PageId]) -> None:
        """Drop every page that is not among ``pages``. Costs nothing on the device."""
        self.table.keep(set(pages))
        for page in self._raw.keys() - self.pages.keys():
            self._spare.append(self._raw.pop(page))
        for page in self._token_ids.keys() - self.pages.keys():
            del self._token_ids[page]

    def clear(self) -> None:
        self.keep(())
        self._writing = ()

    # --- executing plans --------------------------------------------------------------------------------------------

    def execute(self, plan: CachePlan, segment: int, scorer: TokenScorer | None = None) -> None:
        """Run a plan's merges, selections and drops, and make its window ready. `Recompute` runs before this."""
        for merge in plan.merge:
            self._merge(merge, segment)
        for select in plan.select:
            self._select(select, segment, scorer)
        self.keep((*plan.read, *plan.retain))
        self._stored = None
        self._arrange(plan.read, plan.key_index, plan.head_theta, len(plan.query_index))
        self._turn_own(plan.query_index, plan.head_theta)

    def execute_recompute(self, plan: CachePlan, segment: int) -> None:
        """Make the old pages of a plan's recache ready and write the new ones in the next forward.

        What neither the recache nor the rest of the plan needs is dropped first, to make room for the new pages.
        """
        again = plan.recompute
        assert again is not None
        sources = {page for merge in plan.merge for page, _ in merge.terms}
        sources |= {page for select in plan.select for page in select.sources}
        self.keep({*again.read, *plan.read, *plan.retain, *sources}.difference(again.store))
        self._stored = sent(torch.tensor([again.frames.index(frame) for frame in again.store]), self.device)
        self._arrange(again.read, again.key_index, plan.head_theta, len(again.store))
        self._turn_own(again.index, plan.head_theta, [again.frames.index(frame) for frame in again.store])
        self.writing(again.store, segment)

    def resume(self, plan: CachePlan) -> None:
        """After `load_state`, go on with the plan that was in force."""
        self._stored = None
        self._turn_own(plan.query_index, plan.head_theta)

    def writing(self, frames: tuple[int, ...], segment: int) -> None:
        """From now to the next plan, forwards store the keys and values of ``frames``, the call's own frames."""
        for frame, slot, turn in zip(frames, self._own, self._own_turns, strict=True):
            self._add(Page(frame, segment), slot, turn)
            if frame < self.shape.sink:
                self._raw[frame] = self._raw_copy()
        self._writing = frames

    def _arrange(
        self, read: tuple[PageId, ...], index: tuple[int, ...], theta: tuple[float, ...] | None, own: int
    ) -> None:
        """Bring the pages read to their turns and into one range of slots, with room for ``own`` new frames."""
        self._writing = ()
        made = self.table.arrange(read, index, theta, own, self._raw)
        tokens = self.shape.tokens
        if self.table.count * tokens > self.keys.shape[2]:
            self.keys, self.values = self._grown(self.keys), self._grown(self.values)
        for rotation in made.rotations:
            if rotation.page not in self._raw:
                assert rotation.old is not None
                self._raw[rotation.page] = self._turned_back(rotation.page, rotation.source, rotation.old)
        self._move(self.keys, made.key_moves)
        self._move(self.values, made.value_moves)
        for rotation in made.rotations:
            phase = self._page_phase(rotation.page, rotation.new)
            self._slot(self.keys, rotation.slot).copy_(rope.turn(self._raw[rotation.page], phase))
        self.moved_pages += len(made.value_moves)
        self.turned_pages += len(made.rotations)
        self._take(made.shift, made.own, made.slots + made.own)

    def _take(self, shift: int, own: Sequence[int], order: Sequence[int]) -> None:
        self._shift, self._own, self._order = shift, tuple(own), tuple(order)
        first = min(self._order, default=0)
        self._attended = slice(first * self.shape.tokens, (first + len(self._order)) * self.shape.tokens)

    def _turn_own(
        self, index: Sequence[int], theta: tuple[float, ...] | None, stored: Sequence[int] | None = None
    ) -> None:
        """Rotate queries and keys of the next calls at ``index``; ``stored``: which of their frames go into slots."""
        shifted = [at + self._shift for at in index]
        self._phase = self._phases(shifted, theta)
        places = range(len(shifted)) if stored is None else stored
        self._own_turns = [(shifted[place], theta) for place in places]
        self._runs = runs(self._own)
        if self._by_kernel:
            slots = dict(zip(places, self._own, strict=True))
            slots_F = torch.tensor([slots.get(place, -1) for place in range(len(shifted))], dtype=torch.int32)
            self._own_slots = sent(slots_F, self.device)

    def _grown(self, buffer: Tensor) -> Tensor:
        new = self._buffer()
        new[:, :, : buffer.shape[2]] = buffer
        return new

    def _move(self, buffer: Tensor, moves: Sequence[tuple[int, int]]) -> None:
        if moves:
            sources, targets = (sent(torch.tensor(slots), self.device) for slots in zip(*moves, strict=True))
            frames = buffer.unflatten(2, (-1, self.shape.tokens))
            frames.index_copy_(2, targets, frames.index_select(2, sources))

    # --- keys and their rotation ------------------------------------------------------------------------------------

    def _slot(self, buffer: Tensor, slot: int) -> Tensor:
        """[layers, B, S, N, K] of one slot."""
        return buffer[:, :, slot * self.shape.tokens : (slot + 1) * self.shape.tokens]

    def _raw_copy(self) -> Tensor:
        """A tensor for the un-rotated keys of a page."""
        return self._spare.pop() if self._spare else torch.empty_like(self._slot(self.keys, 0)).contiguous()

    def _turned_back(self, page: PageId, slot: int, turn: Turn) -> Tensor:
        phase = self._page_phase(page, turn).conj()
        return self._raw_copy().copy_(rope.turn(self._slot(self.keys, slot), phase))

    def _phases(self, index: Sequence[int], theta: tuple[float, ...] | None, ids_FS: Tensor | None = None) -> Tensor:
        """cos + i sin of frames at ``index``, complex [F * S, 1 or N, K/2]; ``ids_FS``: places of their tokens."""
        temporal = rope.unit(rope.temporal_angles(index, self.config.rope_dims[0], theta), self._spatial_SP.dtype)
        return rope.join_phases(
            sent(temporal, self.device), self._spatial_SP if ids_FS is None else self._spatial_SP[ids_FS]
        )

    def _page_phase(self, page: PageId, turn: Turn) -> Tensor:
        """Phases of a page, broadcastable to [layers, B, S, N, K/2]."""
        if page not in self._token_ids:
            return self._phases([turn[0]], turn[1])
        ids = self._token_ids[page]
        return self._phases([turn[0]] * ids[..., 0].numel(), turn[1], ids.flatten(0, 1)).unflatten(0, ids.shape)

    # --- attention --------------------------------------------------------------------------------------------------

    def __call__(self, layer: int, q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor) -> Tensor:
        """Attend the call's tokens to the window and to each other (or to those that a recache stores)."""
        self._write(layer, q_BLNK, k_BLNK, v_BLNK)
        return self._attend(layer, rope.turn(q_BLNK, self._phase))

    def attend_projected(self, layer: int, y_BL3D: Tensor, projections: AttentionProjections) -> Tensor:
        return self._attend(layer, self.store_projected(layer, y_BL3D, projections))

    def store_projected(self, layer: int, y_BL3D: Tensor, projections: AttentionProjections) -> Tensor:
        """Write keys and values of the call's tokens into their slots; the rotated queries [B, L, N, K]."""
        if not self._by_kernel or self._watched:
            q_BLNK, k_BLNK, v_BLNK = projections.split(y_BL3D)
            self._write(layer, q_BLNK, k_BLNK, v_BLNK)
            return rope.turn(q_BLNK, self._phase)
        norms, keys, values = projections.side_by_side()[2], self.keys[layer], self.values[layer]
        eps = projections.norm_q.eps
        return kernels.norm_turn_store(y_BL3D, norms, eps, self._phase, self._own_slots, keys, values)

    @property
    def _watched(self) -> bool:
        """Un-rotated queries or keys of this call are kept."""
        return bool(self._writing) and (self.keep_queries or any(frame in self._raw for frame in self._writing))

    def _write(self, layer: int, q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor) -> None:
        if self._writing and self.keep_queries:
            self.last_queries[layer] = q_BLNK
        k, raw, v = rope.turn(k_BLNK, self._phase), k_BLNK, v_BLNK
        if self._stored is not None:
            k, raw, v = (self._frames(x).index_select(1, self._stored).flatten(1, 2) for x in (k, raw, v))
        for place, frame in enumerate(self._writing):
            if frame in self._raw:
                self._raw[frame][layer] = self._frames(raw)[:, place]
        tokens = self.shape.tokens
        for place, slot, count in self._runs:
            source, target = (slice(start * tokens, (start + count) * tokens) for start in (place, slot))
            self.keys[layer][:, target] = k[:, source]
            self.values[layer][:, target] = v[:, source]

    def _attend(self, layer: int, q_BLNK: Tensor) -> Tensor:
        keys, values = self.keys[layer], self.values[layer]
        if self.probe is not None:
            order = torch.tensor(self._order).to(self.device)
            self.probe(layer, q_BLNK, self._frames(keys).index_select(1, order).flatten(1, 2))
        return attention(q_BLNK, keys[:, self._attended], values[:, self._attended])

    def _frames(self, x_BLNK: Tensor) -> Tensor:
        return x_BLNK.unflatten(1, (-1, self.shape.tokens))

    # --- memory pages -----------------------------------------------------------------------------------------------

    def _raw_keys(self, page: PageId) -> Tensor:
        if page not in self._raw:
            slot = self.table.slots[page][0]
            turn = self.table.turns[slot]
            assert turn is not None
            self._raw[page] = self._turned_back(page, slot, turn)
        return self._raw[page]

    def _values(self, page: PageId) -> Tensor:
        return self._slot(self.values, self.table.slots[page][0])

    def _remember(self, page: Page, raw: Tensor, values: Tensor, ids: Tensor | None = None) -> None:
        """Fill a memory page; its keys are rotated when a plan reads it."""
        self.keep(self.pages.keys() - {page.id})
        slot = self.table.free()
        self._add(page, slot, None)
        self._raw[page.id] = self._raw_copy().copy_(raw)
        self._slot(self.values, slot).copy_(values)
        if ids is not None:
            self._token_ids[page.id] = ids

    def _merge(self, merge: Merge, segment: int) -> None:
        weights = [weight for _, weight in merge.terms]
        sums = (
            weighted_sum([content(page) for page, _ in merge.terms], weights, merge.pool_tokens)
            for content in (self._raw_keys, self._values)
        )
        self._remember(Page(merge.page, segment), *sums)

    def _select(self, select: Select, segment: int, scorer: TokenScorer | None) -> None:
        """Fill pages with the best-scored tokens of the sources, per layer; tokens keep their place in the grid."""
        if scorer is None:
            raise PolicyError("a plan selects tokens but the policy has no scorer; set CachePolicy.scorer")
        if len(select.pages) > len(select.sources):
            raise PolicyError(f"cannot select {len(select.pages)} pages from {len(select.sources)}: {select}")
        tokens = self.shape.tokens
        whole = torch.arange(tokens, device=self.device).expand(self.config.num_layers, self.shape.batch, -1)
        k, v, ids = (
            torch.cat([part(page) for page in select.sources], dim=2)
            for part in (self._raw_keys, self._values, lambda page: self._token_ids.get(page, whole))
        )
        kept = best_tokens(k, v, ids, len(select.pages) * tokens, scorer, self.last_queries)
        for page, *parts in zip(select.pages, *(x.split(tokens, dim=2) for x in kept), strict=True):
            self._remember(Page(page, segment), *parts)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, JSON record) for `load_state`; slots are part of it, so that sums are taken in the same order."""
        tensors = {"keys": self.keys.clone(), "values": self.values.clone()}
        for name, kept in (("raw", self._raw), ("ids", self._token_ids)):
            tensors |= {
                f"{name}.{number}": kept[page].clone() for number, page in enumerate(self.pages) if page in kept
            }
        tensors |= {f"queries.{layer}": q.contiguous() for layer, q in self.last_queries.items()}
        return tensors, {"pages": self.table.to_json(), "shift": self._shift, "own": self._own, "order": self._order}

    def load_state(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Take up what `state` gave; then `resume` the plan in force, or execute the next one."""
        self.clear()
        self.table.count = max(self.table.count, tensors["keys"].shape[2] // self.shape.tokens)
        self.keys, self.values = self._buffer(), self._buffer()
        for buffer, saved in ((self.keys, tensors["keys"]), (self.values, tensors["values"])):
            buffer[:, :, : saved.shape[2]] = saved
        self.table.read_json(record["pages"])
        for name, kept in (("raw", self._raw), ("ids", self._token_ids)):
            for number, page in enumerate(self.pages):
                if f"{name}.{number}" in tensors:
                    kept[page] = tensors[f"{name}.{number}"].to(self.device)
        self._take(record["shift"], record["own"], record["order"])
        self.last_queries = {
            int(key.removeprefix("queries.")): q.to(self.device) for key, q in tensors.items() if key[:8] == "queries."
        }
