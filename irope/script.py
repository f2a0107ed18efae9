"""Prompt scripts: what a video shows, when its prompt switches and where its scene is cut.

Three ways to write a video, one a line (UTF-8):

    a cat runs[5s] | it sleeps[10s#] ; subtitle one | subtitle two
    {"id": "cat", "segments": [{"prompt": "a cat runs", "seconds": 5}, {"prompt": "it sleeps", "cut": true}]}
    a plain prompt, whose duration the configuration gives; such a line may hold semicolons

`#` cuts the scene at the start of the segment that carries it. Text that needs `[`, `]` or `|` goes into JSON.
How seconds become blocks is in `irope.timeline`; its names are imported from here.
"""

import json
import re
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from irope.identity import config_key
from irope.settings import hint
from irope.timeline import CLOCK, Clock, Rounding, ScriptError, Segment, Source, TimedSegment, Timeline, lay_out

__all__ = [
    "CLOCK",
    "Clock",
    "CutMark",
    "PromptScript",
    "Rounding",
    "ScriptError",
    "Segment",
    "Source",
    "TimedSegment",
    "Timeline",
    "format_script",
    "load_prompts",
]

CutMark = Literal["start", "published"]
"""Where a `#` cuts: at the start of its segment, or, as the published parser has it, at the boundary after it."""

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_MARK = re.compile(rf"\s*(?:(?P<seconds>{_NUMBER})\s*s?\s*)?(?P<cut>#?)\s*", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_VIDEO_KEYS = {"id", "segments"}
_SEGMENT_KEYS = {"prompt", "seconds", "cut", "subtitle"}


@dataclass(frozen=True)
class PromptScript:
    """One video. `named`: its id was given, not derived from its segments."""

    id: str
    segments: tuple[Segment, ...]
    source: Source = field(default=Source(), compare=False, repr=False)
    named: bool = False

    @property
    def noise_key(self) -> str:
        """What the noise is drawn from: the id where one is given, else the first prompt, whatever follows it."""
        return self.id if self.named else self.segments[0].prompt

    def canonical(self) -> dict[str, Any]:
        """The script as a JSON object, also a valid line of a JSONL file; fields at their default are left out."""
        return ({"id": self.id} if self.named else {}) | {"segments": _segments_json(self.segments)}

    def timeline(
        self,
        seconds: float | None = None,
        latents: int | None = None,
        clock: Clock = CLOCK,
        rounding: Rounding = "nearest",
    ) -> Timeline:
        """The script in whole blocks of a video of `seconds` or `latents`; see `irope.timeline.lay_out`."""
        return lay_out(self.segments, self.source, seconds, latents, clock, rounding)


def load_prompts(path_or_text: str | Path, cut_mark: CutMark = "start") -> tuple[PromptScript, ...]:
    """Read the scripts of a file, or of a text that is not a file's name. Blank lines are skipped.

    Raises ScriptError for everything that is not a script, also for a missing or empty file and for repeated ids.
    """
    if cut_mark not in get_args(CutMark):
        raise ScriptError(f"unknown cut_mark {cut_mark!r}{hint(cut_mark, get_args(CutMark))}")
    file, text = _read(path_or_text)
    jsonl = file.endswith((".jsonl", ".ndjson"))
    scripts: dict[str, PromptScript] = {}
    for line, content in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not content.strip():
            continue
        source = Source(file, line, content)
        script = _from_json(source) if jsonl or content.lstrip().startswith("{") else _from_line(source, cut_mark)
        if script.id in scripts:
            other = scripts[script.id].source.line
            same = f"has the id {script.id!r} of" if script.named else "repeats"
            raise ScriptError(f"this line {same} line {other}; give each video its own id in JSON", source, 1)
        scripts[script.id] = script
    if not scripts:
        raise ScriptError("no prompt found; write one video a line: a cat runs[5s] | it sleeps[10s#]", Source(file))
    return tuple(scripts.values())


def format_script(script: PromptScript) -> str:
    """The script in the bracket syntax, without its id. ScriptError for a text that only JSON can hold."""
    parts = []
    for s in script.segments:
        mark = ("" if s.seconds is None else f"{s.seconds!r}s") + "#" * s.cut
        parts.append(s.prompt + (f"[{mark}]" if mark else ""))
    line = " | ".join(parts)
    if any(s.subtitle is not None for s in script.segments):
        line += " ; " + " | ".join(s.subtitle or "" for s in script.segments)
    try:
        same = _from_line(Source(text=line), "start").segments == script.segments and "\n" not in line
    except ScriptError:
        same = False
    if not same:
        raise ScriptError(f"the bracket syntax cannot hold {line!r}: write it as JSON (PromptScript.canonical)")
    return line


def _read(path_or_text: str | Path) -> tuple[str, str]:
    """File name and text; a string that can only be a file's name must be one."""
    text = str(path_or_text)
    path_like = isinstance(path_or_text, Path) or re.fullmatch(r".+\.(txt|jsonl|ndjson|json)|[^\s|[\]]*[/\\]\S*", text)
    if not path_like and (len(text) > 255 or "\n" in text or not Path(text).is_file()):
        return "<text>", text.removeprefix("\ufeff")
    try:
        data = Path(path_or_text).read_bytes()
    except OSError as error:
        raise ScriptError(f"cannot read the prompts of {text}: {error.strerror or error}") from error
    try:
        return text, data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        where = Source(text, before.count(b"\n") + 1)
        column = len(before.rpartition(b"\n")[2].decode("utf-8-sig", "replace")) + 1
        message = f"byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise ScriptError(message, where, column) from error


def _from_line(source: Source, cut_mark: CutMark) -> PromptScript:
    """A line in the bracket syntax, or a plain prompt if it has neither a bracket nor a bar."""
    text = source.text
    if not re.search(r"[\[\]|]", text):
        return _script([Segment(text.strip())], source)
    # Subtitles begin at the first semicolon behind the last mark; one before it belongs to a prompt.
    semicolon = text.find(";", text.rfind("]") + 1)
    prompts = text if semicolon < 0 else text[:semicolon]
    segments: list[Segment] = []
    marked, start = [], 0
    for part in prompts.split("|"):
        segments.append(_segment(part, start, source, cut_mark))
        marked.append("#" in part)
        start += len(part) + 1
    if cut_mark == "published":
        # Any '#' counts, and it acts on the boundary behind its segment: on the last one it is lost.
        segments = [replace(s, cut=cut) for s, cut in zip(segments, [False, *marked[:-1]], strict=True)]
    if semicolon >= 0:
        subtitles = text[semicolon + 1 :].split("|")
        if len(subtitles) != len(segments):
            raise ScriptError(
                f"expected {len(segments)} subtitles separated by |, one a segment, found {len(subtitles)}",
                source,
                semicolon + 1,
            )
        segments = [replace(s, subtitle=t.strip() or None) for s, t in zip(segments, subtitles, strict=True)]
    return _script(segments, source)


def _segment(part: str, start: int, source: Source, cut_mark: CutMark) -> Segment:
    """One `prompt[5s#]`; `start` is the offset of `part` in the line."""

    def fail(offset: int, message: str) -> NoReturn:
        raise ScriptError(message, source, start + offset + 1)

    prompt, bracket, rest = part.partition("[")
    indent = len(prompt) - len(prompt.lstrip())
    if "]" in prompt:
        fail(prompt.index("]"), "']' without '['; expected a duration like [5s], or JSON for a text with brackets")
    if not prompt.strip():
        fail(len(prompt), "empty prompt: expected text before '[', '|' or the end of the line")
    if not bracket:
        return Segment(prompt.strip(), column=start + indent + 1)
    inner, closed, behind = rest.partition("]")
    at = len(prompt) + 1
    if not closed:
        fail(len(prompt), "'[' is not closed: expected ']' behind the duration, as in [5s]")
    mark = _MARK.fullmatch(inner)
    if mark is None or not inner.strip():
        fail(at, f"expected a duration like [5s] or [5s#], found [{inner}]; a text with brackets needs JSON")
    if behind.strip():
        offset = at + len(inner) + 1 + len(behind) - len(behind.lstrip())
        fail(offset, f"unexpected {behind.strip()!r} behind ']': expected '|', ';' or the end of the line")
    seconds = None if mark["seconds"] is None else float(mark["seconds"])
    if seconds is not None and not (isfinite(seconds) and seconds > 0):
        fail(at, f"a segment cannot last {mark['seconds']} s: expected more than 0, for example {CLOCK.per_block:g}")
    cut = bool(mark["cut"])
    if cut and start == 0 and cut_mark == "start":
        fail(
            at + mark.start("cut"),
            "'#' cuts at the start of its segment, and nothing comes before the first one: move it to the next segment "
            "(or read the file with cut_mark=published, where it acts behind its segment)",
        )
    return Segment(prompt.strip(), seconds, cut, column=start + indent + 1)


def _from_json(source: Source) -> PromptScript:
    """{"id", "segments": [{"prompt", "seconds", "cut", "subtitle"}]}, or one segment's fields beside the id."""
    text = source.text

    def not_finite(name: str) -> NoReturn:
        raise ScriptError(f"{name} is not a duration: expected a number above 0", source, text.find(name) + 1)

    try:
        data = json.loads(text, parse_constant=not_finite)
    except json.JSONDecodeError as error:
        raise ScriptError(f"not valid JSON: {error.msg}", source, error.colno) from error
    if not isinstance(data, dict):
        raise ScriptError('expected a JSON object such as {"prompt": "a cat runs", "seconds": 5}', source, 1)
    many = "segments" in data
    video = data if many else {key: value for key, value in data.items() if key not in _SEGMENT_KEYS}
    _known_keys(video, _VIDEO_KEYS if many else {"id"} | _SEGMENT_KEYS, source, {})
    parts = data["segments"] if many else [{key: value for key, value in data.items() if key in _SEGMENT_KEYS}]
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise ScriptError('expected "segments": [{"prompt": ...}, ...]', source, _column(text, "segments"))
    seen: dict[str, int] = {}
    segments: list[Segment] = []
    for part in parts:
        segments.append(_json_segment(part, source, seen, first=not segments))
        seen |= {key: seen.get(key, 0) + 1 for key in part}
    name = data.get("id")
    if name is not None and not (isinstance(name, str) and _ID.fullmatch(name)):
        raise ScriptError(
            f"the id names files: expected up to 80 of A-Z a-z 0-9 . _ -, found {name!r}", source, _column(text, "id")
        )
    return _script(segments, source, name)


def _json_segment(part: dict[str, Any], source: Source, seen: dict[str, int], first: bool) -> Segment:
    """`seen` counts how often each key came before in the line, to find this one's column."""

    def fail(key: str, expected: str) -> NoReturn:
        found = f"found {part[key]!r}" if key in part else "found none"
        raise ScriptError(f'"{key}": expected {expected}, {found}', source, _column(source.text, key, seen.get(key, 0)))

    _known_keys(part, _SEGMENT_KEYS, source, seen)
    prompt, subtitle = part.get("prompt"), part.get("subtitle")
    seconds, cut = part.get("seconds"), part.get("cut", False)
    if not isinstance(prompt, str) or not prompt.strip():
        fail("prompt", "a text")
    if seconds is not None:
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number or not isfinite(seconds) or seconds <= 0:
            fail("seconds", f"a number above 0, for example {CLOCK.per_block:g}")
        seconds = float(seconds)
    if not isinstance(cut, bool) or (cut and first):
        fail("cut", "false on the first segment, which has nothing before it" if cut is True else "true or false")
    if subtitle is not None and not isinstance(subtitle, str):
        fail("subtitle", "a text or null")
    column = _column(source.text, "prompt", seen.get("prompt", 0))
    return Segment(prompt.strip(), seconds, cut, (subtitle or "").strip() or None, column)


def _known_keys(part: dict[str, Any], known: set[str], source: Source, seen: dict[str, int]) -> None:
    for key in part:
        if key not in known:
            column = _column(source.text, key, seen.get(key, 0))
            raise ScriptError(f"unknown key {key!r}{hint(key, known)}", source, column)


def _column(text: str, key: str, before: int = 0) -> int:
    """Column of `"key":` in a line of JSON, after `before` earlier ones; 1 if it is not there."""
    found = list(re.finditer(re.escape(json.dumps(key)) + r"\s*:", text))
    return found[before].start() + 1 if before < len(found) else 1


def _script(segments: list[Segment], source: Source, name: str | None = None) -> PromptScript:
    derived = "p" + config_key({"segments": _segments_json(segments)})[:12]
    return PromptScript(name or derived, tuple(segments), source, named=name is not None)


def _segments_json(segments: tuple[Segment, ...] | list[Segment]) -> list[dict[str, Any]]:
    return [
        {"prompt": s.prompt}
        | ({} if s.seconds is None else {"seconds": s.seconds})
        | ({"cut": True} if s.cut else {})
        | ({} if s.subtitle is None else {"subtitle": s.subtitle})
        for s in segments
    ]
