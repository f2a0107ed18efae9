"""Prompt files of VBench, MovieGen and LongLive, in small: what is read, what is merged, what is refused."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from irope.errors import UserError
from irope.prompt_files import VBENCH_LISTS, BenchScript, PromptFile, SelectionError, read_prompts, readable_id, select
from irope.script import PromptScript, ScriptError, Segment, load_prompts

VBENCH = [
    {"prompt_en": "a toilet, frozen in time", "dimension": ["temporal_flickering"]},
    {"prompt_en": "a bird", "dimension": ["object_class"], "auxiliary_info": {"object_class": {"object": "bird"}}},
    {"prompt_en": "a person swimming in ocean", "dimension": ["subject_consistency", "motion_smoothness"]},
    {"prompt_en": "a façade; with “quotes”", "dimension": ["scene", "background_consistency"]},
    {"prompt_en": "a bird", "dimension": ["color"]},
]


@pytest.fixture
def vbench(tmp_path: Path) -> Path:
    return write(tmp_path / "VBench_full_info.json", json.dumps(VBENCH))


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def prompts(found: PromptFile) -> list[list[str]]:
    return [[segment.prompt for segment in script.segments] for script in found.scripts]


def dimensions(script: PromptScript) -> tuple[str, ...]:
    assert isinstance(script, BenchScript)
    return script.dimensions


def test_vbench_full_info(vbench):
    found = read_prompts(vbench)
    assert found.kind == "vbench"
    assert prompts(found) == [[e["prompt_en"]] for e in VBENCH[:4]]
    assert [dimensions(script) for script in found.scripts] == [
        ("temporal_flickering",),
        ("object_class", "color"),  # of both entries
        ("subject_consistency", "motion_smoothness"),
        ("scene", "background_consistency"),
    ]
    assert found.notes[0] == "5 entries, 4 different prompts"
    assert "repeats line 1" in found.notes[1]
    assert found.scripts[1].id in found.notes[1]


@pytest.mark.skipif(find_spec("vbench") is None, reason="the vbench package, which holds the file, is not installed")
def test_the_real_vbench_file():
    """Counts as VBench publishes them: 946 entries; of the paper's eight dimensions 326 prompts."""
    package = find_spec("vbench")
    assert package is not None
    assert package.origin is not None
    found = read_prompts(Path(package.origin).with_name("VBench_full_info.json"))
    assert found.notes[0] == "946 entries, 944 different prompts"
    counts = Counter(name for script in found.scripts for name in dimensions(script))
    assert (counts["human_action"], counts["scene"], counts["color"], counts["imaging_quality"]) == (100, 86, 85, 93)
    eight = {"background_consistency", "imaging_quality", "temporal_flickering", "dynamic_degree"}  # the others' twins
    assert sum(bool(eight & set(dimensions(script))) for script in found.scripts) == 326
    for list_name, names in VBENCH_LISTS.items():
        for name in names:
            same = select(found.scripts, dimension=name) == select(found.scripts, dimension=list_name)
            assert same, f"{name} is scored on the prompts of {list_name}"


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("name", ["VBench_full_info.json", "prompts.txt", "no-suffix"])
def test_content_decides_not_the_name(tmp_path, name, indent):
    found = read_prompts(write(tmp_path / name, "\n  " + json.dumps(VBENCH, indent=indent) + "\n"))
    assert (found.kind, len(found.scripts)) == ("vbench", 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"prompt_en": "a", "dimension": []},\n{"prompt": "b"}]', r"info\.json:3: entry 2: expected .*prompt_en"),
        ('[\n{"prompt_en": "a", "dimension": "color"}]', r"info\.json:2: entry 1: \"dimension\": expected a list"),
        ('[\n{"prompt_en": "a"},\n\n{"prompt_en: 3}]', r"info\.json:4: not valid JSON.*VBench_full_info"),
        ('[{"prompt_en": "a"}\n{"prompt_en": "b"}]', r"info\.json:2: .*expected ',' or '\]' behind entry 1"),
        ('[{"prompt_en": "a"}', r"info\.json:1: .*is the file complete"),
        ("[{}]", r"info\.json:1: entry 1"),
        ("[]", r"info\.json:1: no prompt found"),
        ('[{"prompt_en": "a"}]\n, 3', r"info\.json:1: unexpected text behind"),
        ("[slow] a cat", r"info\.json:1: not valid JSON"),
    ],
)
def test_a_broken_vbench_file_names_its_line(tmp_path, text, message):
    with pytest.raises(ScriptError, match=message):
        read_prompts(write(tmp_path / "info.json", text))


