"""Cost and memory of a block along a long video: flat, if a policy keeps what it promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.plots.colours import GREY, INK, style
from eval.plots.plot import Key, NoPlotError, Plot, finish, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIB = 2**20


def growth(path: Path, *, name: str = "growth") -> Plot:
    """Left: cost of a block over the seconds of video made. Right: memory, of the process on a CPU.

    Args:
        path: JSON of ``irope bench growth``, ``cpu`` or ``gpu``.

    Raises:
        NoPlotError: the file holds no such measurement.
    """
    import pandas as pd

    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NoPlotError(f"{path} cannot be read ({error}); run: irope bench growth") from error
    drawn = {"bench_cpu": _cpu, "bench_gpu": _gpu}.get(str(report.get("kind")))
    if drawn is None:
        raise NoPlotError(f"{path} holds no cost along a video; run: irope bench growth")
    data, subtitle, notes = drawn(report, path)
    measured = "bytes" in data
    look = style("infinity_rope")
    figure, axes = panels(2 if measured else 1, size=(3.9, 2.6))
    middle = float(data["block_ms"].median())
    axes[0].plot(data["seconds"], data["block_ms"], color=look.colour, linewidth=1.2)
    axes[0].axhline(middle, color=GREY, linewidth=1.0, linestyle=":")
    _label(axes[0], "cost of a block", "ms")
    if measured:
        axes[1].plot(data["seconds"], data["bytes"] / MIB, color=look.colour, linewidth=1.4)
        _label(axes[1], "memory of the process", "MiB")
    keys = [
        Key(report.get("policy", "infinity_rope"), {"color": look.colour, "linewidth": 1.4}),
        Key(f"median, {middle:.4g} ms", {"color": GREY, "linewidth": 1.0, "linestyle": ":"}),
    ]
    finish(figure, "Cost and memory along a video", subtitle, keys, notes)
    return Plot(name, figure, pd.DataFrame(data), f"{subtitle}.")


def _label(axis: Axes, title: str, unit: str) -> None:
    axis.set_title(title, fontsize=9.5, loc="left", color=INK)
    axis.set_xlabel("seconds of video made", fontsize=8, color=GREY)
    axis.set_ylabel(unit, fontsize=8, color=GREY)
    axis.set_ylim(bottom=0, top=1.25 * axis.get_ylim()[1])


Drawn = tuple[Any, str, list[str]]


def _cpu(report: dict[str, Any], path: Path) -> Drawn:
    import pandas as pd

    if "curve" not in report:
        raise NoPlotError(f"{path} is of an older version and holds no curve; run: irope bench growth")
    curve = report["curve"]
    data = pd.DataFrame({"seconds": curve["seconds"], "block_ms": curve["cpu_ms"], "bytes": curve["resident"]})
    own = ", the embedded model" if report["model"].startswith("tiny") else ""
    device = report["environment"]["device"]["name"]
    subtitle = f"model {report['model']}{own} · {device}, one thread · n = {report['repeats']} roll-outs"
    longest, aged = report["lengths"][-1], report.get("aged")
    change = (
        f"over {longest['seconds']:g} s the cost moves by {longest['slope']:+.2f} % (Theil-Sen)"
        if aged is None
        else f"after {longest['seconds']:g} s a block costs {aged['median']:.3f} times one of a video just begun "
        f"(by turns, n = {aged['n']})"
    )
    note = (
        f"CPU time, smallest of the roll-outs, medians of neighbouring blocks; {change}; memory moves by "
        f"{report['resident_growth'] / MIB:+.2f} MiB per 1,000 blocks"
    )
    return data, subtitle, [note, *report["notes"]]


def _gpu(report: dict[str, Any], path: Path) -> Drawn:
    import pandas as pd

    part = report["parts"].get("long", {})
    if "per_block_ms" not in part:
        raise NoPlotError(f"{path}: its part 'long' was not measured; run: irope bench gpu --parts long")
    blocks = part["per_block_ms"]
    settled = len(blocks) - part["blocks"]
    seconds = [0.75 * (number + 0.5) for number in range(settled, len(blocks))]
    data = pd.DataFrame({"seconds": seconds, "block_ms": blocks[settled:]})
    model = "a tiny random model (a rehearsal)" if report["small"] else "random weights of the 1.3B model"
    subtitle = f"{model} · {report['environment']['device']['name']} · n = 1 roll-out"
    peaks = [f"{peak:,} at block {block}" for block, peak in part["peak_bytes"].items() if peak is not None]
    note = f"wall time; drift {part['drift_percent']:+.2f} % (Theil-Sen)"
    return data, subtitle, [note + (f"; peak bytes on the device: {' and '.join(peaks)}" if peaks else "")]
