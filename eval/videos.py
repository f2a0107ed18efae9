"""Which videos lie in a folder, and what is known of each: prompt, seed, method, segments.

Three sources, the first that speaks of a video wins: the sidecar JSON that `irope generate` writes, a manifest
(``prompts.json``, ``.jsonl`` or ``.csv`` in the folder, or one that is named), and the file name, which VBench's
convention reads as ``PROMPT-SAMPLE.mp4``. Without sidecars the folder right below the one that is scored is the method.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.scorer import Span, VideoFacts
from irope.errors import UserError
from irope.manifest import MANIFESTS, ManifestError, read_manifest

__all__ = ["SCORES", "SUFFIXES", "ManifestError", "Problem", "Video", "find_videos", "generated_video", "read_manifest"]

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".gif")
SCORES = "scores"
"""Folder below the scored one that holds the score files."""


@dataclass(frozen=True)
class Problem:
    """Why one file is not scored, or is scored without its prompt (``scored``)."""

    path: Path
    message: str
    scored: bool = False


@dataclass(frozen=True)
class Video:
    """One video to score.

    Attributes:
        path: the file that is shown; ``source`` the one that is decoded, lossless where there is one.
        name: path below the scored folder, without suffix.
        model: the generator, if known. Tables never mix models.
        prompt: id of the prompt, the same for every method; with ``seed`` it pairs videos of two methods.
        segments: from the sidecar; otherwise the whole video has ``text``, which may be unknown.
        generated: there is a sidecar; ``record`` is what it says of the settings behind the frames.
    """

    path: Path
    source: Path
    name: str
    method: str
    prompt: str
    seed: int = 0
    model: str | None = None
    text: str | None = None
    segments: tuple[Span, ...] = ()
    generated: bool = False
    record: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()

    def facts(self, frames: int, fps: float, height: int, width: int) -> VideoFacts:
        """What scorers are told, once the file is open; segments end where the video does."""
        spans = [replace(span, stop=min(span.stop, frames)) for span in self.segments if span.start < frames]
        if not spans and self.text is not None:
            spans = [Span(0, frames, self.text)]
        return VideoFacts(self.name, frames, fps, height, width, tuple(spans))


def find_videos(path: Path, manifest: Path | None = None) -> tuple[list[Video], list[Problem]]:
    """Every video at or below ``path``, sorted by name, and what is wrong with the rest.

    Raises:
        UserError: the path does not exist or holds no video.
        ManifestError: a manifest is broken.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    root = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if _is_video(file, root))
    listed = manifest if manifest is not None else next((root / m for m in MANIFESTS if (root / m).is_file()), None)
    prompts = read_manifest(listed) if listed is not None else None
    videos: list[Video] = []
    problems: list[Problem] = []
    for file, partners in _by_stem(files).items():
        sidecar = _sidecar(file)
        if sidecar is not None:
            videos.append(_generated(file, root, sidecar))
        elif partners:
            names = " and ".join(p.name for p in partners)
            problems += [Problem(p, f"{names} have one name; move all but one away") for p in partners]
        else:
            videos.append(_plain(file, root, prompts, listed, problems))
    videos = _without_doubles(videos, problems)
    if not videos and not problems:
        raise UserError(f"{path}: no videos ({', '.join(SUFFIXES)}) in this folder or below it")
    return sorted(videos, key=lambda video: video.name), problems


def generated_video(file: Path, root: Path) -> Video:
    """A video that `irope generate` made, named by its path below ``root``.

    Raises:
        UserError: its sidecar is missing or damaged.
    """
    sidecar = _sidecar(file)
    if sidecar is None:
        raise UserError(f"{file}: its sidecar {file.stem}.json is missing or damaged; generate the video again")
    return _generated(file, root, sidecar)


def _is_video(file: Path, root: Path) -> bool:
    folders = file.relative_to(root).parts[:-1]
    hidden = any(part.startswith(".") or part == SCORES or part.endswith(".parts") for part in folders)
    return file.suffix.lower() in SUFFIXES and not hidden and not file.name.startswith(".") and not file.is_dir()


def _by_stem(files: Iterable[Path]) -> dict[Path, list[Path]]:
    """The file to show of every name; files that share a name without a sidecar are listed beside it."""
    groups: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        groups[file.with_suffix("")].append(file)
    return {
        min(group, key=lambda file: SUFFIXES.index(file.suffix.lower())): group if len(group) > 1 else []
        for group in groups.values()
    }


def _sidecar(file: Path) -> dict[str, Any] | None:
    """The JSON beside a generated video; None if there is none, or it is something else."""
    try:
        facts = json.loads(file.with_name(file.stem + ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and {"files", "segments", "method", "key"} <= facts.keys() else None


def _generated(file: Path, root: Path, sidecar: Mapping[str, Any]) -> Video:
    lossless = sidecar["files"].get("frames")
    source = file.with_name(lossless) if lossless and file.with_name(lossless).is_file() else file
    notes = () if source != file or not lossless else (f"{lossless} is gone: scored from the lossy {file.name}",)
    # A benchmark compares with its own prompt, also where a longer wording of it was generated.
    short = sidecar.get("short_prompt")
    segments = tuple(
        Span(s["start_frame"], s["stop_frame"], short or s["prompt"], bool(s.get("cut"))) for s in sidecar["segments"]
    )
    return Video(
        path=file,
        source=source,
        name=_name(file, root),
        method=str(sidecar["method"]),
        prompt=str(sidecar["id"]),
        seed=int(sidecar["seed"]),
        model=str(sidecar["model"]),
        segments=segments,
        generated=True,
        record=sidecar.get("record"),
        notes=notes,
    )


def _plain(
    file: Path, root: Path, prompts: Mapping[str, Any] | None, listed: Path | None, problems: list[Problem]
) -> Video:
    relative = file.relative_to(root)
    method = relative.parts[0] if len(relative.parts) > 1 else root.resolve().name
    stem, _, sample = file.stem.rpartition("-")
    named = (stem, int(sample)) if re.fullmatch(r"\d+", sample) and stem else (file.stem, 0)
    video = Video(file, file, _name(file, root), method, prompt=named[0], seed=named[1])
    if prompts is None:
        return replace(video, text=named[0], notes=("the prompt is taken from the file name",))
    entry = prompts.get(relative.as_posix()) or prompts.get(file.name)
    if entry is None:
        problems.append(Problem(file, f"no prompt for it in {listed}; scored without one", scored=True))
        return video
    seed = entry["seed"] if entry.get("seed") is not None else 0
    return replace(video, prompt=entry["prompt"], text=entry["prompt"], seed=int(seed))


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).with_suffix("").as_posix()


def _without_doubles(videos: Sequence[Video], problems: list[Problem]) -> list[Video]:
    """Two videos of one method, prompt and seed cannot be told apart in a table."""
    groups: dict[tuple[str | None, str, str, int, str], list[Video]] = defaultdict(list)
    for video in videos:
        # Generated videos of one prompt may differ in length or settings; their names then hold different keys.
        groups[video.model, video.method, video.prompt, video.seed, video.name if video.generated else ""].append(video)
    for group in groups.values():
        for video in group if len(group) > 1 else ():
            others = ", ".join(other.path.name for other in group if other is not video)
            advice = 'name them PROMPT-0.mp4, PROMPT-1.mp4, or give a "seed" in the list of prompts'
            problems.append(Problem(video.path, f"{others} has the same prompt and sample number; {advice}"))
    return [group[0] for group in groups.values() if len(group) == 1]
