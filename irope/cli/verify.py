"""Hold this installation, and what it made, to something independent.

irope verify golden DIR      replay the recorded runs in DIR
irope verify tiny            measure the embedded model on unseen prompts
irope verify fp8             measure the error of FP8 linear layers
irope verify faults          kill, starve and confuse workers, and compare with an undisturbed run
irope verify RUN             make one video below the folder RUN again and compare its frames
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irope.errors import UserError
from irope.settings import hint

if TYPE_CHECKING:
    from irope.faults import Outcome
    from irope.models.tiny.model import TinyModel
    from irope.remake import Remade

SUFFIXES = ("mp4", "mkv", "json")
CHECKS = ("golden", "tiny", "fp8", "faults")


def run(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] not in CHECKS and not arguments[0].startswith("-"):
        return _run_folder(arguments)
    if arguments[:1] == ["faults"]:
        return _faults(arguments[1:])
    if arguments[:1] == ["fp8"]:
        from irope.cli.verify_fp8 import run as verify_fp8

        return verify_fp8(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="irope verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    checks = parser.add_subparsers(dest="check", required=True)
    golden = checks.add_parser("golden", help="replay every recorded run in DIR; exit code 1 when one differs")
    golden.add_argument("folder", type=Path, metavar="DIR")
    tiny = checks.add_parser("tiny", help="measure the embedded model at 5 s on unseen prompts with the tracker")
    tiny.add_argument("--prompts", type=int, default=64, help="unseen prompts (default 64)")
    tiny.add_argument("--seed", type=int, default=0)
    tiny.add_argument("--seconds", type=float, default=None, help="score long videos instead, with a window")
    tiny.add_argument("--at", type=float, nargs="+", default=[0.0], help="seconds where a 5 s stretch is scored")
    tiny.add_argument("--window", type=int, default=6, help="of long videos, in latent frames (default 6)")
    tiny.add_argument("--sink", type=int, default=1, help="of long videos (default 1)")
    tiny.add_argument("--checkpoint", default="stable", help="a packaged checkpoint: stable (default) or base")
    tiny.add_argument("--weights", type=Path, default=None, help="a weights file instead of the packaged one")
    tiny.add_argument("--sheet", type=Path, default=None, help="PNG to draw eight of the videos in, one of each action")
    checks.add_parser("fp8", help="the error of video.model.linear=fp8 on random weights and the embedded model")
    checks.add_parser("faults", help="real workers under kills, full disks, damaged files, wrong clocks, ...")
    options = parser.parse_args(arguments)
    return _golden(options.folder) if options.check == "golden" else _tiny(options)


def _faults(arguments: Sequence[str]) -> int:
    """``irope verify faults``."""
    faults = argparse.ArgumentParser(
        prog="irope verify faults",
        description="hold workers under faults to an undisturbed run; exit code 1 on a failure",
    )
    faults.add_argument("--videos", type=int, default=12, help="short videos to make, over and over (default 12)")
    faults.add_argument("--kills", type=int, default=50, help="workers to kill -9 (default 50)")
    faults.add_argument("--workers", type=int, default=4, help="at a time (default 4)")
    faults.add_argument("--sleepers", type=int, default=5, help="owners to stop in the middle of a video (default 5)")
    faults.add_argument("--seed", type=int, default=0, help="of every random moment (default 0)")
    faults.add_argument("--json", type=Path, default=None, metavar="FILE", help="also write what was found as JSON")
    faults.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides for the videos")
    options = faults.parse_intermixed_args(arguments)
    from irope.config import load
    from irope.fault_cases import check_faults
    from irope.provenance import environment, write_json_atomic

    for name, least in (("videos", 2), ("kills", 1), ("workers", 1), ("sleepers", 1)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} {getattr(options, name)}: nearest valid: {least}")
    config = load(["prompts=basic", "duration=5", *options.overrides])
    chosen = {name: getattr(options, name) for name in ("kills", "workers", "sleepers", "seed")}
    outcomes: list[Outcome] = []
    print(f"{options.videos} videos with {config['video']['method']['name']}, in a temporary folder; undisturbed first")
    with tempfile.TemporaryDirectory(prefix="irope-faults-") as folder:
        for outcome in check_faults(Path(folder), config, options.videos, **chosen):
            outcomes.append(outcome)
            print(f"\n{'ok  ' if outcome.ok else 'FAIL'}  {outcome.fault}", flush=True)
            for line in (outcome.done, outcome.result, *(f"problem: {text}" for text in outcome.problems)):
                print(f"      {line}", flush=True)
    kept = sum(outcome.ok for outcome in outcomes)
    print(
        f"\n{kept} of {len(outcomes)} faults leave every finished video as it was, make none twice, put no half file "
        "under a final name,\nand end with the frames of the undisturbed run"
    )
    if options.json is not None:
        records = [{**vars(outcome), "ok": outcome.ok} for outcome in outcomes]
        settings = {"videos": options.videos, **chosen, "overrides": options.overrides}
        write_json_atomic(options.json, {"faults": records, "settings": settings, "environment": environment()})
    return 0 if kept == len(outcomes) else 1


def _run_folder(arguments: Sequence[str]) -> int:
    """``irope verify RUN``."""
    parser = argparse.ArgumentParser(
        prog="irope verify RUN", description="make one finished video below RUN again and compare its frames"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder with videos, or one with such folders in it")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="every video instead of a random one")
    which.add_argument("--video", metavar="STEM", help="this one: a file name, with or without suffix or folder")
    parser.add_argument("--seed", type=int, default=None, help="of the random choice (default: another each time)")
    options = parser.parse_args(arguments)
    if not options.run.is_dir():
        raise UserError(f"{options.run} is no folder, and no check{hint(str(options.run), CHECKS)}")
    import random

    import torch

    from irope.remake import finished_videos, remake

    torch.set_num_threads(1)
    stems = finished_videos(options.run)
    if not stems:
        raise UserError(
            f"{options.run} holds no finished video of irope; make some: irope generate sys.out={options.run}"
        )
    if options.video:
        chosen = [
            stem for stem in stems if options.video.endswith((stem.name, *(f"{stem.name}.{s}" for s in SUFFIXES)))
        ]
        if not chosen:
            raise UserError(f"--video {options.video}: not among the {len(stems)} videos; the first is {stems[0].name}")
    else:
        chosen = stems if options.all else [random.Random(options.seed).choice(stems)]
    same = 0
    for stem in chosen:
        with tempfile.TemporaryDirectory(prefix="irope-verify-") as folder:
            remade = remake(stem, Path(folder))
        same += remade.same
        _tell(remade, options.run)
    print(f"{same} of {len(chosen)} made again frame for frame ({len(stems)} videos below {options.run})")
    return 0 if same == len(chosen) else 1


def _tell(remade: Remade, run: Path) -> None:
    name = remade.stem.relative_to(run)
    print(f"{'same     ' if remade.same else 'DIFFERENT'}  {name}  {remade.frames} frames, chain {remade.found[:12]}")
    if remade.same:
        return
    if remade.found != remade.expected:
        print(f"      the sidecar says {remade.expected[:12]}")
    if remade.first_difference is not None:
        print(f"      first frame that differs from the lossless companion: {remade.first_difference}")
    if remade.problem:
        print(f"      {remade.problem}")
    for field, (then, now) in remade.environment.items():
        print(f"      {field}: then {_short(then)}, now {_short(now)}")
    if not remade.environment:
        print("      nothing differs between the two environments")


def _short(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value) if isinstance(value, dict | list) else str(value)


def _tiny(options: argparse.Namespace) -> int:
    import torch

    from irope.models.tiny.evaluate import STRETCH, verify_codec, verify_long, verify_tiny
    from irope.models.tiny.info import weights_path
    from irope.models.tiny.model import load_tiny
    from irope.script import Clock

    torch.set_num_threads(1)
    if options.prompts < 1:
        raise UserError(f"--prompts {options.prompts}: at least one prompt is needed; nearest valid: 1")
    try:
        model = load_tiny(options.weights or weights_path(options.checkpoint))
    except FileNotFoundError as error:
        raise UserError(f"{error}; to train a checkpoint run: irope train tiny") from error
    print(f"embedded model, checkpoint {model.info.checkpoint}, {options.prompts} unseen prompts, seed {options.seed}")
    if options.seconds is None:
        print("5 s, full causal cache; mean, standard error, n, and the codec's ceiling: the same scenes, true clips")
        ceiling, psnr = verify_codec(model.codec, options.prompts, options.seed)
        for name, score in verify_tiny(options.prompts, options.seed, model).items():
            print(f"{name:<16} {score.mean:6.3f}  {score.error:6.3f}  {score.n:>4}  {ceiling[name].mean:6.3f}")
        print(f"codec: {psnr:.2f} dB PSNR on those clips")
        return _sheet(options, model, model.info.horizon)
    if wrong := [at for at in options.at if at < 0 or at + STRETCH > options.seconds]:
        latest = max(0.0, options.seconds - STRETCH)
        raise UserError(
            f"--at {wrong[0]:g}: {STRETCH:g} s from there do not lie in the video; nearest valid: {latest:g}"
        )
    table = verify_long(model, options.seconds, options.at, options.window, options.sink, options.prompts, options.seed)
    print(f"{options.seconds:g} s, window {options.window}, sink {options.sink}; means of {STRETCH:g} s from")
    print(f"{'':<16}" + "".join(f"{at:>7g} s" for at in options.at) + "     n")
    for name, first in table[options.at[0]].items():
        print(f"{name:<16}" + "".join(f"{table[at][name].mean:>9.3f}" for at in options.at) + f"{first.n:>6}")
    return _sheet(options, model, Clock(model.info.fps, model.info.block).latents(options.seconds))


def _sheet(options: argparse.Namespace, model: TinyModel, latents: int) -> int:
    """Draw eight of the videos that were measured, a strip each, where ``--sheet`` says so."""
    if options.sheet is None:
        return 0
    from irope.models.tiny.codec import pixel_frames
    from irope.models.tiny.evaluate import generate, unseen_scenes
    from irope.sheet import Row, filmstrip, save_sheet

    prompts = [scene.prompt for scene in unseen_scenes(8, options.seed)]
    long = options.seconds is not None
    windowed = (options.window, options.sink) if long else (None, 0)
    videos = generate(model, prompts, latents, options.seed, *windowed)
    last = (pixel_frames(latents) - 1) / model.info.fps
    times = [round(last * step / 10, 0 if long else 1) for step in range(11)]
    rows = [
        Row(prompt.removeprefix("a "), [video[min(round(t * model.info.fps), len(video) - 1)] for t in times])
        for prompt, video in zip(prompts, videos, strict=True)
    ]
    how = f"window {options.window}, sink {options.sink}" if long else "full causal cache"
    save_sheet(
        filmstrip(rows, times, title=f"tiny/{model.info.checkpoint}, {last:.0f} s, {how}", scale=1), options.sheet
    )
    print(f"{options.sheet}: eight of the videos, one of each action")
    return 0


def _golden(folder: Path) -> int:
    from irope.golden import TOLERANCE, verify

    failed = total = 0
    for result in verify(folder):
        total += 1
        failed += not result.ok
        shown = f"{result.difference:.2e}" if result.difference is not None else "-"
        print(f"{result.name:<58} {shown:>9}  {'ok' if result.ok else 'FAIL'}  {result.problem}".rstrip(), flush=True)
    print(f"{total - failed} of {total} recorded runs within {TOLERANCE:g} (largest absolute difference, float32)")
    return 1 if failed else 0