def test_a_list_of_plain_prompts(tmp_path):
    long = "A stylish woman; " + "word " * 250 + "end\u2028still the same prompt."
    text = f"\ufeff{long}\r\n\r\n  a dog, running  \r\nein Mädchen 红色\r\n\r\n"
    found = read_prompts(write(tmp_path / "MovieGenVideoBench.txt", text))
    assert found.kind == "list"
    assert prompts(found) == [[long], ["a dog, running"], ["ein Mädchen 红色"]]
    assert [script.source.line for script in found.scripts] == [1, 3, 4]
    assert all(script.segments[0].seconds is None for script in found.scripts)
    assert found.notes == ()
    ids = [script.id for script in found.scripts]
    assert ids[0].startswith("a-stylish-woman-word-word-")
    assert ids[1].startswith("a-dog-running-")
    assert ids[2].startswith("ein-madchen-")
    assert max(map(len, ids)) <= 60


def test_repeated_prompts_are_merged_and_said(tmp_path):
    found = read_prompts(write(tmp_path / "all_dimension.txt", "a cat\na dog\na cat\n a dog\n"))
    assert prompts(found) == [["a cat"], ["a dog"]]
    assert found.notes[0] == "4 entries, 2 different prompts"
    assert found.notes[1].startswith(f"{tmp_path / 'all_dimension.txt'}:3 repeats line 1: a-cat-")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("subject_consistency.txt", ("subject_consistency", "dynamic_degree", "motion_smoothness")),
        ("overall_consistency_longer.txt", ("overall_consistency", "aesthetic_quality", "imaging_quality")),
        ("temporal_flickering.txt", ("temporal_flickering",)),
        ("mine.txt", ()),
    ],
)
def test_a_list_of_one_dimension(tmp_path, name, expected):
    (script,) = read_prompts(write(tmp_path / name, "a cat")).scripts
    assert dimensions(script) == expected


def test_several_prompts_a_line(tmp_path):
    lines = [{"prompts": ["a cat", "a dog", "a bird"]}, {"prompts": ["a cat", "it sleeps"], "other": 3}]
    text = "\n".join(json.dumps(line) for line in lines) + "\n\n"
    found = read_prompts(write(tmp_path / "interactive_example.jsonl", text))
    assert found.kind == "interactive"
    assert prompts(found) == [["a cat", "a dog", "a bird"], ["a cat", "it sleeps"]]
    first, second = found.scripts
    assert first.id != second.id
    assert first.noise_key == second.noise_key == "a cat"  # the same start, whatever follows
    assert not any(segment.cut for segment in first.segments)
    assert [s.start_block for s in first.timeline(seconds=60).segments] == [0, 27, 53]


@pytest.mark.parametrize("bad", ['{"prompts": []}', '{"prompts": "a"}', '{"prompts": ["a", " "]}', "[1]", "{"])
def test_a_broken_line_of_several_prompts(tmp_path, bad):
    file = write(tmp_path / "x.jsonl", '{"prompts": ["a"]}\n\n' + bad)
    with pytest.raises(ScriptError, match=r"x\.jsonl:3:1: |x\.jsonl:3:2: not valid JSON"):
        read_prompts(file)


