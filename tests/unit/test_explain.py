"""``irope explain``: the rows, the table, the drawing, and the comparison of two policies."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from irope.explain import diff, render_diff, render_svg, render_text, trace
from irope.explain.rows import Gap, condense, grouped, spans
from irope.policy import CacheEvent, CachePlan, CachePolicy, Merge, PolicyError
from irope.registry import make_policy, policies
from irope.schedules import Run

SWITCH, CUT = CacheEvent.PROMPT_SWITCH, CacheEvent.SCENE_CUT
SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Script:
    blocks: int
    marks: dict[int, CacheEvent] = field(default_factory=dict)

    def event(self, block):
        return self.marks.get(block, CacheEvent.BLOCK)

    def segment(self, block):
        return sum(mark <= block for mark in self.marks)


MINUTE = Script(80, {20: SWITCH, 40: CUT})


def rows_of(name, script=MINUTE, steps=4, **settings):
    return trace(make_policy(name, settings), script, Run(steps=steps))


def body(text):
    """Lines of the table, blanks squeezed."""
    return [" ".join(line.split()) for line in text.split("\n\n")[0].splitlines()]


@pytest.mark.parametrize(
    ("pages", "text"),
    [
        ((), ""),
        ((0, 1, 2), "0 1 2"),
        ((0, 1, 2, 3), "0..3"),
        ((0, 4, 5, 6, 7), "0 4..7"),
        ((9, 8, 7, 6, 6, 7), "9..6 6 7"),
        ((0, 1, 2, 1, 0), "0 1 2 1 0"),
        ((0, "long", "short", 8, 9), "0 long short 8 9"),
        ((5, 5, 5), "5 5 5"),
    ],
)
def test_spans(pages, text):
    assert spans(pages) == text


def test_infinity_rope_as_text():
    assert body(render_text(rows_of("infinity_rope"))) == [
        "block frames attended temporal index",
        "0 | 0 1 2 | 0 1 2",
        "1 [0] 1 2 | 3 4 5 [0] 1 2 | 3 4 5",
        "2 [0] 4 5 | 6 7 8 [0] 1 2 | 3 4 5",
        "⋮ 3 … 18: the same, 3 frames on; indices stay",
        "19 [0] 55 56 | 57 58 59 [0] 1 2 | 3 4 5",
        "20 [0] 58 59 | 60 61 62 [0] 1 2 | 3 4 5 ◆ prompt switch",
        "21 [0] 61 62 | 63 64 65 [0] 1 2 | 3 4 5",
        "⋮ 22 … 38: the same, 3 frames on; indices stay",
        "39 [0] 115 116 | 117 118 119 [0] 1 2 | 3 4 5",
        "40 [0] 118 119 | 120 121 122 [0] 1 2 | 45 46 47 ✂ scene cut, reaches 47 back (trained: 20)",
        "41 [0] 121 122 | 123 124 125 [0] 1 2 | 3 4 5",
        "42 [0] 124 125 | 126 127 128 [0] 1 2 | 3 4 5",
        "⋮ 43 … 78: the same, 3 frames on; indices stay",
        "79 [0] 235 236 | 237 238 239 [0] 1 2 | 3 4 5",
    ]


def test_columns_are_aligned():
    lines = render_text(rows_of("kv_recache")).split("\n\n")[0].splitlines()
    table = [line for line in lines if "⋮" not in line]
    start = table[0].index("temporal index")
    assert all(line[start - 2 : start] == "  " and line[start] != " " for line in table)


def test_a_recache_is_told():
    rows = rows_of("kv_recache")
    assert rows[20].plan.recompute is not None
    assert rows[20].roles == ("sink",) * 3 + ("recomputed",) * 6
    line = next(line for line in body(render_text(rows)) if line.startswith("20 "))
    assert line.startswith(
        "20 [0 1 2] 54..59' | 60 61 62 [0 1 2] 54..59 | 60 61 62 ◆ prompt switch, encodes 48..59 again"
    )


def test_a_sink_that_falls_back_is_told():
    lines = body(render_text(rows_of("rolling", Script(80), window=6, sink=1)))
    assert (
        lines[4]
        == "⋮ 3 … 78: the same, 3 frames on; indices move on by 3; the sink falls back, at last to distance 236"
    )
    assert lines[5].endswith("reaches 239 back (trained: 20)")


def test_indices_beyond_the_horizon_at_trained_distances_are_no_alarm():
    text = render_text(rows_of("rolling", Script(80), window=6))
    assert "reaches" not in text
    assert "Indices leave the trained 0..20 from block 7 on, distances do not" in text
    assert "Indices leave" not in render_text(rows_of("infinity_rope", Script(80)))


def test_rolling_forcing_shows_windows_with_their_context_pass():
    rows = rows_of("rolling_forcing", Script(14), steps=5)
    assert [len(group) for group in grouped(rows)] == [2] * 18
    assert [row.label for row in rows[::2]] == [f"w{i}" for i in range(18)]
    text = render_text(rows, full=True)
    assert "w12 [0 1 2] 21 22 23 | 24..38 [18 19 20] 21 22 23 | 24..38" in body(text)
    assert "6..23 | 24 25 26 6..23 | 24 25 26 context pass" in body(text)


def test_causvid_shows_where_a_roll_out_begins():
    rows = rows_of("causvid", Script(20, {8: SWITCH}))
    marked = [(row.block, row.event) for row in rows if row.restart]
    assert marked == [(6, CacheEvent.BLOCK), (12, SWITCH), (18, CacheEvent.BLOCK)]
    assert [row.block for row in rows if row.event is SWITCH] == [12]
    assert rows[-1].frames == (3, 4, 5)


@dataclass(frozen=True)
class Memory(CachePolicy):
    """One memory page, the mean of two frames, and a page held but not read."""

    def plan(self, view):
        start = view.block[0]
        if len(view.frames) < 4:
            return CachePlan(view.frames, view.frames, view.block)
        merge = Merge("mean", ((start - 3, 0.5), (start - 2, 0.5)))
        return CachePlan(
            ("mean", start - 1), (start - 2, start - 1), view.block, (0, start - 2, start - 3), merge=(merge,)
        )


def test_memory_pages():
    rows = trace(Memory(), Script(5), Run())
    assert rows[2].roles == ("memory", "past")
    assert "mean 5 | 6 7 8" in render_text(rows)
    assert "mean ← 3 4" in render_text(rows)
    assert "memory page mean at temporal index 4, memory" in render_svg(rows)


def test_impossible_settings_are_refused():
    with pytest.raises(PolicyError, match="impossible window"):
        rows_of("rolling", window=3, sink=1)
    with pytest.raises(PolicyError, match="holds 21 latent frames"):
        rows_of("full")


@pytest.mark.parametrize("name", sorted(policies()))
def test_every_policy_can_be_explained(name):
    blocks = 7 if name == "full" else 30
    rows = rows_of(name, Script(blocks, {3: SWITCH, 5: CUT}), steps=5)
    assert json.loads(json.dumps([row.to_json() for row in rows]))[1]["event"] == "block"
    assert all(len(row.roles) == len(row.plan.read) for row in rows)
    assert len(render_text(rows, full=True).splitlines()) >= len(rows)
    for axis in (None, "index", "distance", "frame"):
        ElementTree.fromstring(render_svg(rows, name, "subtitle", axis))


# --- what is left out -------------------------------------------------------------------------------------------------


def labels(told):
    """Every block that is shown or told, in order."""
    found = []
    for item in told:
        found += range(int(item.first), int(item.last) + 1) if isinstance(item, Gap) else [int(item[0].label)]
    return found


@pytest.mark.parametrize("limit", [None, 1, 6, 9, 12, 30])
@pytest.mark.parametrize("name", ["infinity_rope", "kv_recache", "rolling"])
def test_no_block_is_lost_and_events_are_always_shown(name, limit):
    told = condense(grouped(rows_of(name)), limit)
    assert labels(told) == list(range(80))
    shown = {int(item[0].label) for item in told if not isinstance(item, Gap)}
    assert {0, 19, 20, 21, 39, 40, 41, 79} <= shown
    assert not any(isinstance(a, Gap) and isinstance(b, Gap) and a.last == b.first for a, b in pairwise(told))


def test_a_left_out_stretch_can_be_told_from_its_neighbours():
    rows = rows_of("infinity_rope")
    told = condense(grouped(rows))
    for before, gap in pairwise(told):
        if not isinstance(gap, Gap):
            continue
        assert gap.summary == "the same, 3 frames on; indices stay"
        start = before[0]
        for number in range(int(gap.first), int(gap.last) + 1):
            on = 3 * (number - start.block)
            plan = rows[number].plan
            assert plan.read == tuple(frame + on if frame else frame for frame in start.plan.read)
            assert (plan.key_index, plan.query_index) == (start.plan.key_index, start.plan.query_index)


def test_a_short_video_is_shown_whole():
    rows = rows_of("infinity_rope", Script(5))
    assert not [item for item in condense(grouped(rows)) if isinstance(item, Gap)]
    assert len(body(render_text(rows))) == 6


# --- the drawing ------------------------------------------------------------------------------------------------------


def drawing(rows, **options):
    return ElementTree.fromstring(render_svg(rows, "∞-RoPE <&>", "window 6", **options))


def cells(root):
    """[(y, x, text, tip)] of every frame drawn."""
    found = []
    for group in root.iter(f"{SVG}g"):
        rect, text = group.find(f"{SVG}rect"), group.find(f"{SVG}text")
        found.append((float(rect.get("y")), float(rect.get("x")), text.text, group.find(f"{SVG}title").text))
    return found


def test_cells_stand_in_the_column_of_their_index():
    root = drawing(rows_of("infinity_rope"), axis="index")
    ticks = {
        int(t.text): float(t.get("x")) for t in root.iter(f"{SVG}text") if t.get("class") == "tick" and t.text != "…"
    }
    assert sorted(ticks) == [0, 1, 2, 3, 4, 5, 45, 46, 47]
    found = cells(root)
    assert len(found) == 3 + 6 * 10
    for _, x, text, tip in found:
        index = int(tip.split("temporal index ")[1].split(",")[0])
        assert f"frame {text} at" in tip
        assert x == pytest.approx(ticks[index] - 15, abs=1)
    assert "beyond the trained 0–20" in "".join(root.itertext())
    assert "prompt switch" in "".join(root.itertext())


def test_distances_are_drawn_where_indices_would_not_fit():
    wide = drawing(rows_of("kv_recache"))
    assert "counted from the new block" in "".join(wide.itertext())
    assert "farther than in training" in "".join(wide.itertext())
    newest = {x for _, x, _, tip in cells(wide) if "new block" in tip}
    assert len(newest) == 3  # the new block always stands in the same place
    assert "counted from" not in "".join(drawing(rows_of("infinity_rope")).itertext())


def test_frames_that_share_an_index_are_counted():
    root = drawing(rows_of("infinity_rope", Script(9), window=24, sink=0, f0=9), axis="index")
    shared = [(text, tip) for _, _, text, tip in cells(root) if text.endswith("×")]
    assert shared[-1][0] == "16×"
    assert shared[-1][1].count("temporal index 0") == 16


def test_the_drawing_stays_small_and_stands_alone():
    for name in ("infinity_rope", "rolling_forcing", "kv_recache"):
        text = render_svg(rows_of(name, Script(1200), steps=5), name)
        root = ElementTree.fromstring(text)
        assert float(root.get("height")) < 900
        assert float(root.get("width")) < 2200
        assert "prefers-color-scheme: dark" in text
        assert not [word for word in ("<image", "href", "@import", "url(", "<script") if word in text]
        right = max(x for _, x, _, _ in cells(root)) + 32
        assert right <= float(root.get("width"))


# --- two policies -----------------------------------------------------------------------------------------------------


def test_the_flush_of_the_released_code_changes_nothing_in_the_cache():
    comparison = diff(rows_of("infinity_rope"), rows_of("infinity_rope", on_switch="keep"))
    assert comparison.identical
    assert comparison.verdict.startswith("Identical: the same frames at the same indices")
    assert comparison.rows == ()


def test_a_common_shift_of_all_indices_is_no_difference():
    script = Script(80, {20: SWITCH})
    comparison = diff(rows_of("infinity_rope", script, sink=0, on_switch="keep"), rows_of("rolling", script, window=6))
    assert comparison.identical
    assert comparison.verdict.startswith("Mathematically identical")
    assert "from block 2 on" in comparison.verdict
    assert "rounding" in comparison.verdict


def test_paper_and_code_differ_in_the_distance_of_the_sink():
    script = Script(80)
    comparison = diff(rows_of("infinity_rope", script), rows_of("infinity_rope", script, compat="paper"))
    assert not comparison.identical
    assert comparison.verdict.startswith(
        "Identical before block 2. They differ from block 2 on: sink: distance 3 in A, 6"
    )
    assert "The distance of the sink is the only difference" in comparison.verdict
    assert [x.block for x, _, _ in comparison.rows] == list(range(2, 80))
    text = render_diff(comparison, ("code", "paper"))
    assert text.startswith("A: code\nB: paper\n\nIdentical before")
    assert "sink: distance 3 in A, 18 in B" in text
    assert len(text.splitlines()) < 20


OFFICIAL = ("infinity_rope", {})
SLOTS = ("kv_recache", {"window": 6, "sink": 1, "index": "relative"})


def cut(**settings):
    return "infinity_rope", {f"cut_{key}": value for key, value in settings.items()}


@pytest.mark.parametrize(
    ("a", "b", "block", "how"),
    [
        (("rolling", {"window": 6}), ("rolling", {"window": 9}), 2, "only B attends 0 1 2"),
        (OFFICIAL, SLOTS, 20, "only B encodes frames again"),
        (cut(delta=6), cut(delta=21), 40, "frames 0 118 119: distance 6 in A, 21 in B"),
        (cut(frames="last2"), cut(delta=3), 40, "the block's own indices"),
    ],
)
def test_the_first_difference_is_named(a, b, block, how):
    comparison = diff(rows_of(a[0], **a[1]), rows_of(b[0], **b[1]))
    assert not comparison.identical
    first, _, words = comparison.rows[0]
    assert (first.block, words) == (block, how)
    assert f"They differ from block {block} on" in comparison.verdict


def test_different_schedules_are_not_compared_call_by_call():
    comparison = diff(rows_of("infinity_rope", Script(14)), rows_of("rolling_forcing", Script(14), steps=5))
    assert (comparison.identical, comparison.rows) == (False, ())
    assert "different schedules" in render_diff(comparison)


@dataclass(frozen=True)
class Backwards(CachePolicy):
    """Reads the same pages in another order."""

    window: int = 6

    def plan(self, view):
        past = view.frames[-3:][::-1]
        return CachePlan(past, past, view.block)


def test_attention_does_not_know_the_order_of_its_keys():
    comparison = diff(trace(Backwards(), Script(9), Run()), rows_of("rolling", Script(9), window=6))
    assert comparison.identical


def test_no_torch():
    code = "import sys, irope.explain; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
