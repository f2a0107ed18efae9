"""Train the embedded model from nothing: deterministic by seed, resumable at any step.

irope train tiny                          all stages (about 80 minutes on two free CPU cores)
irope train tiny --resume                 go on where a run stopped
irope train tiny --stage base             stop after that stage
irope train tiny --stage distilled --from FILE
                                          an optional extra stage on finished weights, no part of the shipped recipe:
                                          self-rollout distillation, for a GPU (a CPU needs hours and small batches)
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from irope.errors import UserError
from irope.settings import hint


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=["tiny"])
    parser.add_argument("--stage", default=None, help="last stage to train (default: all)")
    parser.add_argument(
        "--from", dest="start", type=Path, default=None, help="weights that --stage distilled starts on"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--out", type=Path, default=Path("results/runs/train-tiny"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default=None, help="cpu or cuda (default: a GPU where there is one)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    options = parser.parse_args(arguments)

    import torch

    from irope.models.tiny.distill import NAME, STAGE, DistillConfig, DistillProgress, distill
    from irope.models.tiny.stages import SHIPPED_STAGES
    from irope.models.tiny.train import Progress, TrainConfig, train

    names = [*(stage.name for stage in SHIPPED_STAGES), NAME]
    if options.stage is not None and options.stage not in names:
        raise UserError(f"--stage {options.stage}: unknown stage{hint(options.stage, names)}")
    if (options.start is not None) != (options.stage == NAME):
        raise UserError(
            f"--stage {NAME} and --from FILE go together: FILE is a weights file, for example that of stable"
        )
    if options.start is not None and not options.start.is_file():
        raise UserError(f"--from {options.start}: there is no such file")
    if options.threads < 1:
        raise UserError(f"--threads {options.threads}: nearest valid value is 1")
    torch.set_num_threads(options.threads)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    began = time.monotonic()

    def report(progress: Progress | DistillProgress) -> None:
        if isinstance(progress, Progress):
            losses = (
                f"{progress.stage:<8} loss {progress.loss_first:.3f} (first block) {progress.loss_later:.3f} (later)"
            )
        else:
            losses = f"{NAME} loss {progress.fake_loss:.3f} (fake score), gap to the teacher {progress.gap:.3f}"
        print(
            f"step {progress.step}/{progress.steps}  {losses}  {progress.frames_per_second:.0f} latent frames/s  "
            f"{(time.monotonic() - began) / 60:.1f} min",
            flush=True,
        )

    interrupted: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: interrupted.append(number))  # a step is finished first
    try:
        if options.start is not None:
            stage = STAGE if device != "cpu" else replace(STAGE, batch=4)
            distillation = DistillConfig(options.start, options.out, stage, options.seed, device=device)
            path = distill(distillation, report, options.resume, stop=lambda: bool(interrupted))
        else:
            config = TrainConfig(out=options.out, seed=options.seed, device=device)
            path = train(config, report, options.resume, options.stage, stop=lambda: bool(interrupted))
    except KeyboardInterrupt as error:
        print(f"\nirope: {error}, all before it is saved; go on with --resume added", file=sys.stderr)
        return 130
    except UserError:
        raise
    except (FileExistsError, ValueError) as error:
        raise UserError(f"{error} (--resume continues a run, --out chooses another folder)") from error
    print(f"weights: {path}\nmeasure them with: irope verify tiny --weights {path}")
    return 0
