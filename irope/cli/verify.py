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
    tiny.add_argument("--weights", type=Path, default=None, help="a weights file instead of the packaged one")
    options = parser.parse_args(arguments)
    return _golden(options.folder) if options.check == "golden" else _tiny(options)


def _tiny(options: argparse.Namespace) -> int:
    import torch

    from irope.models.tiny.evaluate import verify_tiny
    from irope.models.tiny.model import load_tiny

    torch.set_num_threads(1)
    if options.prompts < 1:
        raise UserError(f"--prompts {options.prompts}: at least one prompt is needed; nearest valid: 1")
    try:
        model = load_tiny(options.weights)
    except FileNotFoundError as error:
        raise UserError(f"{error}; to train a checkpoint run: irope train tiny") from error
    scores = verify_tiny(options.prompts, options.seed, model)
    print(
        f"embedded model, checkpoint {model.info.checkpoint}: {options.prompts} unseen prompts, 5 s, full causal cache"
    )
    for name, score in scores.items():
        print(f"{name:<18} {score.mean:6.3f}  n = {score.n}")
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