def test_our_own_scripts_are_read_as_before(tmp_path):
    text = 'a cat runs[5s] | it sleeps[10s#] ; one | two\n{"id": "dog", "prompt": "a dog"}\na plain prompt; with more\n'
    file = write(tmp_path / "mine.jsonl.txt", text)
    found = read_prompts(file)
    assert found.kind == "scripts"
    before = load_prompts(file)
    assert [script.segments for script in found.scripts] == [script.segments for script in before]
    assert [script.noise_key for script in found.scripts] == [script.noise_key for script in before]
    assert [script.id for script in found.scripts[1:2]] == ["dog"]
    assert found.scripts[0].id.startswith("a-cat-runs-")
    assert not found.scripts[0].segments[0].cut
    with pytest.raises(ScriptError, match=r"mine2:1:5: .*cut_mark=published"):
        read_prompts(write(tmp_path / "mine2", "a[5s#] | b[5s]"))
    (published,) = read_prompts(tmp_path / "mine2", cut_mark="published").scripts
    assert [segment.cut for segment in published.segments] == [False, True]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, r"cannot read the prompts of .*gone\.txt: No such file"),
        (b"", r"gone\.txt:1: no prompt found"),
        (b"\n \r\n", r"gone\.txt:1: no prompt found"),
        (b"a cat\na d\xffg\n", r"gone\.txt:2:4: byte 0xff is not UTF-8"),
        (b'{"prompts": ["a"\n', r"gone\.txt:1:17: not valid JSON"),
    ],
)
def test_unreadable_files(tmp_path, data, message):
    file = tmp_path / "gone.txt"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(ScriptError, match=message):
        read_prompts(file)


def test_extended_prompts_keep_the_short_ones_id(tmp_path, vbench):
    longer = [f"{entry['prompt_en']} at great length, number {n}" for n, entry in enumerate(VBENCH)]
    twin = write(tmp_path / "all_dimension_extended.txt", "\r\n".join(longer) + "\r\n")
    short, found = read_prompts(vbench), read_prompts(vbench, extended=twin)
    assert prompts(found) == [[text] for text in longer[:4]]
    assert [s.id for s in found.scripts] == [s.id for s in short.scripts] == [s.noise_key for s in found.scripts]
    assert [dimensions(s) for s in found.scripts] == [dimensions(s) for s in short.scripts]
    assert [s.short for s in found.scripts if isinstance(s, BenchScript)] == [e["prompt_en"] for e in VBENCH[:4]]
    assert "with another extended prompt, which is not used" in found.notes[1]


def test_lists_pair_line_by_line(tmp_path):
    short = write(tmp_path / "short.txt", "a\n\nb\n")
    found = read_prompts(short, extended=write(tmp_path / "long.txt", "long a\n\nlong b\n\n\n"))
    assert prompts(found) == [["long a"], ["long b"]]


@pytest.mark.parametrize(
    ("short", "long", "message"),
    [
        ("a\nb\n", "long a\n", r"long\.txt:1: 1 lines do not pair with the 2 prompts of .*short\.txt"),
        ("a\nb\nc", "long a\n\nlong c", r"long\.txt:2: one of this line and .*short\.txt:2 is blank"),
        ("a\n\nc", "long a\nlong b\nlong c", r"long\.txt:2: one of this line and .*short\.txt:2 is blank"),
        ("a", '[{"prompt_en": "a"}]', r"long\.txt:1: expected one plain prompt a line .*found vbench"),
        ("a[5s] | b[5s]", "long a", "holds scripts, which have no extended twin"),
        ('{"prompts": ["a", "b"]}', "long a", r"short\.txt:1:1: several prompts in a line"),
    ],
)
def test_what_does_not_pair_is_refused(tmp_path, short, long, message):
    with pytest.raises(ScriptError, match=message):
        read_prompts(write(tmp_path / "short.txt", short), extended=write(tmp_path / "long.txt", long))


def test_ids_do_not_depend_on_the_order_or_the_file(tmp_path):
    texts = [f"prompt number {n}" for n in range(30)]
    shuffled = texts.copy()
    random.Random(1).shuffle(shuffled)
    one = read_prompts(write(tmp_path / "one.txt", "\n".join(texts)))
    two = read_prompts(write(tmp_path / "two.json", json.dumps([{"prompt_en": text} for text in shuffled])))
    assert {s.segments[0].prompt: s.id for s in one.scripts} == {s.segments[0].prompt: s.id for s in two.scripts}
    assert len({s.id for s in one.scripts}) == 30


