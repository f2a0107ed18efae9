"""The prompt sets that ship: readable by their model, on whole blocks, balanced, and as described."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from irope import catalog
from irope.catalog import CONF, entries
from irope.policy import CacheEvent
from irope.prompt_files import wrong_set
from irope.script import CLOCK, PromptScript, load_prompts
from irope.world.prompt_sets import PromptSet, Shot, prompt_sets, write
from irope.world.scene import ACTIONS, COLORS, HUES, PATTERNS, SHAPES, PromptError, Scene, parse_prompt, vocabulary

FILES = sorted((CONF / "prompts").glob("*.yaml"))
VALUES = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES}
WORLD = sorted(name for name, values in VALUES.items() if values["model"] == "tiny")
TEXT = sorted(name for name, values in VALUES.items() if values["model"] == "wan_1_3b")


def scripts(name: str) -> tuple[PromptScript, ...]:
    return load_prompts("\n".join(x if isinstance(x, str) else json.dumps(x) for x in VALUES[name]["scripts"]))


def scenes(script: PromptScript) -> list[Scene]:
    return [parse_prompt(segment.prompt) for segment in script.segments]


def test_the_sets_are_these():
    assert WORLD == ["basic", "demo", "world_128", "world_actions", "world_cuts40", "world_trailers"]
    assert TEXT == ["actions", "cuts40", "everyday_25", "trailers"]


@pytest.mark.parametrize("made", prompt_sets(), ids=lambda made: made.name)
def test_a_made_set_is_what_its_rule_makes(made: PromptSet, tmp_path: Path):
    write([made], tmp_path)
    file = f"{made.name}.yaml"
    assert (CONF / "prompts" / file).read_text(encoding="utf-8") == (tmp_path / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(VALUES))
def test_every_set_parses_and_says_what_it_is(name):
    values, found = VALUES[name], scripts(name)
    assert values["name"] == name
    assert values["file"] is None
    assert len({script.id for script in found}) == len(found) == len(values["scripts"])
    assert ("embedded world" if name in WORLD else "1.3B model") in values["description"]
    if name in TEXT:
        assert values["twin"] in WORLD
    for script in found:
        assert script.named or name == "basic"
        script.timeline(None if script.segments[0].seconds else 60)


@pytest.mark.parametrize("name", WORLD)
def test_the_embedded_model_reads_every_prompt_of_its_sets(name):
    for script in scripts(name):
        for segment, scene in zip(script.segments, scenes(script), strict=True):
            assert scene.prompt == segment.prompt  # canonical wording: what training saw


@pytest.mark.parametrize("name", TEXT)
def test_it_reads_none_of_the_others_and_is_sent_to_the_right_set(name):
    for script in scripts(name):
        for segment in script.segments:
            with pytest.raises(PromptError, match="unknown word"):
                parse_prompt(segment.prompt)
    other = VALUES[name]["twin"]
    assert wrong_set(VALUES[name], "tiny") == f"; prompts={name} is written for model=wan_1_3b: take prompts={other}"
    assert wrong_set(VALUES[name], "wan_1_3b") == wrong_set(VALUES[other], "tiny") == ""
    assert wrong_set({**VALUES[name], "file": "mine.txt"}, "tiny") == ""
    assert "irope list prompts" in wrong_set(VALUES[other], "wan_1_3b")


@pytest.mark.parametrize("name", sorted(set(VALUES) - {"basic", "world_128", "everyday_25"}))
def test_segments_start_at_the_block_nearest_to_their_time(name):
    for script in scripts(name):
        timeline, asked = script.timeline(), 0.0
        for timed, segment in zip(timeline.segments, script.segments, strict=True):
            assert segment.seconds is not None
            off = timed.start_block * CLOCK.per_block - asked
            # Trailers are ours to time, so they lie on whole blocks; 10 s are the papers', and 13 1/3 blocks.
            assert abs(off) <= (0 if name.endswith("trailers") else CLOCK.per_block / 2)
            asked += segment.seconds


@pytest.mark.parametrize("n", [7, 16, 28, 32, 64, 100, 128])
def test_any_first_prompts_of_world_128_are_balanced(n):
    first = [scene for script in scripts("world_128")[:n] for scene in scenes(script)]
    fields = {"color": COLORS, "shape": SHAPES, "action": ACTIONS, "background": HUES, "pattern": PATTERNS}
    for field, words in fields.items():
        counts = Counter(getattr(scene, field) for scene in first)
        assert max(counts[word] for word in words) - min(counts[word] for word in words) <= 1
    if n == 128:
        for a, b in combinations(fields, 2):  # no two fields run in step: every pair occurs, none four times too often
            pairs = Counter((getattr(scene, a), getattr(scene, b)) for scene in first)
            every = [pairs[x, y] for x in fields[a] for y in fields[b]]
            assert min(every) >= 1
            assert max(every) <= 2 * len(first) / len(every)


def test_world_128_has_readable_ids():
    found = scripts("world_128")
    assert len(found) == len({script.segments for script in found}) == 128
    assert found[0].id == "red-circle-left-brown-plain"
    for script in found:
        color, shape, _, background, pattern = script.id.split("-")
        (scene,) = scenes(script)
        assert (scene.color, scene.shape, scene.background, scene.pattern) == (color, shape, background, pattern)


@pytest.mark.parametrize("name", ["world_cuts40", "cuts40"])
def test_twenty_scripts_of_forty_seconds_with_a_cut_every_ten(name):
    assert len(scripts(name)) == 20
    for script in scripts(name):
        assert [segment.seconds for segment in script.segments] == [10.0] * 4
        assert [segment.cut for segment in script.segments] == [False, True, True, True]
        timeline = script.timeline()
        events = [timeline.event(block) for block in range(timeline.blocks)]
        assert events.count(CacheEvent.SCENE_CUT) == 3
        assert CacheEvent.PROMPT_SWITCH not in events


def test_a_cut_of_world_cuts40_keeps_the_subject_and_changes_the_rest():
    for script in scripts("world_cuts40"):
        shots = scenes(script)
        assert len({(s.color, s.shape) for s in shots}) == 1
        assert len({s.background for s in shots}) == len({s.action for s in shots}) == 4
        assert all(before.pattern != after.pattern for before, after in pairwise(shots))
    shapes = Counter(scenes(script)[0].shape for script in scripts("world_cuts40"))
    assert set(shapes.values()) == {5}


def test_an_action_script_changes_the_motion_alone():
    found = scripts("world_actions")
    assert len(found) == len({(s.color, s.shape) for script in found for s in scenes(script)}) == 28
    assert Counter(len(script.segments) for script in found) == {4: 23, 6: 5}
    changes: Counter[tuple[str, str]] = Counter()
    for script in found:
        shots = scenes(script)
        assert len({(s.color, s.shape, s.background, s.pattern) for s in shots}) == 1
        assert len({s.action for s in shots}) == len(shots)
        assert not any(segment.cut for segment in script.segments)
        assert {segment.seconds for segment in script.segments} == {10.0}
        changes.update((a.action, b.action) for a, b in pairwise(shots))
    assert len(changes) == 42  # every motion to every other
    assert max(changes.values()) <= 3


def test_action_scripts_in_words():
    for script in scripts("actions"):
        assert len(script.segments) in (4, 6)
        assert not any(segment.cut for segment in script.segments)
        texts = [segment.prompt for segment in script.segments]
        assert len(set(texts)) == len(texts)
        assert len({text.partition(",")[0] for text in texts}) == 1  # the same subject in every segment


@pytest.mark.parametrize("name", ["world_trailers", "trailers"])
def test_trailers_mix_cuts_and_switches(name):
    found = scripts(name)
    assert len(found) >= (8 if name == "world_trailers" else 6)
    for script in found:
        assert 6 <= len(script.segments) <= 8
        cuts = [segment.cut for segment in script.segments[1:]]
        assert any(cuts)
        assert not all(cuts)
        assert any(segment.subtitle for segment in script.segments)


def test_a_subject_of_every_world_trailer_comes_back_after_a_cut_to_another():
    for script in scripts("world_trailers"):
        who = [(s.color, s.shape) for s in scenes(script)]
        runs = [name for i, name in enumerate(who) if i == 0 or who[i - 1] != name]
        assert len(set(who)) >= 2
        assert max(Counter(runs).values()) >= 2
        for (before, after), segment in zip(pairwise(scenes(script)), script.segments[1:], strict=True):
            same = (before.color, before.shape, before.background) == (after.color, after.shape, after.background)
            assert same != segment.cut  # a switch keeps who and where, a cut changes one of them


def test_the_list_shows_model_number_and_length():
    found = {entry.name: entry.summary for entry in entries("prompts")}
    assert found["world_128"].startswith("[model=tiny; 128 prompts] ")
    assert found["world_cuts40"].startswith("[model=tiny; 20 scripts of 40 s] ")
    assert found["actions"].startswith("[model=wan_1_3b; 14 scripts of 40 to 60 s] ")


def test_a_set_written_in_other_ways_is_listed_too(tmp_path):
    (tmp_path / "own.yaml").write_text("scripts:\n- a[5s] | b[2.5s]\ndescription: mine\n")
    (tmp_path / "void.yaml").write_text("description: from a file\nmodel: wan_1_3b\n")
    found = [entry.summary for entry in catalog.prompt_entries(tmp_path)]
    assert found == ["[1 script of 7.5 s] mine", "[model=wan_1_3b; 0 prompts] from a file"]


def test_subtitles_and_texts_with_colons_survive_the_file(tmp_path):
    scene = parse_prompt("a red circle circling")
    shots = [Shot(scene, 3, subtitle='He said: "no" # 1'), Shot(scene, 4.5, cut=True)]
    write([PromptSet("odd", "one: two # three", {"a": shots})], tmp_path)
    values: dict[str, Any] = yaml.safe_load((tmp_path / "odd.yaml").read_text(encoding="utf-8"))
    assert values["description"] == "one: two # three"
    (script,) = load_prompts(json.dumps(values["scripts"][0]))
    assert [(s.seconds, s.cut, s.subtitle) for s in script.segments] == [
        (3, False, shots[0].subtitle),
        (4.5, True, None),
    ]


def test_the_guide_lists_every_set():
    guide = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (embedded|1\.3B) \| (\d+)( of [^|]*?)? \|", guide, re.M)
    assert {name: (model, int(n)) for name, model, n, _ in rows} == {
        name: ("embedded" if name in WORLD else "1.3B", len(VALUES[name]["scripts"])) for name in VALUES
    }
    listed = {entry.name: entry.summary for entry in entries("prompts")}
    for name, _, _, length in rows:
        assert length.replace(" or ", " to ") + "]" in listed[name]
    assert f"knows {len(vocabulary())} words" in guide
