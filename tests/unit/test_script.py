import json
import math
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from irope.policy import CacheEvent
from irope.script import Clock, PromptScript, ScriptError, Segment, format_script, load_prompts

PLAIN = st.text(st.characters(exclude_characters="[]|;{\n\r", exclude_categories=["Cs", "Cc"]), min_size=1)
WORDS = PLAIN.map(str.strip).filter(bool)
SECONDS = st.none() | st.floats(0.01, 1e4, allow_nan=False)


@st.composite
def segments(draw, text=WORDS):
    first = draw(st.builds(Segment, text, SECONDS, st.just(False), st.none() | text))
    rest = draw(st.lists(st.builds(Segment, text, SECONDS, st.booleans(), st.none() | text), max_size=4))
    return (first, *rest)


def one(text: str, **options) -> PromptScript:
    (script,) = load_prompts(text, **options)
    return script


def spans(text: str, **options) -> list[tuple[int, int]]:
    return [(s.start_block, s.stop_block) for s in one(text).timeline(**options).segments]


# ---------------------------------------------------------------- reading


def test_bracket_syntax_with_subtitles():
    script = one("a cat runs[5s] | it sleeps [ 10.5 s # ] | end [#]; first | | third one")
    assert script.segments == (
        Segment("a cat runs", 5.0, False, "first"),
        Segment("it sleeps", 10.5, True, None),
        Segment("end", None, True, "third one"),
    )


def test_jsonl_and_the_short_json_form():
    first = (
        '{"id": "k1", "segments": [{"prompt": " a ", "seconds": 5}, {"prompt": "[b]|", "cut": true, "subtitle": "t"}]}'
    )
    many, short = load_prompts(first + '\n{"prompt": "a", "seconds": 2}')
    assert many.id == "k1"
    assert many.segments == (Segment("a", 5.0), Segment("[b]|", None, True, "t"))
    assert short.segments == (Segment("a", 2.0),)


def test_plain_prompts_keep_semicolons_and_hashes():
    text = "a cat; slow pan; film #7"
    assert one(text).segments == (Segment(text),)


def test_semicolon_before_the_last_mark_belongs_to_a_prompt():
    assert [s.prompt for s in one("a; b[5s] | c; d[5s] ; x | y").segments] == ["a; b", "c; d"]


@pytest.mark.parametrize(
    ("marks", "mode", "cuts"),
    [
        (["[10s]", "[10s#]", "[10s#]"], "start", [False, True, True]),
        (["[10s]", "[10s#]", "[10s#]"], "published", [False, False, True]),
        (["[10s#]", "[10s]", "[10s]"], "published", [False, True, False]),
        ([" take #1[10s]", "[10s]", "[10s]"], "published", [False, True, False]),
        ([" take #1[10s]", "[10s]", "[10s]"], "start", [False, False, False]),
    ],
)
def test_where_a_mark_cuts(marks, mode, cuts):
    text = " | ".join(name + mark for name, mark in zip("abc", marks, strict=True))
    assert [s.cut for s in one(text, cut_mark=mode).segments] == cuts