def test_an_id_tells_scripts_apart_that_begin_alike():
    a, b = Segment("A cat — runs!", 5), Segment("it sleeps")
    assert readable_id([a]).startswith("a-cat-runs-")
    assert len({readable_id(s) for s in ([a], [a, b], [Segment("A cat — runs!")], [Segment("a cat runs", 5)])}) == 4
    assert readable_id([Segment("红色")]).startswith("prompt-")
    assert len(readable_id([Segment("x" * 1000)])) <= 60
    assert readable_id([a]) == "a-cat-runs-" + readable_id([a]).rpartition("-")[2] != readable_id([b])


def names(n: int) -> tuple[PromptScript, ...]:
    return tuple(PromptScript(f"p{i}", (Segment(f"prompt {i}"),)) for i in range(n))


def test_first_and_whole():
    every = names(5)
    assert select(every) == every
    assert select(iter(every), first=2) == every[:2]
    assert select(every, first=5) == every


def test_a_sample_is_reproducible_nested_and_stands_additions():
    every = names(1003)
    sample = select(every, sample=25, seed=7)
    assert sample == select(every, sample=25, seed=7)
    assert list(sample) == [script for script in every if script in sample]  # in the order of the file
    assert set(sample) <= set(select(every, sample=100, seed=7))
    assert set(select(tuple(reversed(every)), sample=25, seed=7)) == set(sample)
    assert len(set(select(names(1004), sample=25, seed=7)) - set(sample)) <= 1
    other = select(every, sample=25, seed=8)
    assert len(set(other) & set(sample)) < 10
    assert select(every, sample=25, seed=7, first=3) == sample[:3]


def test_a_sample_favours_no_prompt():
    """Over 400 seeds each of 20 prompts is drawn about 100 times as one of 5 (s.d. 8.7)."""
    drawn = {script.id: 0 for script in names(20)}
    for seed in range(400):
        for script in select(names(20), sample=5, seed=seed):
            drawn[script.id] += 1
    assert sum(drawn.values()) == 2000
    assert 60 < min(drawn.values()) <= max(drawn.values()) < 140


def test_one_dimension(vbench):
    found = read_prompts(vbench).scripts
    (bird,) = select(found, dimension="color")
    assert bird.segments[0].prompt == "a bird"
    assert select(found, dimension="color") == select(found, dimension="object_class")
    with pytest.raises(SelectionError, match=r"dimension=colour is not in the file; did you mean 'color'"):
        select(found, dimension="colour")
    with pytest.raises(SelectionError, match=r"have no dimensions; they come with VBench_full_info\.json"):
        select(names(3), dimension="color")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"first": 4}, r"video\.prompts\.limit=4: there are 3 prompts; nearest valid: 3"),
        ({"first": 0}, r"video\.prompts\.limit=0: .*nearest valid: 1"),
        ({"sample": 25}, r"video\.prompts\.sample=25: there are 3 prompts; nearest valid: 3"),
        ({"sample": 2, "first": 3}, r"video\.prompts\.limit=3: there are 2 prompts"),
    ],
)
def test_more_than_there_are(wanted, message):
    with pytest.raises(SelectionError, match=message) as error:
        select(names(3), **wanted)
    assert isinstance(error.value, UserError)


def test_the_examples_of_the_guide_are_read_as_it_says(tmp_path):
    guide = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:text|json)\n(.*?)```", guide, re.S)
    found = [read_prompts(write(tmp_path / str(n), block)) for n, block in enumerate(blocks)]
    assert [one.kind for one in found] == ["list", "vbench", "interactive", "scripts"]
    assert [len(one.scripts) for one in found] == [2, 2, 1, 2]
    assert [s.start_block * 0.75 for s in found[2].scripts[0].timeline(seconds=60).segments] == [0, 20.25, 39.75]
    assert f"`{readable_id([Segment('a fox on ice')])}`" in guide
