"""Where the pages of a cache lie: a table of slots, integers only, and the arrangement that a plan asks for.

A slot holds the keys and values of one latent frame, the keys rotated at one temporal index. What a plan attends to
must lie in one range of slots; the order within it does not matter. Tensors live in `irope.cache`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from irope.policy import Page, PageId, PolicyError

Turn = tuple[int, tuple[float, ...] | None]
"""How the keys of a slot are rotated: temporal index, and the base of the frequencies per head (None: the usual)."""


@dataclass(frozen=True)
class Rotation:
    """Keys of a page that must be rotated anew, from ``source`` as it was before anything moves, to ``slot``."""

    page: PageId
    source: int
    old: Turn | None
    slot: int
    new: Turn


@dataclass(frozen=True)
class Arrangement:
    """What to do before a plan is attended, in this order: rotate from where pages are, move, and write.

    Attributes:
        shift: to be added to every temporal index of the plan.
        slots: of the pages read, in the order of the plan; ``own``: free ones in the range, for the new frames.
        value_moves, key_moves: (from, to); read all sources before writing any target.
        rotations: keys that do not stay as they are.
    """

    shift: int
    slots: tuple[int, ...]
    own: tuple[int, ...]
    value_moves: tuple[tuple[int, int], ...]
    key_moves: tuple[tuple[int, int], ...]
    rotations: tuple[Rotation, ...]


class SlotTable:
    """Pages and the slots they occupy, one each, or several for a page that is read several times.

    Attributes:
        count: slots there are. It grows beyond ``capacity`` only for frames that are read twice, or attended and never
            kept, and reaches its final size when the window is full.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = self.count = capacity
        self.pages: dict[PageId, Page] = {}
        self.slots: dict[PageId, list[int]] = {}
        self.turns: dict[int, Turn | None] = {}  # of the slots in use; None: the keys are still to be rotated there

    def add(self, page: Page, slot: int, turn: Turn | None) -> None:
        """Enter a page at a free slot.

        Raises:
            PolicyError: there are as many pages as the cache may hold.
        """
        if len(self.pages) == self.capacity:
            raise PolicyError(
                f"the cache is full: {self.capacity} pages hold {list(self.pages)}, no room for {page.id!r}"
            )
        self.pages[page.id], self.slots[page.id], self.turns[slot] = page, [slot], turn

    def keep(self, pages: Collection[PageId]) -> None:
        """Forget all other pages, in a time that hardly depends on how many they are."""
        self.pages = {page: entry for page, entry in self.pages.items() if page in pages}
        self.slots = {page: self.slots[page] for page in self.pages}
        self.turns = {slot: self.turns[slot] for slots in self.slots.values() for slot in slots}

    def free(self) -> int:
        """The lowest slot that holds nothing."""
        return next(slot for slot in range(self.count + 1) if slot not in self.turns)

    def arrange(
        self,
        read: Sequence[PageId],
        index: Sequence[int],
        theta: tuple[float, ...] | None,
        own: int,
        copied: Container[PageId] = (),
    ) -> Arrangement:
        """Give the pages read their turns, and one range of slots together with room for ``own`` new frames.

        Args:
            copied: pages of which an un-rotated copy is kept, so that turning them costs no accuracy.
        """
        shift = self._common_shift(read, index, theta, copied)
        turns: list[Turn] = [(at + shift, theta) for at in index]
        before = self._claim(read, turns)
        sources = [self.slots[page][0] if slot is None else slot for page, slot in zip(read, before, strict=True)]
        old = [self.turns[slot] for slot in sources]
        for page in dict.fromkeys(read):
            for slot in self.slots.pop(page):
                del self.turns[slot]

        others = {slot: page for page, slots in self.slots.items() for slot in slots}
        size = len(read) + own
        self.count = max(self.count, size + len(others))
        first = self._range(size, {slot for slot in before if slot is not None}, others)
        window = range(first, first + size)
        value_moves: list[tuple[int, int]] = []
        outside = [slot for slot in range(self.count) if slot not in window and slot not in others]
        for slot, target in zip([slot for slot in others if slot in window], outside, strict=False):
            places = self.slots[others[slot]]
            places[places.index(slot)] = target
            self.turns[target] = self.turns.pop(slot)
            value_moves.append((slot, target))
        key_moves = list(value_moves)

        room = [slot for slot in window if slot not in before]
        slots = []
        for was, source, now, turn in zip(before, sources, old, turns, strict=True):
            if was is not None and was in window:
                slots.append(was)
                continue
            slots.append(room.pop(0))
            value_moves.append((source, slots[-1]))
            if now == turn:
                key_moves.append(value_moves[-1])
        for page, slot, turn in zip(read, slots, turns, strict=True):
            self.slots.setdefault(page, []).append(slot)
            self.turns[slot] = turn
        rotations = tuple(
            Rotation(*each) for each in zip(read, sources, old, slots, turns, strict=True) if each[2] != each[4]
        )
        return Arrangement(shift, tuple(slots), tuple(room), tuple(value_moves), tuple(key_moves), rotations)

    def _common_shift(
        self,
        read: Sequence[PageId],
        index: Sequence[int],
        theta: tuple[float, ...] | None,
        copied: Container[PageId],
    ) -> int:
        """The shift under which most pages stay as they are; those that are not copied count first."""
        uncopied, every = Counter[int](), Counter[int]()
        for page, at in zip(read, index, strict=True):
            found = [turn for slot in self.slots[page] if (turn := self.turns[slot]) is not None and turn[1] == theta]
            for shift in {turn[0] - at for turn in found}:
                every[shift] += 1
                uncopied[shift] += page not in copied
        return max(every, key=lambda shift: (uncopied[shift], every[shift], shift), default=0)

    def _claim(self, read: Sequence[PageId], turns: Sequence[Turn]) -> list[int | None]:
        """A slot of its own for every page read, one with its turn where there is one; None: it needs another slot."""
        left = {page: list(self.slots[page]) for page in read}
        claimed: list[int | None] = [None] * len(read)
        for exact in (True, False):
            for place, (page, turn) in enumerate(zip(read, turns, strict=True)):
                found = [slot for slot in left[page] if not exact or self.turns[slot] == turn]
                if claimed[place] is None and found:
                    claimed[place] = found[0]
                    left[page].remove(found[0])
        return claimed

    def _range(self, size: int, inside: Container[int], others: Container[int]) -> int:
        """First slot of the range that moves the fewest pages: read ones into it, others out of it."""
        cost = [0, *accumulate((slot in others) - (slot in inside) for slot in range(self.count))]
        return min(range(self.count - size + 1), key=lambda start: cost[start + size] - cost[start])

    def to_json(self) -> list[Any]:
        """[page, segment, [[slot, index, bases], ..]] of every page, for `read_json`."""
        return [
            [page, entry.segment, [[slot, *(self.turns[slot] or (None, None))] for slot in self.slots[page]]]
            for page, entry in self.pages.items()
        ]

    def read_json(self, record: list[Any]) -> None:
        """Take up what `to_json` gave, in an empty table."""
        for page, segment, slots in record:
            self.pages[page], self.slots[page] = Page(page, segment), [slot for slot, _, _ in slots]
            for slot, index, theta in slots:
                self.turns[slot] = None if index is None else (index, None if theta is None else tuple(theta))


def runs(slots: Iterable[int]) -> list[tuple[int, int, int]]:
    """Stretches of neighbouring slots, as (place in ``slots``, first slot, length)."""
    found: list[tuple[int, int, int]] = []
    for place, slot in enumerate(slots):
        if found and found[-1][1] + found[-1][2] == slot:
            found[-1] = (*found[-1][:2], found[-1][2] + 1)
        else:
            found.append((place, slot, 1))
    return found
