"""Prompt files that a user has: VBench's, MovieGen's, files of several prompts a line, and our own scripts.

The format is found in the content:

- a JSON list: VBench's ``VBench_full_info.json``, ``[{"prompt_en": "a cat", "dimension": ["object_class"]}, ...]``;
- JSON lines with ``prompts``: the interactive files of LongLive, ``{"prompts": ["a cat runs", "it sleeps"]}``, one
  video a line that switches from prompt to prompt;
- a text without ``[``, ``]``, ``|`` and ``{``: one plain prompt a line, as in VBench's ``all_dimension.txt`` and
  MovieGen's lists;
- everything else: prompt scripts, which `irope.script` reads.

Only a VBench list of one dimension (``subject_consistency.txt``) says by its name what it is. UTF-8 with or without a
byte-order mark, any line ends; a blank line is no prompt. Reads no tensor library.

Formats: Vchitect/VBench, facebookresearch MovieGen bench (as shipped with Self-Forcing), NVlabs/LongLive.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

from irope.errors import UserError
from irope.identity import config_key
from irope.script import CutMark, PromptScript, ScriptError, Segment, Source, load_prompts
from irope.settings import hint

Kind = Literal["scripts", "list", "vbench", "interactive"]

VBENCH_LISTS: dict[str, tuple[str, ...]] = {
    "subject_consistency": ("subject_consistency", "dynamic_degree", "motion_smoothness"),
    "overall_consistency": ("overall_consistency", "aesthetic_quality", "imaging_quality"),
    "scene": ("scene", "background_consistency"),
} | {
    name: (name,)
    for name in (
        "appearance_style",
        "color",
        "human_action",
        "multiple_objects",
        "object_class",
        "spatial_relationship",
        "temporal_flickering",
        "temporal_style",
    )
}
"""VBench's list of one dimension, by file name, and every dimension that is scored on it."""

_SLUG, _HASH = 48, 8


class SelectionError(UserError, ValueError):
    """The prompts asked for are not in the set."""


@dataclass(frozen=True)
class BenchScript(PromptScript):
    """A script of a benchmark.

    Attributes:
        dimensions: the VBench dimensions that are scored on it.
        short: the benchmark's own prompt where an extended one is generated; a text scorer compares with this.
    """

    dimensions: tuple[str, ...] = field(default=(), compare=False)
    short: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class PromptFile:
    """What a file holds; ``notes`` says in words what was merged."""

    scripts: tuple[PromptScript, ...]
    kind: Kind
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    """One entry, or a blank line of a list, which counts where two files are paired line by line."""

    source: Source
    prompts: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()
    name: str | None = None


def read_prompts(path: str | Path, cut_mark: CutMark = "start", extended: str | Path | None = None) -> PromptFile:
    """Read a file of prompts, whatever its format.

    Args:
        cut_mark: where a ``#`` of a script cuts.
        extended: a list whose line n says entry n of ``path`` at length (``all_dimension_extended.txt`` beside
            ``all_dimension.txt`` or ``VBench_full_info.json``). The long prompt is generated; id and noise are those
            of the short one, so that both give comparable videos.

    Raises:
        ScriptError: an unreadable file or a broken entry (names file and line), or two files that do not pair.
    """
    text = _text(path)
    kind = _kind(text)
    if kind == "scripts":
        if extended is not None:
            raise ScriptError(f"{path} holds scripts, which have no extended twin; nearest valid: a list of prompts")
        return PromptFile(tuple(_readable(script) for script in load_prompts(Path(path), cut_mark)), kind)
    if kind == "vbench":
        rows = _vbench_rows(str(path), text)
    elif kind == "interactive":
        rows = [_interactive_row(source) for source in _lines(str(path), text) if source.text.strip()]
    else:
        rows = _list_rows(str(path), text)
    scripts = _paired(rows, str(path), extended) if extended is not None else [_script(r) for r in rows if r.prompts]
    merged, notes = _merge(scripts)
    return PromptFile(tuple(merged), kind, notes)


def readable_id(segments: Sequence[Segment]) -> str:
    """The first words of the first prompt and 8 digits of a hash of the whole script: ``a-cat-runs-1c3d5e7f``.

    Depends on the script alone, not on its place in a file; fit for a file name.
    """
    plain = unicodedata.normalize("NFKD", segments[0].prompt).encode("ascii", "ignore").decode().lower()
    words = "-".join(re.findall(r"[a-z0-9]+", plain))
    slug = words if len(words) <= _SLUG else words[: _SLUG + 1].rpartition("-")[0] or words[:_SLUG]
    facts = [[s.prompt, s.seconds, s.cut, s.subtitle] for s in segments]
    return f"{slug or 'prompt'}-{config_key(facts)[:_HASH]}"


