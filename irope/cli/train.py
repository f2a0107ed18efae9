"""Train the embedded model from nothing: deterministic by seed, resumable at any step.

irope train tiny                          all stages (101 minutes on one core beside other work, 58 of them to `base`)
irope train tiny --stages                 what the stages are, and nothing else
irope train tiny --stage base             stop after that stage
irope train tiny --resume                 go on where a run stopped
irope train tiny --stage distilled --from FILE
                                          an optional extra stage on finished weights, no part of the shipped recipe:
                                          self-rollout distillation, for a GPU (a CPU needs hours and small batches)

In --out: codec.safetensors, the weights after each stage as STAGE.safetensors, the state to go on from, and losses.csv,
drawn by: irope plot OUT/losses.csv
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irope.errors import UserError
from irope.settings import hint

if TYPE_CHECKING:
    from irope.models.tiny.distill import DistillProgress
    from irope.models.tiny.losses import Progress
    from irope.models.tiny.train_codec import CodecProgress


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=["tiny"])
    parser.add_argument("--stages", action="store_true", help="list the stages")
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

    from irope.models.tiny.distill import NAME, STAGE, DistillConfig, distill
    from irope.models.tiny.stages import SHIPPED_STAGES
    from irope.models.tiny.train import CODEC_STAGE, TrainConfig, train

    if options.stages:
        print(_stages())
        return 0
    names = [CODEC_STAGE, *(stage.name for stage in SHIPPED_STAGES), NAME]
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

    def report(progress: Progress | CodecProgress | DistillProgress) -> None:
        print(_line(progress, (time.monotonic() - began) / 60), flush=True)

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
        print(f"\nirope: {error}; go on with --resume added", file=sys.stderr)
        return 130
    except UserError:
        raise
    except (FileExistsError, ValueError) as error:
        raise UserError(f"{error} (--resume continues a run, --out chooses another folder)") from error
    if options.stage == CODEC_STAGE:
        print(f"codec: {path}\n{_measured(path)}")
        return 0
    print(f"weights: {path}\nmeasure them with: irope verify tiny --weights {path}")
    return 0


def _line(progress: Progress | CodecProgress | DistillProgress, minutes: float) -> str:
    from irope.models.tiny.losses import Progress
    from irope.models.tiny.train_codec import CodecProgress

    place = f"step {progress.step}/{progress.steps}  "
    if isinstance(progress, CodecProgress):
        return f"{place}codec    {progress.psnr:.2f} dB of training clips with noise  {minutes:.1f} min"
    if isinstance(progress, Progress):
        losses = f"{progress.stage:<8} loss {progress.loss_first:.3f} (first block) {progress.loss_later:.3f} (later)"
    else:
        losses = f"distilled loss {progress.fake_loss:.3f} (fake score), gap to the teacher {progress.gap:.3f}"
    return f"{place}{losses}  {progress.frames_per_second:.0f} latent frames/s  {minutes:.1f} min"


def _stages() -> str:
    """The stages of the shipped recipe as a Markdown table."""
    from irope.models.tiny.stages import SHIPPED_STAGES
    from irope.models.tiny.train import CODEC_STAGE
    from irope.models.tiny.train_codec import ADDS, DecoderConfig

    codec = DecoderConfig()
    rows = [(CODEC_STAGE, codec.steps, codec.clips, codec.frames, ADDS)]
    rows += [(stage.name, stage.steps, stage.batch, stage.frames, stage.adds) for stage in SHIPPED_STAGES]
    table = ["| stage   | steps | clips x latent frames | what it adds |", "| --- | --- | --- | --- |"]
    table += [f"| {row[0]:<7} | {row[1]:>5} | {row[2]:>2} x {row[3]:<2} | {row[4]} |" for row in rows]
    return "\n".join(table)


def _measured(path: Path) -> str:
    """What fresh clips lose in a codec, in words."""
    from irope.models.tiny.train_codec import codec_psnr, read_codec

    codec, _ = read_codec(path)
    wide, narrow = (codec_psnr(codec, spread=spread)[0] for spread in (1.0, 0.35))
    return f"64 fresh clips: {wide:.2f} dB PSNR; {narrow:.2f} dB where starts, sizes and speeds stray little"
