"""The slot table: whatever is asked, what is read lies in one range, nothing is lost, and as little moves as can be."""

import random

import pytest

from irope.policy import Page, PolicyError
from irope.ring import SlotTable, runs


def fewest(before: dict[int, list[int]], read: list[int], size: int, count: int) -> int:
    """Moves of the best range there is: what is read comes in, the others leave."""
    ranges = [range(start, start + size) for start in range(count - size + 1)]
    return min(sum((slots[0] in inside) != (page in read) for page, slots in before.items()) for inside in ranges)


@pytest.mark.parametrize("seed", range(30))
def test_every_arrangement_is_one_range_and_loses_nothing(seed: int) -> None:
    choose, once = random.Random(seed), seed % 2  # every page is read once at most
    table, content = SlotTable(9), dict[int, object]()  # slot -> the page whose values lie there
    for block in range(40):
        held = [page for page in table.pages if choose.random() < 0.8][:6]
        table.keep(held)
        read = [page for page in held if choose.random() < 0.8]
        read += choose.choices(read, k=choose.randint(0, 2)) if read and not once else []
        choose.shuffle(read)
        before = {page: list(slots) for page, slots in table.slots.items()}
        made = table.arrange(read, [choose.randint(0, 9) for _ in read], None, own=3)
        if once:
            assert len(made.value_moves) == fewest(before, read, len(read) + 3, table.count)
        moved = {target: content[source] for source, target in made.value_moves}
        content |= moved
        assert sorted(made.slots + made.own) == list(
            range(min(made.slots + made.own), min(made.slots + made.own) + len(read) + 3)
        )
        assert [content[slot] for slot in made.slots] == read
        assert table.pages.keys() == table.slots.keys() == set(held)
        used = [slot for slots in table.slots.values() for slot in slots]
        assert len(used) == len(set(used))
        assert set(used) == set(table.turns)
        assert not set(used) & set(made.own)
        assert all(content[slot] == page for page, slots in table.slots.items() for slot in slots)
        for frame, slot in zip(range(3 * block, 3 * block + 3), made.own, strict=True):
            table.add(Page(frame), slot, (frame, None))
            content[slot] = frame


def test_a_window_with_a_sink_turns_the_sink_alone_and_moves_nothing() -> None:
    table = SlotTable(6)
    for block in range(50):
        frames = list(range(3 * block, 3 * block + 3))
        read = [0, *range(max(1, frames[0] - 2), frames[0])] if block else []
        table.keep(read)
        made = table.arrange(read, range(len(read)), None, 3, copied=[0])
        assert made.value_moves == ()
        assert [rotation.page for rotation in made.rotations] == [0] * (block > 1)
        assert made.shift == max(0, 3 * block - 3)  # the frame numbers, as if nothing were relative
        for frame, slot in zip(frames, made.own, strict=True):
            table.add(Page(frame), slot, (len(read) + frame - frames[0] + made.shift, None))
    assert table.count == 6


def test_a_page_without_a_copy_is_spared() -> None:
    """Two pages that moved apart: the one whose un-rotated keys are kept is turned."""
    for copied, turned in (([0], [0]), ([1], [1])):
        table = SlotTable(3)
        for page in (0, 1):
            table.add(Page(page), page, (page, None))
        made = table.arrange([0, 1], [0, 5], None, 1, copied)
        assert [rotation.page for rotation in made.rotations] == turned


def test_keys_of_another_base_do_not_fit() -> None:
    table = SlotTable(3)
    table.add(Page(0), 0, (0, (1e4, 2e4)))
    assert len(table.arrange([0], [0], (1e4, 3e4), 1).rotations) == 1
    assert table.arrange([0], [7], (1e4, 3e4), 1).rotations == ()
    assert len(table.arrange([0], [7], None, 1).rotations) == 1


def test_a_full_table_says_so() -> None:
    table = SlotTable(2)
    for page in (0, 1):
        table.add(Page(page), page, None)
    with pytest.raises(PolicyError, match=r"cache is full: 2 pages hold \[0, 1\], no room for 2"):
        table.add(Page(2), 2, None)


def test_runs() -> None:
    assert runs([]) == []
    assert runs([4, 5, 6]) == [(0, 4, 3)]
    assert runs([1, 7, 8, 3]) == [(0, 1, 1), (1, 7, 2), (3, 3, 1)]
