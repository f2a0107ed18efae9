"""``irope verify golden DIR`` and ``irope verify tiny``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from irope.errors import UserError


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="irope verify", description=__doc__)
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
    options = parser.parse_args(arguments)
    return _golden(options.folder) if options.check == "golden" else _tiny(options)


def _tiny(options: argparse.Namespace) -> int:
    import torch

    from irope.models.tiny.evaluate import STRETCH, verify_long, verify_tiny
    from irope.models.tiny.info import weights_path
    from irope.models.tiny.model import load_tiny

    torch.set_num_threads(1)
    if options.prompts < 1:
        raise UserError(f"--prompts {options.prompts}: at least one prompt is needed; nearest valid: 1")
    try:
        model = load_tiny(options.weights or weights_path(options.checkpoint))
    except FileNotFoundError as error:
        raise UserError(f"{error}; to train a checkpoint run: irope train tiny") from error
    print(f"embedded model, checkpoint {model.info.checkpoint}, {options.prompts} unseen prompts, seed {options.seed}")
    if options.seconds is None:
        print("5 s, full causal cache; mean, standard error, n")
        for name, score in verify_tiny(options.prompts, options.seed, model).items():
            print(f"{name:<16} {score.mean:6.3f}  {score.error:6.3f}  {score.n:>4}")
        return 0
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
