"""Other video generators behind one contract: what a system is, how it is found, and what it owes to whoever runs it.

A system makes videos its own way: no cache policy, its own rate, size and length, its own weights. It is one file in
`baselines/systems`, a frozen dataclass whose fields are its settings:

    @register_system("my_system")
    @dataclass(frozen=True)
    class MySystem(System):
        '''One line for `irope list methods`.'''

        title: ClassVar[str] = "My System 1.3B"
        fps: ClassVar[int] = 24
        ...
        steps: int = 30

        def plan(self, seconds: float) -> SystemPlan: ...
        def digest(self, place: Place) -> dict[str, Any]: ...
        def generate(self, request: Request, out: Out, beat: Beat, stop: Stop) -> RunInfo: ...

and a `conf/method/my_system.yaml` with ``system: {name: my_system, steps: 30}``. Whoever runs it (`irope.system_video`)
writes the files, counts and cuts frames, and makes the sidecar. No tensors and no video library here.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from irope.errors import UserError
from irope.named_classes import NamedClasses
from irope.policy import PolicyError
from irope.timeline import Clock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from irope.script import PromptScript


class SystemSettingsError(UserError, ValueError):
    """There is no such system, or its settings are not valid."""


class SystemFailedError(UserError, RuntimeError):
    """A system did not deliver what it was asked for."""


class ImpossibleError(PolicyError):
    """A policy or a system cannot make a video of this length, with these prompts or this model; others can."""


class Interrupted(Exception):  # noqa: N818 (asked for, not a mistake)
    """A video was stopped, at a point from which it continues or starts again."""


Out: TypeAlias = "Callable[[NDArray[np.uint8]], None]"
"""Takes the next frames, uint8 [n, H, W, 3], RGB, in order, as they come; those beyond `Request.frames` are dropped."""

Beat: TypeAlias = Callable[[], None]
"""To be called every few seconds; raises `irope.claims.ClaimLost` when another worker has taken the video over."""

Stop: TypeAlias = Callable[[], bool]
"""True: leave what can be continued in `Request.work` and raise `Interrupted`."""


@dataclass(frozen=True)
class SystemPlan:
    """What a video of some seconds takes.

    Attributes:
        calls: of the pipeline or program: windows, clips.
        frames_made: that come out of them; ``frames_kept`` of these are the video, from the first on.
        notes: what is worth knowing, in words.
    """

    calls: int
    frames_made: int
    frames_kept: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a system runs; never part of a key.

    Attributes:
        weights: root of the weights folder, laid out as published: ``<root>/<owner>/<repo>/<file>``.
        device: ``auto``, ``cpu`` or ``cuda``; ``auto`` is a GPU where there is one.
        own: ``sys.systems.<name>``, for example ``python`` and ``repo`` of a project's own environment.
    """

    weights: Path = Path("weights")
    device: str = "auto"
    own: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shot:
    """One prompt of a video, for its frames ``start`` .. ``stop`` - 1."""

    prompt: str
    start: int
    stop: int
    cut: bool = False


@dataclass(frozen=True)
class Request:
    """One video to make.

    Attributes:
        shots: the prompts, in order, without gaps; one of them for a system with ``one_prompt``.
        seconds: length asked for; ``frames`` the frames that are kept, `SystemPlan.frames_kept`.
        work: folder of this process alone, on the file system of the video, claimed. What an earlier, interrupted run
            of the same video left there is still in it; names ending in ``.part`` are removed before a run.
    """

    shots: tuple[Shot, ...]
    seconds: float
    frames: int
    seed: int
    work: Path
    place: Place = field(default_factory=Place)

    @property
    def prompt(self) -> str:
        """The prompt of a video that has one."""
        return self.shots[0].prompt


