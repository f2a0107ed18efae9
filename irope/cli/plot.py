"""Draw what was scored: duration, drift, ablations, cost, switch response; attention maps from their file.

    irope plot delta_ablation tier=quick               every plot that the experiment has data for
    irope plot table1 --only duration,drift            some of them: duration, drift, ablation, pareto, switches
    irope plot my/videos --out plots --format png      a scored folder; a folder below it is a method
    irope plot maps.npz --scale power                  attention maps

Written to results/reports/NAME-TIER/plots: a picture in each format, its data as CSV, and plots.md that shows them all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irope.errors import UserError

if TYPE_CHECKING:
    from eval.results import Results

REPORTS = Path("results/reports")


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope plot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="an experiment, a scored folder, or an npz file of attention maps")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the experiment, as for irope run")
    parser.add_argument("--only", metavar="KIND,KIND", default="", help="duration, drift, ablation, pareto, switches")
    parser.add_argument("--out", type=Path, help="folder instead of results/reports/NAME-TIER/plots")
    parser.add_argument("--format", metavar="svg,png,pdf", default="svg,png", help="default: svg,png")
    parser.add_argument("--protocol", help="of a folder that was scored under several")
    parser.add_argument("--scale", choices=("log", "power"), default="log", help="of the colours of attention maps")
    options = parser.parse_intermixed_args(arguments)
    from eval.plots.plot import FORMATS, NoPlotError, save
    from irope.settings import hint

    formats = _listed(options.format)
    for form in formats:
        if form not in FORMATS:
            raise UserError(f"--format {form}{hint(form, FORMATS)}")
    only, left_out = _listed(options.only), {}
    if options.name.endswith(".npz"):
        from eval.plots.attention import attention

        path = Path(options.name)
        out = options.out or path.parent / "plots"
        try:
            plots = [attention(path, scale=options.scale, name=path.stem)]
        except NoPlotError as error:
            raise UserError(str(error)) from error
    else:
        from eval.plots.all import draw

        results = _results(options.name, options.overrides, options.protocol)
        out = options.out or REPORTS / f"{results.name}{'-' * bool(results.tier)}{results.tier}" / "plots"
        drawn = draw(results, only)
        plots, left_out = list(drawn.plots), drawn.left_out
    for kind, why in left_out.items():
        print(f"no {kind} plot: {why}")
    if not plots:
        return 1
    for written in save(plots, out, formats):
        print(written)
    return 0


def _results(name: str, overrides: Sequence[str], protocol: str | None) -> Results:
    """Of an experiment of that name, else of a scored folder.

    Raises:
        UserError: it is neither.
    """
    path = Path(name)
    try:
        from irope.cli.experiments import is_experiment, results_of
    except ImportError:
        pass
    else:
        if is_experiment(name) or not path.is_dir():
            return results_of([name, *overrides])
    if not path.is_dir():
        raise UserError(f"{name}: no such experiment or folder")
    if overrides:
        raise UserError(f"{overrides[0]}: a folder of scores takes no settings")
    from eval.folder_results import folder_results

    return folder_results(path, protocol)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
