"""``irope verify fp8``: what FP8 linear layers cost in accuracy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope verify fp8", description="error of video.model.linear=fp8, with the arithmetic of a GPU, on the CPU"
    )
    parser.add_argument("--prompts", type=int, default=8, help="unseen prompts for the embedded model (default 8)")
    parser.add_argument("--checkpoint", default="stable", help="of the embedded model: stable (default) or base")
    options = parser.parse_args(arguments)
    import torch

    from irope.fp8_error import flow_errors, frame_errors
    from irope.models.tiny.info import weights_path
    from irope.models.tiny.model import load_tiny

    torch.set_num_threads(1)
    print("random weights, one call of three latent frames: rms error of the flow over its rms in float32")
    print(f"{'layers':>8}{'bfloat16':>12}{'fp8':>12}")
    for flow in flow_errors():
        print(f"{flow.layers:>8}{flow.bfloat16:>12.4f}{flow.fp8:>12.4f}", flush=True)
    print(f"embedded model, {options.prompts} unseen prompts, 5 s, the same noise: difference to the video without FP8")
    print(f"{'second':>8}{'mean of 255':>12}{'beyond 8':>12}")
    for frame in frame_errors(load_tiny(weights_path(options.checkpoint)), options.prompts):
        print(f"{frame.second:>8}{frame.mean:>12.2f}{frame.far:>12.1%}", flush=True)
    return 0
