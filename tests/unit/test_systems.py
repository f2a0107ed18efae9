"""Systems: from a configuration to a video on disk with its sidecar, with a made-up system that draws its frames."""

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from eval.videos import find_videos
from irope.claims import Claims
from irope.config import load, policy_from
from irope.cost import Work, estimate
from irope.errors import UserError
from irope.experiment import experiment_from
from irope.generate import as_they_come_free, generate, generate_claimed
from irope.jobs import jobs_from, model_of
from irope.policy import PolicyError
from irope.remake import remake
from irope.systems import (
    _SYSTEMS,
    ImpossibleError,
    Interrupted,
    Place,
    Request,
    RunInfo,
    System,
    SystemFailedError,
    SystemPlan,
    SystemSettingsError,
    make_system,
    place_from,
    register_system,
    weights_folder,
)
from irope.video import probe, read_frames

HEIGHT, WIDTH = 16, 24


@dataclass(frozen=True)
class Ramp(System):
    """Frames that get lighter, in windows of `window` frames."""

    fps: ClassVar[int] = 12
    size: ClassVar[tuple[int, int]] = (HEIGHT, WIDTH)
    native_seconds: ClassVar[float] = 2.0

    window: int = 7
    short_by: int = 0
    width: int = WIDTH
    many: bool = False
    fail_at: int = -1

    @property
    def one_prompt(self) -> bool:  # type: ignore[override]
        return not self.many

    def plan(self, seconds: float) -> SystemPlan:
        if seconds > 100:
            raise ImpossibleError(f"ramp makes 100 s at most, asked for {seconds:g} s")
        kept = self.frames(seconds)
        calls = -(-kept // self.window)
        return SystemPlan(calls, calls * self.window, kept)

    def digest(self, place: Place) -> Mapping[str, Any]:
        return {"weights": "0" * 64}

    def generate(self, request: Request, out: Any, beat: Any, stop: Any) -> RunInfo:
        notes = sorted(path.name for path in request.work.iterdir())
        (request.work / "started").touch()
        plan = self.plan(request.seconds)
        tone = int(hashlib.sha256(request.prompt.encode()).hexdigest()[:2], 16) // 2
        for call in range(plan.calls):
            beat()
            if stop() or call == self.fail_at:
                raise Interrupted("ramp was stopped")
            frames = np.full((self.window, HEIGHT, self.width, 3), tone, np.uint8)
            frames += np.arange(call * self.window, (call + 1) * self.window, dtype=np.uint8)[:, None, None, None]
            out(frames[: self.window - self.short_by])
        return RunInfo(plan.calls, {"ramp": "1.0"}, peak_bytes=5, notes=tuple(notes))


@pytest.fixture(autouse=True)
def _ramp() -> Iterator[None]:
    register_system("ramp")(Ramp)
    yield
    del _SYSTEMS.known["ramp"]


def config_of(out: Path, *overrides: str) -> Any:
    return load(
        [
            "+video.method.system={name:ramp,window:7}",
            "video.method.name=ramp",
            "prompt=a cat",
            f"sys.out={out}",
            *overrides,
        ]
    )


def test_a_video_has_the_frames_rate_and_size_of_its_system(tmp_path: Path):
    (job,) = jobs_from(config_of(tmp_path, "duration=3"))
    sidecar = generate(job, None)
    assert json.loads(job.sidecar.read_text()) == sidecar
    info = probe(job.video)
    assert (info.frames, float(info.fps), info.height, info.width) == (36, 12.0, HEIGHT, WIDTH)
    assert (sidecar["fps"], sidecar["pixel_frames"], sidecar["size"]) == (12, 36, [HEIGHT, WIDTH])
    assert sidecar["model"] == sidecar["system"] == "ramp"
    assert sidecar["policy"] is None
    assert sidecar["segments"][0] | {"subtitle": None} == {
        "prompt": "a cat",
        "start_block": 0,
        "stop_block": 36,
        "start_frame": 0,
        "stop_frame": 36,
        "cut": False,
        "subtitle": None,
    }
    assert sidecar["run"]["calls"] == 6
    assert sidecar["run"]["frames_made"] == 42
    assert "6 frames beyond the length asked for were cut off" in sidecar["run"]["notes"]
    tones = [int(frame.mean()) for chunk in read_frames(job.video) for frame in chunk]
    assert np.allclose(np.diff(tones), 1, atol=1.01)  # the frames in their order; the mp4 is lossy
    assert job.done
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / ".work").exists()


def test_without_a_duration_the_native_length(tmp_path: Path):
    (job,) = jobs_from(config_of(tmp_path))
    assert job.timeline.blocks == 24


def test_the_key_depends_on_the_system_and_not_on_the_model(tmp_path: Path):
    def key(*overrides: str) -> str:
        return jobs_from(config_of(tmp_path, "duration=2", *overrides))[0].key

    plain = key()
    assert key("video.model.checkpoint=base", "video.model.dtype=bfloat16", "video.model.scale=1") == plain
    assert key("video.method.system.window=5") != plain
    assert key("seed=1") != plain
    assert key("duration=3") != plain
    assert key("prompt=a dog") != plain