def test_file_with_bom_crlf_blank_lines_and_other_alphabets(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffein Bär[5s] | 猫\u2028schläft[5s#]\r\n\r\nplain ∞ prompt\r\n".encode())
    first, second = load_prompts(file)
    assert [s.prompt for s in first.segments] == ["ein Bär", "猫\u2028schläft"]
    assert (second.segments[0].prompt, second.source.line) == ("plain ∞ prompt", 3)
    assert load_prompts(str(file)) == (first, second)


# ---------------------------------------------------------------- writing


@given(segments())
def test_bracket_syntax_round_trip(parts):
    script = PromptScript("x", parts)
    # Alone and untimed it is a plain prompt, which has no subtitle.
    assume(len(parts) > 1 or parts[0].seconds is not None or parts[0].subtitle is None)
    assert one(format_script(script) + "\n").segments == parts


@given(segments(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)))
def test_json_round_trip_of_any_text(parts):
    script = one(json.dumps({"segments": [{"prompt": "x"}]}))
    script = PromptScript("any", parts, script.source, named=True)
    assert one(json.dumps(script.canonical()) + "\n") == script


@pytest.mark.parametrize("prompt", ["a [b]", "a | b", "a\nb"])
def test_text_that_needs_json(prompt):
    with pytest.raises(ScriptError, match="JSON"):
        format_script(PromptScript("x", (Segment(prompt, 5.0),)))


def test_ids_and_noise():
    short, long = one("a[5s] | b[5s]"), one("a[60s] | c[5s]")
    assert short.id != long.id
    assert short.noise_key == long.noise_key == "a"
    assert one("a[5s] | b[5s]").id == short.id == one("  a [5.0s]|b[ 5 ]").id
    named = one('{"id": "v7", "prompt": "a", "seconds": 5}')
    assert (named.id, named.noise_key) == ("v7", "v7")


# ---------------------------------------------------------------- seconds and blocks


@pytest.mark.parametrize(
    ("seconds", "latents", "pixels"), [(5, 21, 81), (10, 42, 165), (60, 240, 957), (120, 480, 1917), (240, 960, 3837)]
)
def test_published_lengths(seconds, latents, pixels):
    clock = Clock()
    assert clock.latents(seconds) == latents
    assert clock.pixels(latents) == pixels
    timeline = one("a").timeline(seconds=seconds)
    assert (timeline.blocks, timeline.latents) == (latents // 3, latents)
    assert timeline.seconds(timeline.blocks) == pixels / 16


@given(st.decimals(Fraction("0.07"), 500, places=2))
def test_length_has_the_frames_asked_for_up_to_a_latent_and_wastes_no_block(seconds):
    latents = Clock().latents(float(seconds))
    wanted = math.floor(Fraction(seconds) * 16)
    assert latents % 3 == 0
    assert 4 * (latents - 3) < wanted <= 4 * latents


@pytest.mark.parametrize(
    ("text", "rounding", "expected"),
    [
        ("a[10s] | b[10s]", "published", [(0, 13), (13, 27)]),
        ("a[10s] | b[10s#] | c[10s#]", "published", [(0, 13), (13, 26), (26, 40)]),
        ("a[10s] | b[10s#] | c[10s#]", "nearest", [(0, 13), (13, 27), (27, 40)]),
        ("a[5s] | b[5s] | c[5s] | d[5s]", "published", [(0, 6), (6, 12), (12, 18), (18, 27)]),
        ("a[5s] | b[5s] | c[5s] | d[5s]", "nearest", [(0, 7), (7, 13), (13, 20), (20, 27)]),
    ],
)
def test_boundaries(text, rounding, expected):
    assert spans(text, rounding=rounding) == expected


def test_segments_without_seconds_share_the_rest():
    assert spans("a | b[30s] | c", seconds=60) == [(0, 20), (20, 60), (60, 80)]
    assert spans("a | b", latents=24) == [(0, 4), (4, 8)]


def test_twenty_equal_segments_do_not_drift():
    timeline = one(" | ".join(f"p{i}[3.1s]" for i in range(20))).timeline()
    for i, segment in enumerate(timeline.segments):
        assert abs(segment.start_block - i * 3.1 / 0.75) <= 0.5 + 1e-9


def test_events():
    timeline = one("a[3s] | b[3s] | c[3s#]").timeline()
    events = [timeline.event(block) for block in range(timeline.blocks)]
    assert events[4] is CacheEvent.PROMPT_SWITCH
    assert events[8] is CacheEvent.SCENE_CUT
    assert [e for i, e in enumerate(events) if i not in (4, 8)] == [CacheEvent.BLOCK] * 10
    assert [timeline.prompt(block) for block in (0, 3, 4, 7, 8, 11)] == list("aabbcc")
    for outside in (-1, 12):
        with pytest.raises(IndexError):
            timeline.event(outside)


def test_rounding_is_reported():
    assert one("a").timeline(seconds=60).rounding == (
        "asked for 60 s, the video lasts 59.8125 s: 240 latent frames (80 blocks of 3) decode to 957 frames at 16 fps",
    )
    total, boundary = one("a[5s] | b[5s]").timeline().rounding
    assert total.startswith("asked for 10 s, the video lasts 10.3125 s")
    assert boundary == "segment 2 was to start at 5 s, it starts at 5.0625 s (block 7)"
    assert one("a").timeline(seconds=81 / 16).rounding == ()


def test_timeline_key_depends_on_what_is_generated_only():
    a, b = one("a[5s] | b[5s] ; x | y").timeline(), one("a[5.1s] | b[5s]").timeline()
    assert a.canonical() == b.canonical()
    assert a.canonical() != one("a[5s] | b[5s#]").timeline().canonical()


def test_another_clock():
    timeline = one("a[2s] | b[2s]").timeline(clock=Clock(fps=24, block=4, stride=8))
    assert (timeline.latents, [s.start_block for s in timeline.segments]) == (12, [0, 2])


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("a", {"seconds": 0}, ["0 s", "nearest valid", "0.75"]),
        ("a", {"seconds": -5}, ["-5 s", "0.75"]),
        ("a", {"seconds": math.nan}, ["nan", "0.75"]),
        ("a", {"seconds": math.inf}, ["inf", "0.75"]),
        ("a", {"latents": 20}, ["20", "18 or 21"]),
        ("a", {"latents": 2}, ["nearest valid: 3 "]),
        ("a", {"latents": -3}, ["nearest valid: 3 "]),
        ("a", {"latents": 21, "seconds": 5}, ["not both"]),
        ("a", {}, ["segment 1", "no duration"]),
        ("a[5s] | b", {}, ["segment 2", "no duration"]),
        ("a[5s] | b[20s]", {"seconds": 20}, ["25 s", "20 s"]),
        ("a[5s] | b[5s]", {"seconds": 20}, ["10 s", "20 s"]),
        ("a[5s] | b", {"seconds": 5}, ["leave nothing for 1 more", "more than 5 s"]),
        ("a[5s] | b[0.1s] | c[5s]", {}, ["segment 2", "gets none", "0.75"]),
        ("a[5s] | b[5s]", {"seconds": 10, "rounding": "nearst"}, ["nearst", "nearest"]),
    ],
)
def test_impossible_durations(text, options, words):
    with pytest.raises(ScriptError) as error:
        one(text).timeline(**options)
    assert all(word in str(error.value) for word in words), error.value


