"""Videos that exist already: published or third-party outputs, imported so that they are scored and tabled beside ours.

Nothing is copied or encoded again: the results folder gets a link to each file and a sidecar that says whose it is.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from irope.manifest import MANIFESTS, ManifestError, read_manifest
from irope.script import PromptScript, load_prompts
from irope.systems import (
    Beat,
    Found,
    ImpossibleError,
    Out,
    Place,
    Request,
    RunInfo,
    Shot,
    Stop,
    System,
    SystemPlan,
    SystemSettingsError,
    register_system,
)

if TYPE_CHECKING:
    from irope.video import VideoInfo

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")
PATTERNS = {
    "vbench": "{prompt}-{seed}",
    "irope": "{id}-seed{seed}",
    "self_forcing": "{index}-{seed}_*",
    "longlive": "rank*-{index}-{seed}_*",
}
"""How others name their files; a pattern of one's own is written the same way."""
_FIELDS = {"prompt": ".+", "id": ".+?", "index": r"\d+", "seed": r"\d+"}
_SHOWN = 5
_SHORTENED = 60
"""Letters from which the beginning of a prompt in a file name stands for the prompt: some projects cut names off."""


class FolderError(SystemSettingsError):
    """The videos of a folder cannot be imported; names the files."""


@register_system("folder")
@dataclass(frozen=True)
class Folder(System):
    """Videos that exist already, imported with a list of prompts or by the names of their files."""

    title: ClassVar[str] = "a folder of videos"
    fps: ClassVar[int] = 0
    size: ClassVar[tuple[int, int]] = (0, 0)
    native_seconds: ClassVar[float] = 0.0
    imports: ClassVar[bool] = True

    label: str = "folder"
    folder: str | None = None
    manifest: str | None = None
    pattern: str = "vbench"
    allow_mixed: bool = False

    def __post_init__(self) -> None:
        if not self.label or self.label[0] == "." or "/" in self.label:
            raise SystemSettingsError(
                f"system 'folder': label={self.label!r} names a folder of results; nearest valid: "
                f"{self.label.strip('./').replace('/', '-') or 'folder'!r}"
            )

    @property
    def model_name(self) -> str:
        return self.label

    def plan(self, seconds: float) -> SystemPlan:
        raise ImpossibleError(f"{self.label} is imported: no other videos than those of its folder can be had")

    def digest(self, place: Place) -> Mapping[str, Any]:
        return {}

    def generate(self, request: Request, out: Out, beat: Beat, stop: Stop) -> RunInfo:
        raise ImpossibleError(f"{self.label} is imported: no other videos than those of its folder can be had")

    def found(self, scripts: Sequence[PromptScript]) -> list[Found]:
        """Every video of the folder.

        Raises:
            FolderError: no folder, no video, a name that does not fit the pattern, a damaged file, two videos of one
                prompt and seed, or mixed sizes or rates. ManifestError: the list is broken.
        """
        if self.folder is None:
            raise FolderError("video.method.system.folder=null: give the folder of the videos")
        root = Path(self.folder)
        if not root.is_dir():
            raise FolderError(f"video.method.system.folder={self.folder}: no such folder")
        prompts = _Prompts(scripts)
        found = [self._found(root, name, entry, prompts) for name, entry in self._entries(root)]
        if not found:
            raise FolderError(f"{root}: no videos ({', '.join(SUFFIXES)}) in this folder or below it")
        _refuse_doubles(found)
        if not self.allow_mixed:
            _refuse_mixed(found, root)
        return sorted(found, key=lambda video: (video.shots[0].prompt, video.script.id, video.seed))

    def _entries(self, root: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Path below the folder, and what the list, or the name, says of the video."""
        listed = (
            Path(self.manifest) if self.manifest else next((root / m for m in MANIFESTS if (root / m).is_file()), None)
        )
        if listed is not None:
            for name, entry in read_manifest(listed).items():
                if not (root / name).is_file():
                    raise ManifestError(f"{listed}: {name} is not in {root}")
                yield name, entry
            return
        fits, text = _compiled(self.pattern)
        strangers = []
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() not in SUFFIXES or any(p[0] == "." for p in path.relative_to(root).parts):
                continue
            name = path.relative_to(root).as_posix()
            if match := fits.fullmatch(path.stem):
                yield name, match.groupdict()
            else:
                strangers.append(name)
        if strangers:
            raise FolderError(
                f"{root}: {_some(strangers)} do not fit the pattern {text!r}; give video.method.system.pattern="
                f"{'|'.join(PATTERNS)}, one of your own with {{prompt}}, {{id}} or {{index}} and {{seed}}, or a list: "
                f"{', '.join(MANIFESTS)} or video.method.system.manifest=FILE"
            )

    def _found(self, root: Path, name: str, entry: Mapping[str, Any], prompts: _Prompts) -> Found:
        from irope.digests import digest

        path = root / name
        script, info = prompts.script(entry, name), _probe(path)
        stated = {"frames": info.frames, "fps": float(info.fps), "height": info.height, "width": info.width}
        for key, value in stated.items():
            if (said := entry.get(key)) is not None and abs(float(said) - value) > 0.01:
                raise FolderError(
                    f"{path}: its list says {key}={said}, the file has {value:g}: damaged, or another file"
                )
        return Found(
            path=path,
            script=script,
            seed=int(entry.get("seed") or 0),
            frames=info.frames,
            fps=float(info.fps),
            size=(info.height, info.width),
            shots=_shots(script, info, name),
            record={"file": name, "sha256": digest(path), **stated},
        )


class _Prompts:
    """Finds the script that an entry of a list, or the name of a file, stands for."""

    def __init__(self, scripts: Sequence[PromptScript]) -> None:
        self._scripts = scripts
        self._by_id = {script.id: script for script in scripts}
        self._by_text: dict[str, PromptScript] = {}
        for script in scripts:
            for text in (script.segments[0].prompt, getattr(script, "short", None)):
                if text:
                    self._by_text.setdefault(text, script)

    def script(self, entry: Mapping[str, Any], name: str) -> PromptScript:
        """A script of the configuration's prompts where it is the same one, else a new one from the text."""
        if segments := entry.get("segments"):
            return _read({"segments": json.loads(segments) if isinstance(segments, str) else segments}, name)
        if (index := entry.get("index")) is not None:
            if int(index) >= len(self._scripts):
                raise FolderError(
                    f"{name} is of prompt number {index}, and there are {len(self._scripts)}: prompts=..."
                )
            return self._scripts[int(index)]
        text = str(entry.get("prompt") or entry.get("id")).strip()
        if (known := self._by_id.get(text) or self._by_text.get(text)) is not None:
            return known
        begins = {script.id: script for t, script in self._by_text.items() if t.startswith(text)}
        if len(text) >= _SHORTENED and len(begins) == 1:
            return next(iter(begins.values()))
        if entry.get("prompt") is None:
            raise FolderError(f"{name}: no prompt {text!r} in the prompt set: choose it by prompts=... or in a list")
        return _read({"segments": [{"prompt": text}]}, name)


def _read(script: Mapping[str, Any], name: str) -> PromptScript:
    try:
        return load_prompts(json.dumps(script, ensure_ascii=False))[0]
    except ValueError as error:
        raise FolderError(f"{name}: {error}") from error


def _shots(script: PromptScript, info: VideoInfo, name: str) -> tuple[Shot, ...]:
    """The prompts of a video in its frames; segments without a length share what is left."""
    segments, total = script.segments, info.frames / info.fps
    given = sum(segment.seconds or 0.0 for segment in segments)
    unset = sum(segment.seconds is None for segment in segments)
    each = (float(total) - given) / unset if unset else 0.0
    stops, time = [], 0.0
    for segment in segments[:-1]:
        time += each if segment.seconds is None else segment.seconds
        stops.append(round(time * info.fps))
    bounds = list(pairwise([0, *stops, info.frames]))
    if any(stop <= start for start, stop in bounds):
        raise FolderError(f"{name}: its prompts last longer than its {float(total):.2f} s")
    return tuple(Shot(s.prompt, start, stop, s.cut) for s, (start, stop) in zip(segments, bounds, strict=True))


def _compiled(pattern: str) -> tuple[re.Pattern[str], str]:
    """A pattern for file names without suffix: {prompt}, {id}, {index} and {seed}, ``*`` for anything."""
    text = PATTERNS.get(pattern, pattern)
    parts = re.split(r"(\{\w+\}|\*)", text)
    fields = [part[1:-1] for part in parts if part.startswith("{")]
    if unknown := [name for name in fields if name not in _FIELDS]:
        raise FolderError(
            f"video.method.system.pattern={pattern}: no field {unknown[0]!r}; fields: {', '.join(_FIELDS)}"
        )
    if len(fields) != len(set(fields)) or len({"prompt", "id", "index"} & set(fields)) != 1:
        raise FolderError(
            f"video.method.system.pattern={pattern}: one of {{prompt}}, {{id}}, {{index}} is needed; known: "
            f"{', '.join(f'{name} ({known})' for name, known in PATTERNS.items())}"
        )
    made = "".join(
        f"(?P<{part[1:-1]}>{_FIELDS[part[1:-1]]})" if part.startswith("{") else ".*" if part == "*" else re.escape(part)
        for part in parts
    )
    return re.compile(made), text


def _probe(path: Path) -> VideoInfo:
    stat = path.stat()
    info = _probed(path, stat.st_size, stat.st_mtime_ns)
    if not info.frames or not info.fps:
        raise FolderError(f"{path}: a video without frames, or without a rate")
    return info


@lru_cache(maxsize=10_000)
def _probed(path: Path, _size: int, _changed: int) -> VideoInfo:
    from irope.video import probe

    return probe(path)


def _refuse_doubles(found: Sequence[Found]) -> None:
    groups: dict[tuple[str, int], list[str]] = defaultdict(list)
    for video in found:
        groups[video.script.id, video.seed].append(video.path.name)
    for (prompt, seed), names in groups.items():
        if len(names) > 1:
            raise FolderError(
                f"{_some(names)} are all prompt {prompt!r}, seed {seed}: keep one, or give seeds in a list"
            )


def _refuse_mixed(found: Sequence[Found], root: Path) -> None:
    kinds: dict[str, list[str]] = defaultdict(list)
    for video in found:
        kinds[f"{video.size[1]}x{video.size[0]} at {video.fps:g} fps"].append(video.path.name)
    if len(kinds) > 1:
        said = "; ".join(f"{len(names)} of {kind} ({_some(names)})" for kind, names in kinds.items())
        raise FolderError(
            f"{root}: sizes or rates differ: {said}; one system has one: import them apart, or say "
            "video.method.system.allow_mixed=true"
        )


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
