"""``irope VERB ...``: dispatch to one file a verb, imported only when asked for; errors of the user end with code 2."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

from irope.errors import UserError
from irope.settings import hint

VERBS = {
    "demo": "videos, contact sheets and a first table with the embedded model, in minutes",
    "list": "policies, methods, models, prompts, scorers, protocols; and the published tables",
    "explain": "which frames a method keeps and at which index, block by block (text, SVG)",
    "plan": "what an experiment would do: cells, hours, disk; nothing is started: irope plan table1",
    "run": "make and score what is missing of an experiment; again = continue: irope run table1 tier=smoke",
    "status": "how far experiments are, who works on what, what failed",
    "generate": "make videos: irope generate method=infinity_rope duration=60",
    "score": "score videos, the project's own or any folder of them: irope score PATH",
    "table": "what was scored, with n and 95 % intervals: irope table table1, or a folder",
    "plot": "drift, score against duration, ablations, cost and switch response of an experiment or a scored folder",
    "report": "tables, plots and a page of an experiment in one folder; --wandb sends it to Weights & Biases",
    "compare": "is method A better than method B: paired differences, corrected for many metrics",
    "weights": "published weights of the 1.3B model: present or missing, who needs them, how to download them",
    "doctor": "is everything here that a configuration needs? irope doctor model=wan_1_3b",
    "vbench": "set VBench up: install it, list and check its weights, run the original",
    "verify": "recorded runs (golden), the embedded model (tiny), crashes (faults), one video made again (FOLDER)",
    "train": "train the embedded model from nothing (tiny)",
    "bench": "measure speed and memory on this machine (cpu, score), or what scorers notice (distortions)",
}


def usage() -> str:
    verbs = "\n".join(f"  {verb:<10}{text}" for verb, text in VERBS.items())
    return (
        "irope: KV-cache policies for long autoregressive video generation, side by side\n\n"
        f"usage: irope VERB [options] [key=value ...]\n\n{verbs}\n\n"
        "Everything of the form key=value is a Hydra override, for example method=kv_recache duration=60 seed=1.\n"
        "More about one verb: irope VERB --help"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 a check failed, 2 the user's to mend, 130 interrupted."""
    verb, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(usage())
        return 0
    try:
        if verb not in VERBS:
            raise UserError(f"unknown verb {verb!r}{hint(verb, VERBS)}")
        return int(importlib.import_module(f"irope.cli.{verb.replace('-', '_')}").run(rest))
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of a pipe (head, less) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise
        return _fail(f"{error.strerror}: {error.filename or 'while writing'}; nothing unfinished has a final name")
    except KeyboardInterrupt:
        print("\nirope: interrupted; the same command continues where this one stopped", file=sys.stderr)
        return 130


def _fail(message: str) -> int:
    print(f"irope: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
