"""The KV arena: preallocated pages of un-rotated keys and values that execute a cache plan.

Shape letters: P pages, B batch, S tokens per latent frame, N heads, K head dimension, L tokens of a call, R pages read.

Rotation happens when a plan is executed: past keys once per block, into a staging buffer; the block's own keys in every
call, behind them. Pages never move: evicting, flushing and re-indexing change integers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from irope import rope
from irope.policy import CachePlan, Merge, Page, PageId, PolicyError, Select, TokenScorer
from irope.transformer import WanConfig, attention

Probe = Callable[[int, Tensor, Tensor], None]
"""Sees the rotated queries [B, L, N, K] and keys [B, M, N, K] of a layer and takes no part: (layer, queries, keys)."""


@dataclass(frozen=True)
class ArenaShape:
    """Static size of an arena: capacity in pages, token grid of a latent frame, batch."""

    capacity: int
    grid: tuple[int, int]
    batch: int = 1

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]


def kv_bytes_per_page(config: WanConfig, grid: tuple[int, int], dtype: torch.dtype, batch: int = 1) -> int:
    """Bytes of the keys and values of one latent frame over all layers (287.5 MB for the 1.3B model in bfloat16)."""
    return 2 * config.num_layers * batch * math.prod(grid) * config.dim * dtype.itemsize


class KVArena:
    """Holds pages, executes plans, and is the self-attention of every layer (`irope.transformer.SelfAttention`).

    Life of a block: `execute` a plan, then any number of forwards with the arena as ``attend``; a forward between
    `writing` and the next plan also stores the block's raw keys and values under their frame numbers.
    """

    def __init__(self, config: WanConfig, shape: ArenaShape, dtype: torch.dtype, device: torch.device) -> None:
        self.config, self.shape, self.dtype, self.device = config, shape, dtype, device
        page = (config.num_layers, shape.capacity, shape.batch, shape.tokens, config.num_heads, config.head_dim)
        self.k_pages = torch.zeros(page, dtype=dtype, device=device)
        self.v_pages = torch.zeros(page, dtype=dtype, device=device)
        # Grid position of every token, [layers, P, B, S], once a plan has selected tokens.
        self.token_ids: Tensor | None = None
        self.pages: dict[PageId, Page] = {}
        self.slots: dict[PageId, int] = {}
        self.last_queries: dict[int, Tensor] = {}
        self.keep_queries = False
        self.probe: Probe | None = None
        self._stage_k: list[Tensor] = []
        self._stage_v: list[Tensor] = []
        self._spatial_SP = rope.spatial_angles(shape.grid, config.rope_dims)
        self._past = 0
        self._angles: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self._own: Tensor | None = None
        self._write: Tensor | None = None

    @property
    def page_bytes(self) -> int:
        """Bytes of all pages, as allocated."""
        return self.k_pages.nbytes + self.v_pages.nbytes

    @property
    def stage_bytes(self) -> int:
        """Bytes of the rotated copies that the present window is attended from."""
        return sum(stage.nbytes for stage in (*self._stage_k, *self._stage_v))

    # --- the page table ---------------------------------------------------------------------------------------------

    def _slot(self, page: Page) -> int:
        """Slot of a page, taken from the free ones when it is new."""
        if page.id not in self.slots:
            free = set(range(self.shape.capacity)) - set(self.slots.values())
            if not free:
                raise PolicyError(
                    f"the cache is full: {self.shape.capacity} pages hold {list(self.slots)}, no room for {page.id!r}"
                )
            self.slots[page.id] = min(free)
            if self.token_ids is not None:
                self.token_ids[:, self.slots[page.id]] = torch.arange(self.shape.tokens, device=self.device)
        self.pages[page.id] = page
        return self.slots[page.id]

    def _index(self, pages: Iterable[PageId]) -> Tensor:
        return torch.tensor([self.slots[page] for page in pages], dtype=torch.long).to(self.device)

    def keep(self, pages: Iterable[PageId]) -> None:
        """Drop every page that is not among ``pages``. Costs nothing on the device."""
        kept = set(pages)
        self.slots = {page: slot for page, slot in self.slots.items() if page in kept}
        self.pages = {page: entry for page, entry in self.pages.items() if page in kept}

    def clear(self) -> None:
        self.keep(())
        self._past, self._write = 0, None

    # --- executing plans --------------------------------------------------------------------------------------------

    def execute(self, plan: CachePlan, segment: int, scorer: TokenScorer | None = None) -> None:
        """Run a plan's merges, selections and drops, and stage its rotated window. `Recompute` runs before this."""
        for merge in plan.merge:
            self._merge(merge, segment)
        for select in plan.select:
            self._select(select, segment, scorer)
        self.keep((*plan.read, *plan.retain))
        self.stage(plan)

    def stage(self, plan: CachePlan) -> None:
        """Rotate the window of a plan whose pages are in place (the last step of `execute`, and after `load_state`)."""
        self._stage(plan.read, plan.key_index, plan.head_theta)
        self._prepare(plan.query_index, plan.head_theta)

    def execute_recompute(self, plan: CachePlan, segment: int) -> None:
        """Stage the old pages of a plan's recache and write the new ones in the next forward.

        What neither the recache nor the rest of the plan needs is dropped first, to make room for the new pages.
        """
        again = plan.recompute
        assert again is not None
        sources = {page for merge in plan.merge for page, _ in merge.terms}
        sources |= {page for select in plan.select for page in select.sources}
        self.keep({*again.read, *again.store, *plan.read, *plan.retain, *sources})
        self._stage(again.read, again.key_index, plan.head_theta)
        self._prepare(again.index, plan.head_theta)
        self._own = torch.tensor([again.frames.index(frame) for frame in again.store]).to(self.device)
        self.writing(again.store, segment)

    def writing(self, frames: tuple[int, ...], segment: int) -> None:
        """From now to the next plan, forwards store the raw keys and values of ``frames``, the call's own frames."""
        for frame in frames:
            self._slot(Page(frame, segment))
        self._write = self._index(frames)

    def _prepare(self, query_index: tuple[int, ...], head_theta: tuple[float, ...] | None) -> None:
        angles = rope.join_angles(
            rope.temporal_angles(query_index, self.config.rope_dims[0], head_theta), self._spatial_SP
        )
        self._angles = (angles[0].to(self.device), angles[1].to(self.device))
        self._own = self._write = None

    def _stage(self, read: tuple[PageId, ...], index: tuple[int, ...], head_theta: tuple[float, ...] | None) -> None:
        """Rotate the pages that the plan reads, once, to the front of the staging buffers."""
        self._past = len(read) * self.shape.tokens
        if not read:
            return
        self._reserve(self._past)
        slots = self._index(read)
        temporal = rope.temporal_angles(index, self.config.rope_dims[0], head_theta)
        cos, sin = (part.to(self.device) for part in rope.join_angles(temporal, self._spatial_SP))
        for layer in range(self.config.num_layers):
            if self.token_ids is not None:
                cos, sin = self._token_angles(temporal, self.token_ids[layer, slots])
            k_BRNK, v_BRNK = (
                pages[layer].index_select(0, slots).transpose(0, 1).flatten(1, 2)
                for pages in (self.k_pages, self.v_pages)
            )
            self._stage_k[layer][:, : self._past] = rope.rotate(k_BRNK, cos, sin)
            self._stage_v[layer][:, : self._past] = v_BRNK

    def _token_angles(self, temporal: Tensor, ids_RBS: Tensor) -> tuple[Tensor, Tensor]:
        """Angles [B, R*S, N or 1, K/2] of pages whose tokens come from different places of the grid."""
        spatial_BRSP = self._spatial_SP[ids_RBS.transpose(0, 1).cpu()]
        parts = [rope.join_angles(temporal, spatial_RSP) for spatial_RSP in spatial_BRSP]
        return (
            torch.stack([cos for cos, _ in parts]).to(self.device),
            torch.stack([sin for _, sin in parts]).to(self.device),
        )

    def _reserve(self, tokens: int) -> None:
        """Grow the staging buffers; they reach their final size when the window is full and stay there."""
        if self._stage_k and self._stage_k[0].shape[1] >= tokens:
            return
        shape = (self.shape.batch, tokens, self.config.num_heads, self.config.head_dim)
        for stages in (self._stage_k, self._stage_v):
            old, layers = list(stages), range(self.config.num_layers)
            stages[:] = [torch.empty(shape, dtype=self.dtype, device=self.device) for _ in layers]
            for new, previous in zip(stages, old, strict=False):
                new[:, : previous.shape[1]] = previous

    # --- attention --------------------------------------------------------------------------------------------------

    def __call__(self, layer: int, q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor) -> Tensor:
        """Attend the call's tokens to the staged window and to each other (or to those that a recache stores)."""
        if self.keep_queries and self._write is not None:
            self.last_queries[layer] = q_BLNK
        q = rope.rotate(q_BLNK, *self._angles)
        k, v, raw = rope.rotate(k_BLNK, *self._angles), v_BLNK, k_BLNK
        if self._own is not None:
            k, v, raw = (self._frames(x).index_select(1, self._own).flatten(1, 2) for x in (k, v, raw))
        if self._write is not None:
            self.k_pages[layer].index_copy_(0, self._write, self._frames(raw).transpose(0, 1).to(self.dtype))
            self.v_pages[layer].index_copy_(0, self._write, self._frames(v).transpose(0, 1).to(self.dtype))
        end = self._past + k.shape[1]
        self._reserve(end)
        keys, values = self._stage_k[layer][:, :end], self._stage_v[layer][:, :end]
        keys[:, self._past :] = k
        values[:, self._past :] = v
        if self.probe is not None:
            self.probe(layer, q, keys)
        return attention(q, keys, values)

    def _frames(self, x_BLNK: Tensor) -> Tensor:
        return x_BLNK.unflatten(1, (-1, self.shape.tokens))

    # --- memory pages -----------------------------------------------------------------------------------------------

    def _merge(self, merge: Merge, segment: int) -> None:
        """Weighted sum of pages in float32, keys and values of all layers at once."""
        sources = self._index(page for page, _ in merge.terms)
        weights = torch.tensor([weight for _, weight in merge.terms], dtype=torch.float32, device=self.device)
        sums = []
        for pages in (self.k_pages, self.v_pages):
            total = torch.einsum("lpbsnk,p->lbsnk", pages.index_select(1, sources).float(), weights)
            sums.append(total.mean(2, keepdim=True).expand_as(total) if merge.pool_tokens else total)
        slot = self._slot(Page(merge.page, segment))
        self.k_pages[:, slot] = sums[0].to(self.dtype)
        self.v_pages[:, slot] = sums[1].to(self.dtype)

    def _select(self, select: Select, segment: int, scorer: TokenScorer | None) -> None:
        """Fill pages with the best-scored tokens of the sources, per layer; tokens keep their place in the grid."""
        if scorer is None:
            raise PolicyError("a plan selects tokens but the policy has no scorer; set CachePolicy.scorer")
        if self.token_ids is None:
            ids = torch.arange(self.shape.tokens, device=self.device)
            self.token_ids = ids.expand(*self.k_pages.shape[:3], -1).contiguous()
        sources = self._index(select.sources)
        wanted = len(select.pages) * self.shape.tokens
        if wanted > len(select.sources) * self.shape.tokens:
            raise PolicyError(f"cannot select {wanted} tokens from {len(select.sources)} pages: {select}")
        kept = []
        for layer in range(self.config.num_layers):
            k, v, ids = (
                pages[layer].index_select(0, sources).transpose(0, 1).flatten(1, 2)
                for pages in (self.k_pages, self.v_pages, self.token_ids)
            )
            best = scorer(layer, self.last_queries.get(layer), k, v).topk(wanted, dim=1).indices.sort(dim=1).values
            rows = best[:, :, None, None].expand(-1, -1, *k.shape[2:])
            kept.append((k.gather(1, rows), v.gather(1, rows), ids.gather(1, best)))
        slots = torch.tensor([self._slot(Page(page, segment)) for page in select.pages]).to(self.device)
        for layer, (k, v, ids) in enumerate(kept):
            for pages, x in ((self.k_pages, k), (self.v_pages, v), (self.token_ids, ids)):
                pages[layer].index_copy_(0, slots, x.unflatten(1, (-1, self.shape.tokens)).transpose(0, 1))

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """(tensors, JSON record) of the pages in use, for `load_state`."""
        order = list(self.slots)
        slots = self._index(order)
        tensors = {"k": self.k_pages.index_select(1, slots), "v": self.v_pages.index_select(1, slots)}
        if self.token_ids is not None:
            tensors["token_ids"] = self.token_ids.index_select(1, slots)
        tensors |= {f"queries.{layer}": q.contiguous() for layer, q in self.last_queries.items()}
        return tensors, {"pages": [[page, self.pages[page].segment] for page in order]}

    def load_state(self, tensors: Mapping[str, Tensor], record: Mapping[str, list[tuple[PageId, int]]]) -> None:
        """Take up what `state` gave. The next plan must be executed before the next forward."""
        self.clear()
        slots = torch.tensor([self._slot(Page(page, segment)) for page, segment in record["pages"]], dtype=torch.long)
        self.k_pages.index_copy_(1, slots.to(self.device), tensors["k"].to(self.device))
        self.v_pages.index_copy_(1, slots.to(self.device), tensors["v"].to(self.device))
        if "token_ids" in tensors:
            self.token_ids = torch.zeros(self.k_pages.shape[:4], dtype=torch.long, device=self.device)
            self.token_ids.index_copy_(1, slots.to(self.device), tensors["token_ids"].to(self.device))
        self.last_queries = {
            int(key.removeprefix("queries.")): q.to(self.device) for key, q in tensors.items() if key[:8] == "queries."
        }