def test_a_script_with_several_prompts_is_refused_unless_the_system_takes_them(tmp_path: Path):
    script = "prompt=a cat[1s] | a dog[2s]"
    with pytest.raises(ImpossibleError, match="one prompt a video"):
        jobs_from(config_of(tmp_path, script))
    (job,) = jobs_from(config_of(tmp_path, script, "+video.method.system.many=true"))
    assert [(s.start_block, s.stop_block) for s in job.timeline.segments] == [(0, 12), (12, 36)]


def test_a_length_it_cannot_make_is_refused(tmp_path: Path):
    with pytest.raises(ImpossibleError, match="100 s at most"):
        jobs_from(config_of(tmp_path, "duration=101"))


def test_an_interrupted_video_starts_over_and_finds_its_own_work(tmp_path: Path):
    (job,) = jobs_from(config_of(tmp_path, "duration=2", "+video.method.system.fail_at=2"))
    for _, claim in as_they_come_free(deque([job]), Claims(tmp_path), lambda _: None):
        assert claim is not None
        with pytest.raises(Interrupted):
            generate_claimed(job, claim, None)
    assert not job.video.exists()
    (left,) = (tmp_path / ".work").iterdir()
    assert list(left.rglob("started"))
    calls = iter([False, False, True])
    (again,) = jobs_from(config_of(tmp_path, "duration=2"))
    with pytest.raises(Interrupted):
        generate(again, None, stop=lambda: next(calls))
    sidecar = generate(again, None)
    assert sidecar["pixel_frames"] == 24
    assert "started" in sidecar["run"]["notes"]  # what the interrupted run left in its folder


@pytest.mark.parametrize(
    ("setting", "message"),
    [("short_by=2", "made 20 frames, 24 are needed"), ("width=32", "made frames of 16x32, its settings say 16x24")],
)
def test_what_a_system_owes(tmp_path: Path, setting: str, message: str):
    (job,) = jobs_from(config_of(tmp_path, "duration=2", f"+video.method.system.{setting}"))
    with pytest.raises(SystemFailedError, match=message):
        generate(job, None)
    assert not job.sidecar.exists()
    assert not job.video.exists()


def test_made_again_it_has_the_same_frames(tmp_path: Path):
    (job,) = jobs_from(config_of(tmp_path / "a", "duration=2"))
    generate(job, None)
    assert remake(job.stem, tmp_path / "b").same


def test_scoring_takes_rate_segments_and_model_from_the_sidecar(tmp_path: Path):
    (job,) = jobs_from(config_of(tmp_path, "prompt=a cat[1s] | a dog[2s]", "+video.method.system.many=true"))
    generate(job, None)
    (video,), problems = find_videos(tmp_path)
    assert not problems
    assert (video.model, video.method, video.generated) == ("ramp", "ramp", True)
    assert [(span.start, span.stop, span.prompt) for span in video.segments] == [(0, 12, "a cat"), (12, 36, "a dog")]


def test_durations_of_an_experiment_are_videos_of_their_own(tmp_path: Path):
    words = ["+video.method.system={name:ramp,window:7}", "prompts=basic", "video.prompts.limit=1", "duration=2,3"]
    cells = experiment_from([*words, f"sys.out={tmp_path}"], multirun=True).cells
    assert [cell.seconds for cell in cells] == [(2.0,), (3.0,)]


def test_a_system_has_no_policy_to_explain(tmp_path: Path):
    config = config_of(tmp_path)
    (job,) = jobs_from(config)
    assert model_of(config) == job.model == "ramp"
    with pytest.raises(PolicyError, match="no cache policy"):
        _ = job.own
    del config["video"]["method"]["policy"]
    with pytest.raises(PolicyError, match="no cache policy"):
        policy_from(config)


def test_settings_are_checked_by_name_and_type():
    with pytest.raises(SystemSettingsError, match=r"unknown system 'ramb'.*did you mean 'ramp'"):
        make_system({"name": "ramb"})
    with pytest.raises(SystemSettingsError, match="did you mean 'window'"):
        make_system({"name": "ramp", "windows": 3})
    with pytest.raises(SystemSettingsError, match="expected int"):
        make_system({"name": "ramp", "window": "many"})
    with pytest.raises(SystemSettingsError, match="is taken"):

        @register_system("ramp")
        @dataclass(frozen=True)
        class Other(Ramp):
            pass


def test_latents_are_refused_and_missing_weights_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"video\.latents=21"):
        jobs_from(config_of(tmp_path, "video.latents=21"))
    place = place_from({"weights": str(tmp_path), "device": "cpu", "systems": {"ramp": {"python": "p"}}}, "ramp")
    assert place.own == {"python": "p"}
    with pytest.raises(UserError, match=r"hf download owner/repo --local-dir .*owner/repo"):
        weights_folder(place, "owner/repo")


def test_an_estimate_says_what_it_does_not_know():
    found = estimate([Work(name, name, 24, 24) for name in ("ramp", "tiny/stable", "other")], [], "embedded")
    assert found.measured == 0
    assert found.source.endswith("; nothing is known of other, ramp before a first video, which counts as 0 s")
