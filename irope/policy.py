"""What a cache policy is: a pure function from integers to integers.

Once per block of latent frames a policy reads a `CacheView` (what the cache holds, which frames come next, which event
happened) and answers with a `CachePlan` (which pages are attended, at which temporal index, what is kept, what is
encoded again). Standard library only; tensors live in `irope.cache`, angles in `irope.rope`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, ClassVar, Protocol

from irope.errors import UserError

PageId = int | str
"""A latent frame (0-based number) or a named memory page."""


class PolicyError(UserError, ValueError):
    """A policy's settings or its plan are impossible; the message says which and what would be possible."""


class CacheEvent(Enum):
    """Raised by the prompt script at the first block of a segment, never guessed by a policy."""

    BLOCK = "block"
    PROMPT_SWITCH = "prompt_switch"
    SCENE_CUT = "scene_cut"


class Call(Enum):
    """Why the transformer runs: denoising steps read the cache, the context pass also writes clean keys and values."""

    DENOISE = "denoise"
    CONTEXT = "context"


@dataclass(frozen=True)
class Page:
    """One slot's worth of keys and values: a latent frame or a memory page, and the prompt segment that encoded it."""

    id: PageId
    segment: int = 0


@dataclass(frozen=True)
class CacheView:
    """All that a policy may know.

    Attributes:
        pages: what the cache holds; memory pages by name first, then latent frames from old to new.
        block: the new latent frames, in order.
        event: what happens at this block.
        segment: prompt segment of the block.
        horizon: f_limit, the temporal length the model was trained on, in latent frames.
        call: DENOISE, or CONTEXT where a schedule plans the context pass apart (Rolling Forcing).
    """

    pages: tuple[Page, ...]
    block: tuple[int, ...]
    event: CacheEvent = CacheEvent.BLOCK
    segment: int = 0
    horizon: int = 21
    call: Call = Call.DENOISE

    @property
    def frames(self) -> tuple[int, ...]:
        """Cached latent frames older than the block, from old to new (a frame of the block itself is overwritten)."""
        start = self.block[0]
        return tuple([page.id for page in self.pages if isinstance(page.id, int) and page.id < start])


@dataclass(frozen=True)
class Recompute:
    """Encode latent frames again under the current prompt, in one bidirectional call at timestep 0 (KV Recache).

    Attributes:
        frames: query frames, at the temporal indices ``index``.
        store: those of ``frames`` whose new keys and values are attended and kept.
        read: old pages attended besides, at ``key_index``.
    """

    frames: tuple[int, ...]
    index: tuple[int, ...]
    store: tuple[int, ...]
    read: tuple[PageId, ...] = ()
    key_index: tuple[int, ...] = ()


@dataclass(frozen=True)
class Merge:
    """Write memory page ``page`` = sum of weight * source over ``terms``, keys and values alike, in every layer.

    ``pool_tokens`` replaces every token of the result by the mean over the tokens (MemRoPE's memory tokens).
    """

    page: str
    terms: tuple[tuple[PageId, float], ...]
    pool_tokens: bool = False


@dataclass(frozen=True)
class Select:
    """Fill memory pages ``pages`` with the best tokens of ``sources``, scored per layer by `CachePolicy.scorer`."""

    pages: tuple[str, ...]
    sources: tuple[PageId, ...]


class TokenScorer(Protocol):
    """The only per-layer code of a policy: scores [B, tokens] from raw queries, keys and values [B, tokens, H, D].

    A policy defines it as a method, ``def scorer(self, layer, q, k, v)``. ``q`` holds the un-rotated queries of the
    last context pass if ``needs`` contains "queries", else it is None.
    """

    def __call__(self, layer: int, q: Any, k: Any, v: Any) -> Any: ...


@dataclass(frozen=True)
class CachePlan:
    """What one block attends to and what stays in the cache. Integers and names only; `to_json` serialises it.

    Pages named neither in ``read`` nor in ``retain`` are dropped. Order of execution: ``recompute``, ``merge``,
    ``select``, then dropping, then attention.

    Attributes:
        read: pages attended besides the block itself, in order; a page may be read twice.
        key_index: temporal index of each read page.
        query_index: temporal index of each new frame; the block's own keys use the same.
        retain: pages held but not attended.
        recompute: latent frames to encode again first.
        merge: memory pages to write first.
        select: memory pages to fill with chosen tokens first.
        head_theta: base of the temporal frequencies per head (default 10000 for all).
    """

    read: tuple[PageId, ...]
    key_index: tuple[int, ...]
    query_index: tuple[int, ...]
    retain: tuple[PageId, ...] = ()
    recompute: Recompute | None = None
    merge: tuple[Merge, ...] = ()
    select: tuple[Select, ...] = ()
    head_theta: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON types; fields that are at their default are left out."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ()) or key in ("read",)}


