"""Speed on one GPU, in parts, with random weights: ``python -m irope.bench_gpu --out FILE.json``.

Needs torch and numpy, and uses Triton where it is there; the decoder's part needs diffusers and says so where it is
missing. After every part the JSON and a Markdown table beside it are written, so a kill loses one part. ``--device cpu
--small`` rehearses everything in seconds at a size that says nothing about speed.

Rules: one process; modes by turns, block by block; random weights and noise that are not zero; blocks that compile or
fill the window are warm-up, timed apart; at least 30 counted blocks; median, p10 and p90; wall time with the device's
work finished (of a rehearsal CPU time).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from irope.bench_gpu_parts import PARTS, Bench, Result, Skipped
from irope.bench_gpu_report import as_markdown
from irope.bench_rollout import SMALL, Geometry
from irope.provenance import environment, write_atomic, write_json_atomic

LEAST_TORCH = "2.6"
"""The first one where attention's backends can be put in an order; `irope` as a whole asks for a newer one."""

INSIDE = (
    "inside: 4 denoising steps, the context pass, noise drawn on the device; 'end to end' also the Wan decoder and the "
    "copy of the frames to the host; outside: text encoder, mp4 file, warm-up"
)


def clocks() -> str | None:
    """Clocks, power limit and temperature as ``nvidia-smi`` gives them now; None without it."""
    wanted = "clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu"
    with suppress(OSError, subprocess.SubprocessError, IndexError):
        command = ["nvidia-smi", f"--query-gpu={wanted}", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return f"{wanted}: {done.stdout.strip().splitlines()[0]}"
    return None


def attempt(part: Callable[[Bench], Result], bench: Bench) -> Result:
    """What a part answers; why it was left out; or how it failed, whatever the error was: it costs no other part."""
    try:
        found = part(bench)
        json.dumps(found, allow_nan=False)  # a number that is none would stop the file from being written
    except Skipped as why:
        return {"skipped": str(why)}
    except Exception as error:
        words = str(error).strip().splitlines() or ["without a message"]
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {words[0]}"}
    return found


def measure(bench: Bench, parts: Sequence[str], minutes: float, commit: str | None = None) -> Iterator[Result]:
    """The report after every part; a part that fails or comes too late is named and costs no other.

    Args:
        commit: of the code, where it lies outside of its repository.
    """
    begun = time.perf_counter()
    report: Result = {
        "kind": "bench_gpu",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(bench.device),
        "commit": commit,
        "triton": importlib.util.find_spec("triton") is not None,
        "clocks_before": clocks(),
        "small": bench.geometry is SMALL,
        "dtype": str(bench.dtype).removeprefix("torch."),
        "inside": INSIDE,
        "parts": {},
    }
    for name in parts:
        start = time.perf_counter()
        late = start - begun > 60 * minutes
        found = {"skipped": f"{minutes:g} minutes were over"} if late else attempt(PARTS[name], bench)
        report["parts"][name] = {"seconds": round(time.perf_counter() - start, 1), **found}
        after: Result = {"seconds": round(time.perf_counter() - begun, 1), "clocks_after": clocks()}
        compiler = {name: getattr(bench, name) for name in ("compiled", "not_compiled", "compile_seconds")}
        yield report | after | compiler


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="irope bench gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON; the table goes beside it as .md (default: results/reports)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny geometry and few blocks: a rehearsal")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--eager", action="store_true", help="without torch.compile, which is on for a GPU")
    parser.add_argument("--minutes", type=float, default=7, help="no part begins later than this (default: 7)")
    parser.add_argument("--commit", help="of this code, to be noted where there is no git repository around it")
    options = parser.parse_args(arguments)
    if torch.__version__ < LEAST_TORCH:
        sys.stderr.write(f"irope: error: torch {torch.__version__} is too old; install torch {LEAST_TORCH} or newer\n")
        return 2
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("irope: error: torch sees no GPU here; rehearse with --device cpu --small\n")
        return 2
    device = torch.device(options.device)
    if options.small:
        sizes: dict[str, Any] = {"blocks": 4, "long": 12, "matrix": 256, "recached": (3, 6, 9, 12), "switches": 1}
        sizes["batch"] = 2
        bench = Bench(device, torch.float32 if device.type == "cpu" else torch.bfloat16, SMALL, **sizes)
    else:
        bench = Bench(device, torch.bfloat16, Geometry())
    bench.compiled = device.type == "cuda" and not options.eager
    named = f"bench-{options.device}-{datetime.now(UTC):%Y-%m-%d}.json"
    path = options.out or Path("results/reports") / named
    for report in measure(bench, options.parts, options.minutes, options.commit):
        write_json_atomic(path, report)
        write_atomic(path.with_suffix(".md"), as_markdown(report).encode())
        name, part = list(report["parts"].items())[-1]
        state = part.get("failed") or part.get("skipped") or "done"
        sys.stderr.write(f"{name}: {state} ({part['seconds']:.1f} s)\n")
    sys.stdout.write(path.with_suffix(".md").read_text(encoding="utf-8"))
    return 1 if any("failed" in part for part in report["parts"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
