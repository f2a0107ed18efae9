"""Draw what was scored: duration, drift, ablations, cost, switch response; attention maps from their file.

    irope plot delta_ablation tier=quick               every plot that the experiment has data for
    irope plot table1 --only duration,drift            some of them: duration, drift, ablation, pareto, switches
    irope plot my/videos --out plots --format png      a scored folder; a folder below it is a method
    irope plot latency tier=quick                      what a switch costs, as irope run latency has measured it
    irope plot FILE.json                               the same of irope bench switch; cost along a video of irope bench
    irope plot attention_maps tier=quick               attention maps that irope run has made; or maps.npz
    irope plot RUN/losses.csv OTHER/losses.csv         loss curves of irope train tiny, one run or several

Written to results/reports/NAME-TIER/plots: a picture in each format, its data as CSV, and plots.md that shows them all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irope.errors import UserError

if TYPE_CHECKING:
    from eval.plots.plot import Plot

REPORTS = Path("results/reports")


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope plot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words", nargs="+", metavar="NAME|key=value", help="an experiment with settings; a folder; a file"
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="settings may sweep: key=a,b")
    parser.add_argument("--only", metavar="KIND,KIND", default="", help="duration, drift, ablation, pareto, switches")
    parser.add_argument("--metrics", metavar="A,B", default="", help="panels for these metrics only")
    parser.add_argument("--out", type=Path, help="folder instead of results/reports/NAME-TIER/plots")
    parser.add_argument("--format", metavar="svg,png,pdf", default="svg,png", help="default: svg,png")
    parser.add_argument("--protocol", help="of a folder that was scored under several")
    parser.add_argument("--scale", choices=("log", "power"), default="log", help="of the colours of attention maps")
    options = parser.parse_intermixed_args(arguments)
    from eval.plots.plot import FORMATS, save
    from irope.cli.measure import measurement
    from irope.settings import hint

    formats = _listed(options.format)
    for form in formats:
        if form not in FORMATS:
            raise UserError(f"--format {form}{hint(form, FORMATS)}")
    if all(word.endswith(".csv") for word in options.words):
        plots, out = _losses([Path(word) for word in options.words])
    else:
        measured = measurement(options.words)
        plots, out = _measured(*measured, options) if measured else _scores(options)
    if not plots:
        return 1
    for written in save(plots, options.out or out, formats):
        print(written)
    return 0


def _scores(options: argparse.Namespace) -> tuple[list[Plot], Path]:
    """The plots of an experiment or a scored folder, and where they go; prints why others could not be made."""
    from eval.plots.all import draw
    from irope.cli.scores_folder import results_or_folder

    results = results_or_folder([*options.words, *(["-m"] if options.multirun else [])])
    if results is None:
        from eval.folder_results import folder_results

        results = folder_results(Path(options.words[0]), options.protocol)
    drawn = draw(results, _listed(options.only), _listed(options.metrics))
    for kind, why in drawn.left_out.items():
        print(f"no {kind} plot: {why}")
    return list(drawn.plots), REPORTS / f"{results.name}{'-' * bool(results.tier)}{results.tier}" / "plots"


def _measured(kind: str, path: Path, options: argparse.Namespace) -> tuple[list[Plot], Path]:
    from eval.plots.attention import attention
    from eval.plots.growth import growth
    from eval.plots.latency import latency
    from eval.plots.plot import NoPlotError

    if kind == "policy_study":
        from eval.study_report import plots_of

        return plots_of(path), REPORTS / path.stem / "plots"
    try:
        if kind == "attention_maps":
            plot = attention(path, scale=options.scale)
        else:
            plot = latency(path) if kind == "latency" else growth(path)
    except NoPlotError as error:
        raise UserError(str(error)) from error
    return [plot], REPORTS / path.stem / "plots"


def _losses(paths: list[Path]) -> tuple[list[Plot], Path]:
    from eval.plots.losses import losses
    from eval.plots.plot import NoPlotError

    try:
        plot = losses(paths)
    except NoPlotError as error:
        raise UserError(str(error)) from error
    return [plot], REPORTS / "-".join(["losses", *(path.resolve().parent.name for path in paths)]) / "plots"


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