@dataclass(frozen=True)
class RunInfo:
    """How a video was made, for its sidecar; wall time and frames are counted by whoever runs the system.

    Attributes:
        calls: that were made, as in `SystemPlan`; without those of an earlier, interrupted run.
        versions: of the libraries or the checkout that made the frames.
        peak_bytes: of device memory, where that is known.
        notes: what else a reader should know, in words.
    """

    calls: int
    versions: Mapping[str, str] = field(default_factory=dict)
    peak_bytes: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """A video that exists already (`folder`): its script, and what its file says.

    Attributes:
        record: what decides the frames: the file's digest, frames, rate and size.
        fps: frames per second, which need not be whole; ``size`` height and width of a frame.
    """

    path: Path
    script: PromptScript
    seed: int
    frames: int
    fps: float
    size: tuple[int, int]
    shots: tuple[Shot, ...]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class System(ABC):
    """A video generator with everything it needs; its fields are its settings, all part of a video's key.

    Attributes:
        name: set by `register_system`.
        title: as people call it, with the size of the model.
        fps, size: frames per second, and height and width of a frame, as published; `rate` and `picture` say what these
            settings give. ``native_seconds``: length of a video of one call.
        licence: of the weights, with the code's where that differs. ``source``: paper and code.
        needs: weights below the root, as ``owner/repo``. ``one_prompt``: a script with several prompts is refused.
        continues: an interrupted video goes on where it was; otherwise it starts over.
        imports: its videos exist already, each as long as it is.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    fps: ClassVar[int]
    size: ClassVar[tuple[int, int]]
    native_seconds: ClassVar[float]
    licence: ClassVar[str] = ""
    source: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    one_prompt: ClassVar[bool] = True
    continues: ClassVar[bool] = False
    imports: ClassVar[bool] = False

    @abstractmethod
    def plan(self, seconds: float) -> SystemPlan:
        """What a video of ``seconds`` takes; pure.

        Raises:
            ImpossibleError: this system cannot make a video of that length.
        """

    @abstractmethod
    def digest(self, place: Place) -> Mapping[str, Any]:
        """What decides the frames besides the settings: digests of weights, versions of code. JSON types; in the key.

        Raises:
            UserError: weights or a checkout are missing; says what to run.
        """

    @abstractmethod
    def generate(self, request: Request, out: Out, beat: Beat, stop: Stop) -> RunInfo:
        """Make one video. At least ``request.frames`` frames go to ``out``; a whole video is never held as pixels.

        Raises:
            Interrupted: ``stop`` said so. Whatever ``beat`` raises goes through.
        """

    def check(self, place: Place) -> None:
        """See that what it needs is there; reads no weights and starts nothing.

        Raises:
            UserError: something is missing; says what to run.
        """
        for repo in self.needs:
            weights_folder(place, repo)

    def rate(self) -> int:
        """Frames per second with these settings."""
        return self.fps

    def picture(self) -> tuple[int, int]:
        """Height and width of a frame with these settings."""
        return self.size

    def frames(self, seconds: float) -> int:
        """Frames of ``seconds`` at this system's rate, a part of a frame dropped: 120 for 5 s at 24 fps."""
        return floor(seconds * self.rate() + 1e-9)

    def clock(self) -> Clock:
        """A system's time runs in frames."""
        return Clock(fps=self.rate(), block=1, stride=1)

    def found(self, scripts: Sequence[PromptScript]) -> Sequence[Found] | None:
        """The videos that exist already, for a system that imports; None for one that makes them from prompts.

        ``scripts`` are those of the configuration, whose ids a file's prompt takes where it is the same.
        """
        return None

    @property
    def model_name(self) -> str:
        """The model's name in records and tables."""
        return self.name


_SYSTEMS = NamedClasses[System]("system", SystemSettingsError, "baselines.systems", key="video.method.system")

S = TypeVar("S", bound=type[System])


def register_system(name: str) -> Callable[[S], S]:
    """Class decorator: make a `System` known as ``name``.

    Raises:
        SystemSettingsError: another class already has that name.
    """
    return _SYSTEMS.register(name)


def systems() -> dict[str, type[System]]:
    """All known systems by name, sorted."""
    return _SYSTEMS.all()


def make_system(values: Mapping[str, Any]) -> System:
    """Build a system from ``video.method.system``: its ``name`` and its settings.

    Raises:
        SystemSettingsError: unknown system or setting, or a value of the wrong type; with the nearest valid one.
    """
    return _SYSTEMS.make(str(values.get("name")), {key: value for key, value in values.items() if key != "name"})


def place_from(sys: Mapping[str, Any], name: str) -> Place:
    """Where the system ``name`` runs, by ``sys.*`` of a configuration."""
    own = (sys.get("systems") or {}).get(name) or {}
    return Place(Path(str(sys.get("weights") or "weights")), str(sys["device"]), own)


def weights_folder(place: Place, repo: str, only: Sequence[str] = ()) -> Path:
    """The folder of published weights ``owner/repo``, of which the files ``only`` are needed (all, without any).

    Args:
        only: glob patterns, each of which must match; another model may need, and have, other parts of the repository.

    Raises:
        WeightsError: it is not there, or a part of it; with the command that downloads it.
    """
    from irope.errors import WeightsError

    folder = place.weights / repo
    include = f" --include {' '.join(shlex.quote(name) for name in only)}" if only else ""
    if not folder.is_dir():
        wrong = f"no weights of {repo} (looked below sys.weights={place.weights})"
    elif missing := [name for name in only if not any(folder.glob(name))]:
        wrong = f"of {repo} only a part is there, without {', '.join(missing)}"
    else:
        return folder
    raise WeightsError(f"{folder}: {wrong}; to get them run: hf download {repo} --local-dir {folder}{include}")