def select(
    scripts: Iterable[PromptScript],
    *,
    first: int | None = None,
    dimension: str | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> tuple[PromptScript, ...]:
    """The scripts of one VBench dimension, of these a random sample, of these the first; in the order of the file.

    A sample holds the n scripts whose hash of seed and id is smallest. So it depends on neither the order of the file
    nor on any generator, a larger sample contains the smaller ones, and a prompt that is added later changes it by one
    script at most.

    Raises:
        SelectionError: more scripts than there are, or a dimension that none has; names the nearest valid value.
    """
    chosen = tuple(scripts)
    if dimension is not None:
        known = {name for script in chosen if isinstance(script, BenchScript) for name in script.dimensions}
        if not known:
            raise SelectionError(
                f"video.prompts.dimension={dimension}: these prompts have no dimensions; they come with "
                "VBench_full_info.json, or with a list named after one: subject_consistency.txt"
            )
        if dimension not in known:
            raise SelectionError(f"video.prompts.dimension={dimension} is not in the file{hint(dimension, known)}")
        chosen = tuple(s for s in chosen if isinstance(s, BenchScript) and dimension in s.dimensions)
    if sample is not None:
        _enough("sample", sample, len(chosen))
        kept = {script.id for script in sorted(chosen, key=lambda script: _rank(seed, script.id))[:sample]}
        chosen = tuple(script for script in chosen if script.id in kept)
    if first is not None:
        _enough("limit", first, len(chosen))
        chosen = chosen[:first]
    return chosen


def wrong_set(prompts: Any, model: str) -> str:
    """The end of an error about a prompt that ``model`` cannot read: which set to take instead, or ''.

    Args:
        prompts: ``video.prompts``: name, model it is written for, and the set of its kind for the other model.
        model: name of the model that runs, ``tiny`` for the embedded one.
    """
    written_for = prompts.get("model")
    if prompts.get("file") is not None or written_for is None or written_for == model:
        return ""
    other = prompts.get("twin")
    advice = f"take prompts={other}" if other else "irope list prompts shows the sets of each model"
    return f"; prompts={prompts.get('name')} is written for model={written_for}: {advice}"


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _enough(key: str, wanted: int, found: int) -> None:
    if not 1 <= wanted <= found:
        raise SelectionError(
            f"video.prompts.{key}={wanted}: there are {found} prompts; nearest valid: {min(max(wanted, 1), found)}"
        )


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        load_prompts(Path(path))  # words the error, with the line
        raise


def _kind(text: str) -> Kind:
    start = text.lstrip()[:1]
    if start == "[":
        return "vbench"
    if start == "{":
        first = text.lstrip().partition("\n")[0]
        try:
            found = json.loads(first)
        except json.JSONDecodeError:
            return "scripts"
        return "interactive" if isinstance(found, dict) and "prompts" in found else "scripts"
    return "scripts" if not start or re.search(r"[\[\]|]|^\s*\{", text, re.MULTILINE) else "list"


def _lines(file: str, text: str) -> list[Source]:
    """Lines end with a line feed only: the text of a prompt may hold other breaks that Unicode knows."""
    lines = text.replace("\r\n", "\n").rstrip().split("\n")
    return [Source(file, number, line) for number, line in enumerate(lines, start=1)]


def _list_rows(file: str, text: str) -> list[_Row]:
    stem = re.sub(r"_(longer|extended)$", "", Path(file).stem)
    dimensions = VBENCH_LISTS.get(stem, ())
    prompts = [(source, source.text.strip()) for source in _lines(file, text)]
    return [_Row(source, (prompt,) if prompt else (), dimensions) for source, prompt in prompts]


def _vbench_rows(file: str, text: str) -> list[_Row]:
    """Entry by entry, so that an error can name its line."""
    decoder = json.JSONDecoder()
    rows: list[_Row] = []
    at = text.index("[") + 1

    def fail(offset: int, message: str) -> NoReturn:
        raise ScriptError(message, Source(file, text.count("\n", 0, offset) + 1))

    def skip(offset: int) -> int:
        return re.compile(r"\s*").match(text, offset).end()  # type: ignore[union-attr]  # it matches everywhere

    at = skip(at)
    while text[at : at + 1] != "]":
        try:
            entry, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            fail(error.pos, f"not valid JSON: {error.msg}; a prompt file that begins with '[' is VBench_full_info.json")
        place = f"entry {len(rows) + 1}"
        if not isinstance(entry, dict) or not isinstance(entry.get("prompt_en"), str) or not entry["prompt_en"].strip():
            fail(at, f'{place}: expected {{"prompt_en": "a cat", "dimension": ["object_class"]}}, found {entry!r:.80}')
        names = entry.get("dimension", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            fail(at, f'{place}: "dimension": expected a list of names, found {names!r:.80}')
        source = Source(file, text.count("\n", 0, at) + 1)
        rows.append(_Row(source, (entry["prompt_en"].strip(),), tuple(names)))
        at = skip(end)
        if text[at : at + 1] == ",":
            at = skip(at + 1)
        elif text[at : at + 1] != "]":
            fail(at, f"not valid JSON: expected ',' or ']' behind {place}; is the file complete?")
    if text[at + 1 :].strip():
        fail(at + 1, "unexpected text behind the closing ']'")
    if not rows:
        fail(at, "no prompt found")
    return rows


def _interactive_row(source: Source) -> _Row:
    try:
        entry = json.loads(source.text)
    except json.JSONDecodeError as error:
        raise ScriptError(f"not valid JSON: {error.msg}", source, error.colno) from error
    prompts = entry.get("prompts") if isinstance(entry, dict) else None
    if not isinstance(prompts, list) or not prompts or not all(isinstance(p, str) and p.strip() for p in prompts):
        raise ScriptError('expected {"prompts": ["a cat runs", "it sleeps"]}, one video a line', source, 1)
    return _Row(source, tuple(prompt.strip() for prompt in prompts))


def _script(row: _Row) -> BenchScript:
    # The noise is keyed by the first prompt, as everywhere: a prompt gives the same video from whichever file.
    segments = tuple(Segment(prompt) for prompt in row.prompts)
    return BenchScript(readable_id(segments), segments, row.source, dimensions=row.dimensions)


def _paired(rows: Sequence[_Row], file: str, extended: str | Path) -> list[PromptScript]:
    text = _text(extended)
    twins = _lines(str(extended), text)
    if (kind := _kind(text)) != "list":
        raise ScriptError(f"expected one plain prompt a line beside {file}, found {kind}", Source(str(extended)))
    if len(twins) != len(rows):
        raise ScriptError(
            f"{len(twins)} lines do not pair with the {len(rows)} prompts of {file}: line n must extend prompt n",
            Source(str(extended)),
        )
    scripts: list[PromptScript] = []
    for row, twin in zip(rows, twins, strict=True):
        long = twin.text.strip()
        if bool(long) != bool(row.prompts):
            where = f"{file}:{row.source.line}"
            raise ScriptError(f"one of this line and {where} is blank: line n must extend prompt n", twin)
        if len(row.prompts) > 1:
            raise ScriptError("several prompts in a line have no extended twin", row.source, 1)
        if long:
            short = _script(row)
            # `named`: the short prompt's id stands for the video, its noise included.
            scripts.append(replace(short, segments=(Segment(long),), named=True, short=row.prompts[0]))
    return scripts


def _merge(scripts: Sequence[PromptScript]) -> tuple[list[PromptScript], tuple[str, ...]]:
    """One script an id; the dimensions of repeated prompts add up."""
    merged: dict[str, PromptScript] = {}
    notes = []
    for script in scripts:
        if (first := merged.get(script.id)) is None:
            merged[script.id] = script
            continue
        if isinstance(first, BenchScript) and isinstance(script, BenchScript):
            every = dict.fromkeys((*first.dimensions, *script.dimensions))
            merged[script.id] = replace(first, dimensions=tuple(every))
        other = "" if first.segments == script.segments else ", with another extended prompt, which is not used"
        notes.append(f"{script.source.file}:{script.source.line} repeats line {first.source.line}{other}: {script.id}")
    if notes:
        notes.insert(0, f"{len(scripts)} entries, {len(merged)} different prompts")
    return list(merged.values()), tuple(notes)


def _readable(script: PromptScript) -> PromptScript:
    return script if script.named else replace(script, id=readable_id(script.segments))
