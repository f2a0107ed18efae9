"""Make one finished video again and compare it, frame by frame, with what is on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irope.claims import FOLDER
from irope.config import Settings, load
from irope.errors import UserError
from irope.finished import finished
from irope.generate import generate
from irope.generator import load_generator
from irope.identity import CanonicalError, near_miss
from irope.jobs import JobMaker, VideoJob
from irope.video import VideoError, read_frames


class RemakeError(UserError, ValueError):
    """There is no video to make again, or its sidecar does not say how."""


@dataclass(frozen=True)
class Remade:
    """A video made again.

    Attributes:
        expected, found: frame hash chains of the sidecar and of the new video.
        first_difference: number of the first frame that differs from the lossless companion; None without one.
        problem: what is wrong besides, for example a companion that does not hold the frames its sidecar names.
        environment: dotted names of what differs between the two environments, with both values.
    """

    stem: Path
    expected: str
    found: str
    frames: int
    first_difference: int | None
    problem: str
    environment: dict[str, tuple[Any, Any]]

    @property
    def same(self) -> bool:
        return self.expected == self.found and not self.problem


def finished_videos(folder: Path) -> list[Path]:
    """Stems of the videos below a folder whose sidecar is the project's own and whose files are whole; sorted."""
    found = []
    for path in sorted(folder.rglob("*.json")):
        if FOLDER in path.relative_to(folder).parts:
            continue
        facts = _facts(path)
        if isinstance(facts.get("key"), str) and finished(path.with_suffix(""), facts["key"]):
            found.append(path.with_suffix(""))
    return found


def remake(stem: Path, folder: Path) -> Remade:
    """Make the video of a sidecar again below ``folder`` and compare.

    Raises:
        RemakeError: the sidecar's configuration stands for no video of its key any more.
    """
    facts = _facts(stem.with_name(stem.name + ".json"))
    # Where and how the work ran is no part of a video, and there may be settings by now that it did not know.
    sys = {**load([])["sys"], **facts["config"]["sys"], "out": str(folder)}
    config = {**facts["config"], "sys": sys}
    job = _job(config, facts)
    generator = load_generator(config) if job.system is None else None
    made = generate(job, generator)
    first, problem = _compare(stem, facts, job)
    return Remade(
        stem,
        _chain(facts),
        _chain(made),
        made["pixel_frames"],
        first,
        problem,
        _differences(facts.get("environment", {}), made["environment"]),
    )


def _chain(facts: dict[str, Any]) -> str:
    """The hash chain of the frames; of an imported video, whose frames nobody made here, the digest of its file."""
    return str(facts["frames_sha256_chain"] or facts["imported"]["sha256"])


def _facts(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _job(config: Settings, facts: dict[str, Any]) -> VideoJob:
    jobs = list(JobMaker().jobs(config, [facts["seed"]]))
    for job in jobs:
        if job.key == facts["key"]:
            return job
    same = [job for job in jobs if job.script.id == facts["id"]]
    fields = ", ".join(near_miss(same[0].record, facts["record"])) if same else "its prompt is not in the set any more"
    raise RemakeError(
        f"{facts['files']['mp4']} cannot be made again as it was: its configuration now stands for another video, "
        f"which differs in {fields}; check out the commit {_commit(facts)} that made it"
    )


def _commit(facts: dict[str, Any]) -> str:
    return str((facts.get("environment", {}).get("git") or {}).get("commit", "(unknown)"))


def _compare(stem: Path, facts: dict[str, Any], job: VideoJob) -> tuple[int | None, str]:
    """The first frame in which the lossless companions differ, and what is wrong with the old one."""
    from irope.video import frame_hash

    if facts["files"]["frames"] is None or not job.file.lossless:
        return None, ""
    old = read_frames(stem.with_name(facts["files"]["frames"]))
    new = read_frames(job.stem.with_name(job.stem.name + ".mkv"))
    start, first, chain = 0, None, ""
    try:
        for ours in old:
            chain = frame_hash(ours, chain)
            theirs = next(new, ours[:0])
            differing = [i for i in range(len(ours)) if i >= len(theirs) or (ours[i] != theirs[i]).any()]
            if first is None and differing:
                first = start + differing[0]
            start += len(ours)
    except VideoError as error:
        return first, str(error)
    wrong = "" if chain == facts["frames_sha256_chain"] else "its companion does not hold the frames its sidecar names"
    return first, wrong


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    try:
        names = near_miss(old, new)
    except CanonicalError:
        return {}
    return {name: (_at(old, name), _at(new, name)) for name in names}


def _at(value: Any, name: str) -> Any:
    """What a dotted name stands for; names of packages may hold dots themselves."""
    if not name or not isinstance(value, dict):
        return value
    for key in sorted(value, key=len, reverse=True):
        if name == key or name.startswith(f"{key}."):
            return _at(value[key], name[len(key) + 1 :])
    return None
