"""Systems of projects with an environment of their own: one program a video, clips back, the chain made here.

A video is a request in JSON (`runners/protocol.py`) to a small program that runs under the Python of that project and
imports nothing of ours. It makes the clips one after the other; each is a file in the video's work folder, whole or not
there, so that a killed video continues after the last of them. Clips are raw frames; one handed over as an mp4 becomes
raw frames here, so that the next clip finds its first frame as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from baselines.systems.chain import Clip, chain, clip_seed, moved_prompts, shots_of
from baselines.systems.environment import Environment, Project
from baselines.systems.program import Program
from irope.provenance import write_json_atomic
from irope.systems import (
    Beat,
    ImpossibleError,
    Interrupted,
    Out,
    Place,
    Request,
    RunInfo,
    Stop,
    System,
    SystemPlan,
)

RUNNERS = Path(__file__).parent / "runners"
PIECE = 24
"""Frames that are in memory at a time."""
LOG = "program.log"


@dataclass(frozen=True)
class SubprocessSystem(System):
    """A system whose program runs elsewhere: says what its project is, how long a clip is, and which runner makes it.

    Attributes:
        runner: the program, run by the Python of ``sys.systems.<name>``.
    """

    runner: ClassVar[Path]
    continues: ClassVar[bool] = True
    one_prompt: ClassVar[bool] = False

    def project(self) -> Project:
        """The project, and the weights that these settings need of it."""
        raise NotImplementedError

    def clip_frames(self) -> int:
        """Frames of one call."""
        raise NotImplementedError

    def clips(self, frames: int) -> tuple[Clip, ...]:
        """The calls that a video of ``frames`` frames takes; here a chain of image-to-video calls."""
        return chain(frames, self.clip_frames())

    def settings(self) -> dict[str, Any]:
        """What the runner is told; by default every field."""
        return asdict(self)

    def plan(self, seconds: float) -> SystemPlan:
        kept = self.frames(seconds)
        if kept < 1:
            raise ImpossibleError(f"{self.title}: {seconds:g} s are no frame at {self.rate()} frames per second")
        clips = self.clips(kept)
        raw = sum(map(self._bytes, clips)) / 1e9
        notes = [f"{raw:.1f} GB of raw frames in the work folder"]
        if len(clips) > 1:
            notes.insert(0, f"{len(clips)} clips of {clips[0].made} frames, each from the last frame of the one before")
        return SystemPlan(len(clips), clips[-1].stop, kept, tuple(notes))

    def check(self, place: Place) -> None:
        project = self.project()
        project.weight_files(project.environment(place).weights)

    def digest(self, place: Place) -> Mapping[str, Any]:
        project = self.project()
        return project.digest(project.environment(place))

    def generate(self, request: Request, out: Out, beat: Beat, stop: Stop) -> RunInfo:
        environment = self.project().environment(request.place)
        clips = self.clips(request.frames)
        shots = shots_of(clips, [(shot.start, shot.stop) for shot in request.shots], self.title)
        folder = request.work.absolute() / "clips"  # the program runs elsewhere
        folder.mkdir(exist_ok=True)
        files = [folder / f"clip-{clip.index:04d}.rgb" for clip in clips]
        made = before = self._whole(clips, files)
        for clip, file in zip(clips[:made], files, strict=False):
            self._emit(clip, file, out, beat)
        facts: dict[str, Any] = {}
        if made < len(clips):
            prompts = [request.shots[shot].prompt for shot in shots]
            asked = folder / "request.json"
            write_json_atomic(asked, self._asked(request.seed, prompts, clips, files, environment, made))
            with Program(
                self.title,
                [environment.python, self.runner, asked],
                cwd=environment.repo,
                log=folder.with_name(LOG),
                silence=environment.silence_s,
                limit=environment.limit_s,
            ) as program:
                for message in program.messages():
                    beat()
                    if stop():
                        raise Interrupted(f"{self.title}: stopped after clip {made} of {len(clips)}")
                    if message is None:
                        continue
                    if isinstance(info := message.get("info"), dict):
                        facts |= info
                    handed: Mapping[str, Any] = message
                    if "mp4" in message and made < len(clips):
                        handed = self._unpacked(program, clips[made], files[made], message, beat)
                    if "frames" in handed:
                        self._check(program, clips, files, made, handed)
                        self._emit(clips[made], files[made], out, beat)
                        made += 1
                if made < len(clips):
                    raise program.failed(f"ended well, but made {made} of {len(clips)} clips")
        notes = [f"made on {facts['device']}"] if "device" in facts else []
        notes += moved_prompts(clips, shots, [shot.start for shot in request.shots])
        return RunInfo(len(clips) - before, facts.get("versions", {}), facts.get("peak_bytes"), tuple(notes))

    def _asked(
        self,
        seed: int,
        prompts: Sequence[str],
        clips: Sequence[Clip],
        files: Sequence[Path],
        environment: Environment,
        made: int,
    ) -> dict[str, Any]:
        """The request for the clips that are still to be made."""
        height, width = self.picture()
        wanted = []
        for clip in clips[made:]:
            before = clips[clip.index - 1]
            start = {"file": str(files[before.index].resolve()), "frame": before.made - 1} if clip.repeated else None
            wanted.append(
                {
                    "index": clip.index,
                    "prompt": prompts[clip.index],
                    "seed": clip_seed(seed, clip.index),
                    "frames": clip.made,
                    "file": str(files[clip.index].resolve()),
                    "start": start,
                }
            )
        return {
            "repo": str(environment.repo),
            "weights": str(environment.weights),
            "settings": self.settings(),
            "options": {"offload": environment.offload},
            "height": height,
            "width": width,
            "fps": self.rate(),
            "clips": wanted,
        }

    def _bytes(self, clip: Clip) -> int:
        height, width = self.picture()
        return clip.made * height * width * 3

    def _whole(self, clips: Sequence[Clip], files: Sequence[Path]) -> int:
        """How many clips from the first on an earlier run has left; a file gets its name when it is whole."""
        for clip, file in zip(clips, files, strict=True):
            if not file.is_file() or file.stat().st_size != self._bytes(clip):
                return clip.index
        return len(clips)

    def _check(
        self, program: Program, clips: Sequence[Clip], files: Sequence[Path], made: int, message: Mapping[str, Any]
    ) -> None:
        """A clip that was handed over is the next one, and what was asked for."""
        if made == len(clips):
            raise program.failed(f"handed over more than the {made} clips it was asked for")
        height, width = self.picture()
        wanted = {"clip": made, "frames": clips[made].made, "height": height, "width": width}
        given = {key: message.get(key) for key in wanted}
        if given != wanted:
            raise program.failed(f"handed over {_words(given)} where {_words(wanted)} was asked for")
        if not files[made].is_file() or files[made].stat().st_size != self._bytes(clips[made]):
            raise program.failed(f"handed over clip {made}, but {files[made]} is not there or not whole")

    def _unpacked(
        self, program: Program, clip: Clip, file: Path, message: Mapping[str, Any], beat: Beat
    ) -> Mapping[str, Any]:
        """The message that hands over the frames of an mp4, which become the clip's file; the mp4 is removed."""
        from irope.video import VideoError, probe, read_frames

        path = Path(file.parent, str(message["mp4"])).resolve()
        if path.parent != file.parent.resolve():
            raise program.failed(f"handed over {path}, which is not in {file.parent}")
        height, width = self.picture()
        frames, part = 0, file.with_name(f"{file.name}.part")
        try:
            found = probe(path)
            said = f"{found.width}x{found.height} at {float(found.fps):g} fps"
            wanted = f"{width}x{height} at {self.rate()} fps"
            if said != wanted:
                raise program.failed(f"handed over clip {clip.index} as an mp4 of {said} where {wanted} was asked for")
            with part.open("wb") as raw:
                for piece in read_frames(path, PIECE):
                    beat()
                    raw.write(piece.tobytes())
                    frames += len(piece)
        except VideoError as error:
            raise program.failed(f"handed over an mp4 that cannot be read: {error}") from error
        if (frames, message.get("clip")) == (clip.made, clip.index):
            part.replace(file)
            path.unlink()
        return {"clip": message.get("clip"), "frames": frames, "height": height, "width": width}

    def _emit(self, clip: Clip, file: Path, out: Out, beat: Beat) -> None:
        """Pass on the new frames of a clip, a few at a time."""
        import numpy as np

        frames = np.memmap(file, np.uint8, "r", shape=(clip.made, *self.picture(), 3))
        for start in range(clip.repeated, clip.made, PIECE):
            beat()
            out(np.array(frames[start : start + PIECE]))


def _words(clip: Mapping[str, Any]) -> str:
    return f"clip {clip['clip']} with {clip['frames']} frames of {clip['width']}x{clip['height']}"