def test_explicit_latents_agree_with_the_seconds_they_come_from():
    assert spans("a[5s]", latents=21) == [(0, 7)]
    with pytest.raises(ScriptError):
        spans("a[5s]", latents=24)


# ---------------------------------------------------------------- errors, with their place


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("a[5s | b[5s]", 2, ["']'", "not closed"]),
        ("a[5x]", 3, ["[5x]", "[5s]"]),
        ("a[]", 3, ["[5s]"]),
        ("a[nan]", 3, ["[nan]"]),
        ("a[1e999s]", 3, ["1e999"]),
        ("a | b[-5s]", 7, ["-5", "more than 0"]),
        ("a | b[0s]", 7, ["0 s"]),
        ("a[5s] | [5s]", 9, ["empty prompt"]),
        ("a[5s] | | b", 9, ["empty prompt"]),
        ("| a", 1, ["empty prompt"]),
        ("a |", 4, ["empty prompt"]),
        ("a[5s] b | c", 7, ["'b'", "'|'"]),
        ("a[5s]; b[5s]", 6, ["'; b[5s]'"]),
        ("a[5s][6s]", 6, ["[6s]"]),
        ("a] | b", 2, ["'['"]),
        ("a[5s#] | b", 5, ["first", "cut_mark=published"]),
        ("a[5s] | b[5s] ; x", 15, ["2 subtitles", "found 1"]),
        ("a | b ; x | y | z", 7, ["2 subtitles", "found 3"]),
        ('{"prompt": "a", "second": 5}', 17, ["'second'", "'seconds'"]),
        ('{"segments": [{"prompt": "a"}, {"promt": "b"}]}', 33, ["'promt'", "'prompt'"]),
        ('{"segments": [{"prompt": "a", "seconds": 5}, {"prompt": "b", "seconds": 0}]}', 62, ["above 0", "found 0"]),
        ('{"segments": [{"prompt": "a", "cut": true}]}', 31, ["first segment"]),
        ('{"segments": []}', 2, ["segments"]),
        ('{"segments": [{"prompt": "a"}], "seconds": 5}', 33, ["'seconds'"]),
        ('{"prompt": "a", "seconds": "5"}', 17, ["'5'"]),
        ('{"prompt": "a", "seconds": true}', 17, ["True"]),
        ('{"prompt": "a", "seconds": NaN}', 28, ["NaN"]),
        ('{"prompt": "  "}', 2, ["a text"]),
        ('{"id": "a"}', 1, ["found none"]),
        ('{"id": "../a", "prompt": "a"}', 2, ["'../a'"]),
        ('{"prompt": "a",}', 16, ["JSON"]),
    ],
)
def test_errors_name_file_line_column_and_show_it(tmp_path, text, column, words):
    file = tmp_path / "p.txt"
    file.write_text("fine[5s]\n\n" + text + "\n", encoding="utf-8")
    with pytest.raises(ScriptError) as error:
        load_prompts(file)
    head, shown, caret = str(error.value).split("\n")
    assert head.startswith(f"{file}:3:{column}: ")
    assert shown.strip() in text
    assert shown.ljust(len(caret))[caret.index("^")] == text.ljust(column)[column - 1]
    assert all(word in head for word in words), head


