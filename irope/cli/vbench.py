"""``irope vbench install|weights|check|reference``: the stock VBench package, its weights, and its own numbers."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from irope.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_DEPENDENCIES = ("vbench==0.1.5", "openai-clip==1.0.1", "pyiqa==0.1.16")
"""As in requirements/vbench.txt: what they pin is older than what they run with."""


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="irope vbench", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    install = verbs.add_parser("install", help="install vbench beside this torch, numpy and transformers, with pip")
    install.add_argument("--dry-run", action="store_true", help="print the commands and do nothing")
    weights = verbs.add_parser("weights", help="every weight file: where it must lie, and whether it is there")
    weights.add_argument("--digest", action="store_true", help="also compute sha256 (a minute, then remembered)")
    weights.add_argument("--json", action="store_true", help="as JSON")
    weights.add_argument(
        "--random", type=Path, metavar="DIR", help="write random weights of the right shapes, to try things out"
    )
    verbs.add_parser("check", help="which dimensions can be scored here; exit code 1 if not all")
    reference = verbs.add_parser("reference", help="the stock package's numbers for a folder of mp4 files, as JSON")
    reference.add_argument("folder", type=Path)
    reference.add_argument("dimensions", nargs="*", help="by default all that can run here")
    reference.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    actions: Mapping[str, Callable[[argparse.Namespace], int]] = {
        "install": _install,
        "weights": _weights,
        "check": _check,
        "reference": _reference,
    }
    return actions[options.verb](options)


def install_commands() -> list[list[str]]:
    """What brings vbench into this environment: first what it imports, then itself without its pins of 2023.

    The torch that is installed stays; our constraints apply where they were made for it.
    """
    from importlib.metadata import version

    pip, torch = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"], version("torch").split("+")[0]
    constraints = ROOT / "constraints.txt"
    pinned = constraints.is_file() and f"torch=={torch}" in constraints.read_text(encoding="utf-8").split()
    package = ["-e", f"{ROOT}[vbench]"] if (ROOT / "pyproject.toml").is_file() else ["irope[vbench]"]
    return [
        [*pip, *(["-c", str(constraints)] if pinned else []), f"torch=={torch}", *package],
        [*pip, "--no-deps", *WITHOUT_DEPENDENCIES],
    ]


def _install(options: argparse.Namespace) -> int:
    for command in install_commands():
        print(shlex.join(command), flush=True)
        if not options.dry_run and subprocess.run(command, check=False).returncode:
            raise UserError("pip failed, see above; the commands can be run by hand, also with --no-index --find-links")
    if options.dry_run:
        return 0
    from eval.vbench.packages import missing
    from eval.vbench.weights import copy_vocabulary

    print(f"vocabulary of ViCLIP: {copy_vocabulary()}")
    if reason := missing():
        raise UserError(f"vbench still cannot be imported: {reason}")
    print("vbench can be imported; next: irope vbench weights")
    return 0


def _weights(options: argparse.Namespace) -> int:
    from eval.vbench.weights import WEIGHTS, check

    if options.random:
        return _random(options.random)
    checks = [check(file, options.digest) for file in WEIGHTS]
    if options.json:
        print(json.dumps([_row(found) for found in checks], indent=1))
    else:
        _print_table([_row(found) for found in checks])
    return int(any(found.status != "present" for found in checks))


def _row(found: Any) -> dict[str, Any]:
    file = found.file
    return {
        "status": found.status,
        "path": str(file.path),
        "bytes": file.size,
        "sha256": file.sha256,
        "found_sha256": found.sha256,
        "dimensions": list(file.dimensions),
        "source": file.source,
        "note": "; ".join(filter(None, [file.note, "only the stock package needs it" * file.stock_only])),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        size = f", {row['bytes'] / 1e6:,.3g} MB" if row["bytes"] else ""
        print(f"{row['status']:<13}{row['path']}")
        print(f"{'':<13}{', '.join(row['dimensions'])}{size}; from {row['source']}")
        if row["sha256"] or row["found_sha256"]:
            print(
                f"{'':<13}sha256 {row['sha256'] or 'not published'}"
                + f", found {row['found_sha256']}" * bool(row["found_sha256"])
            )
        if row["note"]:
            print(f"{'':<13}{row['note']}")
    there = sum(row["status"] == "present" for row in rows)
    print(f"\n{there} of {len(rows)} files are there. irope downloads nothing: put the others into place.")
    print("Folders: $VBENCH_CACHE_DIR (default ~/.cache/vbench) and $TORCH_HOME (default ~/.cache/torch).")


def _random(folder: Path) -> int:
    from eval.vbench.random_weights import write_random_weights
    from eval.vbench.stock import STOCK_DIMENSIONS

    for name, value in write_random_weights(folder.resolve(), STOCK_DIMENSIONS).items():
        print(f"export {name}={shlex.quote(value)}")
    print("# Random numbers of the right shapes: good for trying the set-up and for speed. Scores mean nothing.")
    return 0


def _check(_: argparse.Namespace) -> int:
    from eval.registry import make_scorer
    from eval.vbench.stock import STOCK_DIMENSIONS

    reasons = {name: make_scorer(name).unavailable() for name in STOCK_DIMENSIONS}
    for name, reason in reasons.items():
        print(f"{name:<24}{'ready' if reason is None else f'skipped, because {reason}'}")
    return int(any(reasons.values()))


def _reference(options: argparse.Namespace) -> int:
    from eval.vbench.stock import STOCK_DIMENSIONS, stock_scores
    from eval.vbench.weights import lacking
    from eval.videos import find_videos

    videos = [video for video in find_videos(options.folder)[0] if video.path.suffix == ".mp4"]
    if not videos:
        raise UserError(
            f"{options.folder}: no .mp4 file there, and the stock package reads no other for every dimension"
        )
    prompts = {video.path: video.segments[0].prompt if video.segments else video.text or "" for video in videos}
    dimensions = options.dimensions or [name for name in STOCK_DIMENSIONS if lacking(name, stock=True) is None]
    if not dimensions:
        raise UserError("no dimension can be scored here: run `irope vbench check`")
    for name, score in stock_scores(list(prompts), dimensions, prompts, device=options.device).items():
        values = {path.name: value for path, value in sorted(score.videos.items())}
        seconds = round(score.seconds, 2)
        print(json.dumps({"dimension": name, "overall": score.overall, "seconds": seconds, "videos": values}))
    return 0