@dataclass(frozen=True)
class CachePolicy(ABC):
    """Base of every policy: a frozen dataclass whose ``plan`` is its formula.

    A policy is registered with `irope.registry.register_policy` and may add fields of type int, float, bool, str or
    ``Literal``; they become typed configuration. ``window`` counts sink + past + the new block, in latent frames.
    """

    window: int = 21
    sink: int = 0

    name: ClassVar[str] = ""
    schedule: ClassVar[str] = "chunkwise"
    source: ClassVar[str] = ""
    steps: ClassVar[tuple[int, ...] | None] = None  # nominal denoising steps, where a method must not use the model's
    generator: ClassVar[str | None] = None  # weights its authors published it with, where not the model's own
    needs: ClassVar[frozenset[str]] = frozenset()
    scorer: ClassVar[TokenScorer | None] = None

    @abstractmethod
    def plan(self, view: CacheView) -> CachePlan:
        """The plan of one block. Pure: the same view always gives the same plan."""

    def capacity(self, block: int) -> int:
        """Pages the cache must be able to hold, the new block included (block: latent frames per block).

        A policy that merges or selects needs room for the new memory pages beside what they are made from.
        """
        return self.window

    def check(self, block: int, latents: int | None, horizon: int) -> None:
        """Raise `PolicyError` when the settings cannot work for blocks of ``block`` frames in videos of ``latents``."""
        if self.sink < 0:
            raise PolicyError(f"sink must not be negative, got {self.sink}; nearest valid value: 0")
        if self.sink + block > self.window:
            raise PolicyError(
                f"impossible window: sink {self.sink} + block {block} = {self.sink + block} latent frames do not fit "
                f"in window {self.window}; nearest valid: window {self.sink + block}"
                + (f" or sink {self.window - block}" if self.window >= block else "")
            )


def split_window(
    frames: tuple[int, ...], block: int, window: int, sink: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(sink frames, past frames): the oldest ``sink`` frames, and the newest of the others that fit in the window.

    The window counts sink + past + the new block of ``block`` frames. The sink is the oldest frames *held*, so a
    policy that drops its sink and encodes the window again has a new one.
    """
    past = window - sink - block
    rest = frames[sink:]
    return frames[:sink], rest[max(0, len(rest) - past) :]


def _order(page: Page) -> tuple[bool, PageId]:
    return isinstance(page.id, int), page.id


def pages_after(view: CacheView, plan: CachePlan, commit: bool) -> tuple[Page, ...]:
    """What the cache holds once ``plan`` is executed and, with ``commit``, the block's clean keys are written.

    Raises:
        PolicyError: the plan contradicts itself or the view; see `check_plan`.
    """
    held = {page.id: page for page in view.pages}
    again = plan.recompute
    if again is not None:  # it leaves nothing but what it reads and stores
        held = {page: entry for page, entry in held.items() if page in again.read}
        held |= {frame: Page(frame, view.segment) for frame in again.store}
    writes: tuple[Merge | Select, ...] = (*plan.merge, *plan.select)
    for write in writes:
        sources = [page for page, _ in write.terms] if isinstance(write, Merge) else write.sources
        unknown = [page for page in sources if page not in held]
        if unknown:
            raise PolicyError(f"{write} takes from pages the cache does not hold: {unknown}; it holds {list(held)}")
        made = (write.page,) if isinstance(write, Merge) else write.pages
        held |= {name: Page(name, view.segment) for name in made}
    check_plan(view, plan, held.keys())
    kept = {page: held[page] for page in (*plan.read, *plan.retain)}
    if commit:
        kept |= {frame: Page(frame, view.segment) for frame in view.block}
    return tuple(sorted(kept.values(), key=_order))


def check_plan(view: CacheView, plan: CachePlan, held: Iterable[PageId]) -> None:
    """Refuse a plan that reads what the cache does not hold or gives a wrong number of indices.

    Raises:
        PolicyError: naming the field of the plan and the pages at fault.
    """
    if len(plan.key_index) != len(plan.read):
        raise PolicyError(f"plan has {len(plan.key_index)} key indices for {len(plan.read)} pages read")
    if len(plan.query_index) != len(view.block):
        raise PolicyError(f"plan has {len(plan.query_index)} query indices for a block of {len(view.block)} frames")
    missing = [page for page in (*plan.read, *plan.retain) if page not in set(held)]
    if missing:
        raise PolicyError(f"plan reads or retains pages the cache does not hold: {missing}; it holds {list(held)}")
    again = [page for page in plan.read if page in view.block]
    if again:
        raise PolicyError(f"plan reads frames of the new block as past frames: {again}")
    r = plan.recompute
    if r is not None:
        if len(r.index) != len(r.frames) or len(r.key_index) != len(r.read) or not set(r.store) <= set(r.frames):
            raise PolicyError(f"recompute contradicts itself: {r}")
        unknown = [page for page in r.read if page not in {p.id for p in view.pages} or page in r.store]
        if unknown:
            raise PolicyError(f"recompute reads pages the cache does not hold: {unknown}")