def test_the_caret_of_a_long_line_stays_in_sight():
    with pytest.raises(ScriptError) as error:
        load_prompts("word " * 200 + "[5x] | b" + " word" * 200)
    _, shown, caret = str(error.value).split("\n")
    assert len(shown) < 130
    assert shown[len(caret) - 1 :].startswith("5x]")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["no prompt found"]),
        (b"\n  \r\n", ["no prompt found"]),
        (b"ok\nab\xffc", [":2:3:", "0xff", "UTF-8"]),
        (b"same\nother\nsame", [":3:1:", "repeats line 1", "id"]),
        (b'{"id":"x","prompt":"a"}\n{"id":"x","prompt":"b"}', [":2:1:", "'x'", "line 1"]),
    ],
)
def test_bad_files(tmp_path, content, words):
    file = tmp_path / "p.txt"
    file.write_bytes(content)
    with pytest.raises(ScriptError) as error:
        load_prompts(file)
    assert all(word in str(error.value) for word in [str(file), *words]), error.value


def test_missing_file_is_not_taken_for_a_prompt(tmp_path):
    for name in (tmp_path / "none", str(tmp_path / "none.txt"), "my prompts.txt"):
        with pytest.raises(ScriptError, match="cannot read"):
            load_prompts(name)
    with pytest.raises(ScriptError, match="cannot read"):
        load_prompts(Path(tmp_path))


def test_timing_errors_point_into_the_script():
    with pytest.raises(ScriptError) as error:
        load_prompts("a[5s] | b[0.1s] | c[5s]")[0].timeline()
    assert str(error.value).startswith("<text>:1:9: ")


def test_unknown_options_are_refused():
    with pytest.raises(ScriptError, match="published"):
        load_prompts("a", cut_mark="publish")  # type: ignore[arg-type]
