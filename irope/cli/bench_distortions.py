"""``irope bench distortions``: which scorers notice which distortions, and by how much."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path


def run_distortions(options: argparse.Namespace) -> int:
    """Writes JSON, Markdown and a plot; exit code 1 if a declared effect does not hold."""
    import torch

    from eval.validate import validate
    from eval.validate_report import write
    from irope.errors import UserError

    if options.clips < 2:
        raise UserError(f"--clips {options.clips}: at least 2 clips are needed, 8 for intervals")
    torch.set_num_threads(1)
    stem = options.out or Path(f"results/reports/distortions-{datetime.now(UTC):%Y-%m-%d}.json")
    effects = validate(options.clips, report=lambda line: print(line, file=sys.stderr, flush=True))
    command = f"irope bench distortions --clips {options.clips}"
    written = write(effects, options.clips, command, stem.with_suffix(""), stem.with_suffix(".svg"))
    declared = [effect for effect in effects if effect.holds is not None]
    wrong = [effect for effect in declared if not effect.holds]
    print(f"{len(declared) - len(wrong)} of {len(declared)} declared effects hold: {', '.join(map(str, written))}")
    for effect in wrong:
        print(f"  {effect.clip_set}: {effect.scorer} under {effect.distortion} does not move as declared")
    return 1 if wrong else 0
