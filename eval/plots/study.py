"""Pictures of the policy study: stability over time, response to a switch, cuts against Δ, attention on the sink."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.plots.colours import GREY, LINES, MARKERS, Style, shades, style
from eval.plots.plot import Key, Plot, finish, key, panels
from eval.stats import FEWEST
from eval.study import NAMES, Readings, Study, interval, lag

WAYS = {
    "keep": style("rolling_w6"),
    "flush 1": style("infinity_rope"),
    "flush 2": style("infinity_rope_paper"),
    "recache": style("kv_recache"),
}
CUTS = {
    ("target", "all"): style("infinity_rope"),
    ("target", "last2"): style("infinity_rope_paper"),
    ("offset", "all"): style("kv_recache"),
    ("offset", "last2"): style("longlive_infinity"),
}


def plots(study: Study) -> list[Plot]:
    """What the tier has cells for, a picture a part."""
    made = (_stability(study), _response(study), _cuts(study), _attention(study))
    return [plot for plot in made if plot is not None]


def _n(cells: Sequence[Readings]) -> str:
    counts = sorted({len(cell.data["prompts"]) for cell in cells})
    return f"embedded model · n = {'–'.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} prompts a point"


def _frame(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows)


def _line(axis: Any, xs: Sequence[float], values: Sequence[Any], look: Style) -> None:
    """Means with their intervals as a band."""
    axis.plot(xs, [v.estimate for v in values], **look.line, marker=look.marker, markersize=4, linewidth=1.4)
    if all(value.clusters >= FEWEST for value in values):
        low, high = [v.low for v in values], [v.high for v in values]
        axis.fill_between(xs, low, high, color=look.colour, alpha=0.12, linewidth=0)


def _stability(study: Study) -> Plot | None:
    """Action and IoU against seconds: the cells of window 6, sink 1, the other windows' relative one, full history."""
    chosen: dict[str, list[Readings]] = {}
    for checkpoint in study.checkpoints:
        found = study.find("windows", checkpoint)
        kept = [
            cell
            for cell in found
            if cell.facts["index"] != "relative"
            or cell.facts["f0"] in (cell.facts["window"], 21)
            or (cell.facts["window"], cell.facts["sink"]) == (6, 1)
        ]
        chosen[checkpoint] = [cell for cell in kept if cell.facts["sink"] == 1 or cell.facts["window"] is None]
    cells = [cell for found in chosen.values() for cell in found]
    if not cells:
        return None
    measures = ("action", "iou", "background", "home")
    figure, axes = panels(len(measures) * len(chosen), across=len(measures), size=(2.9, 2.4))
    labels = list(dict.fromkeys(cell.label for cell in cells))
    looks = _shaded(labels)
    rows = []
    for number, (checkpoint, found) in enumerate(chosen.items()):
        for place, measure in enumerate(measures):
            axis = axes[number * len(measures) + place]
            axis.set_title(f"{NAMES[measure]}, {checkpoint}", fontsize=9.5, loc="left")
            axis.set_xlabel("seconds", fontsize=8, color=GREY)
            axis.set_ylim(*((-0.5, 0.75) if measure == "home" else (-0.03, 1.03)))
            if any(max(cell.starts) > 40 for cell in found):
                axis.set_xscale("symlog", linthresh=20)
                ticks = [0, 5, 10, 20, 60, 240]
                axis.set_xticks(ticks, [str(tick) for tick in ticks])
            for cell in found:
                values = [cell.interval(measure, start) for start in cell.starts]
                _line(axis, [start + 2.5 for start in cell.starts], values, looks[cell.label])
                rows += [
                    {
                        "checkpoint": checkpoint,
                        "cell": cell.label,
                        "measure": measure,
                        "start": start,
                        "mean": v.estimate,
                    }
                    for start, v in zip(cell.starts, values, strict=True)
                ]
    keys = [key(label, looks[label]) for label in labels]
    note = "home: overlap with the subject of frame 0 beyond the true clip's; 0 is true. Bands: 95 % over prompts"
    finish(figure, "Holding one prompt", _n(cells), keys, [note])
    return Plot("stability", figure, _frame(rows), f"Holding one prompt, sink 1: action, IoU, background. {_n(cells)}.")


def _shaded(labels: Sequence[str]) -> dict[str, Style]:
    """Warm and dashed for absolute indices, shades of blue for relative ones, black for the full history."""
    looks: dict[str, Style] = {}
    groups = {
        "#d55e00": [label for label in labels if "absolute" in label],
        "#0072b2": [label for label in labels if "f0=" in label],
        "#1b1b1b": [label for label in labels if "absolute" not in label and "f0=" not in label],
    }
    for number, (colour, found) in enumerate(groups.items()):
        tones = shades(colour, len(found)) if len(found) > 1 else [colour] * len(found)
        for place, (label, tone) in enumerate(zip(found, tones, strict=True)):
            looks[label] = Style(tone, MARKERS[(place + 4 * number) % len(MARKERS)], LINES[1] if number == 0 else ())
    return looks


def _response(study: Study) -> Plot | None:
    cells = [cell for checkpoint in study.checkpoints for cell in study.find("switch", checkpoint)]
    if not cells:
        return None
    groups: dict[tuple[str, str, int], list[Readings]] = {}
    for cell in cells:
        groups.setdefault((cell.checkpoint, cell.facts["kind"], cell.facts["window"]), []).append(cell)
    across = len({window for _, _, window in groups})
    figure, axes = panels(len(groups), across=max(2, across), size=(3.0, 2.3))
    rows = []
    for axis, ((checkpoint, kind, window), found) in zip(axes, groups.items(), strict=True):
        axis.set_title(f"{kind}, window {window}, {checkpoint}", fontsize=9.5, loc="left")
        axis.set_xlabel("blocks after the switch", fontsize=8, color=GREY)
        axis.set_ylim(-0.03, 1.03)
        axis.set_xticks(range(1, 1 + len(found[0].data["readings"][0]["shown"])))
        for cell in found:
            late = np.asarray([lag(row["shown"]) for row in cell.data["readings"]])
            blocks = range(len(cell.data["readings"][0]["shown"]))
            shares = [interval({i: float(done) for i, done in enumerate(late <= b)}, "responded") for b in blocks]
            _line(axis, [block + 1 for block in blocks], shares, WAYS[cell.facts["way"]])
            rows += [
                {"checkpoint": checkpoint, "cell": cell.label, "block": block + 1, "share": share.estimate}
                for block, share in zip(blocks, shares, strict=True)
            ]
    keys = [key(way, look) for way, look in WAYS.items() if any(cell.facts["way"] == way for cell in cells)]
    note = "share of prompts whose new prompt has been seen (two blocks running); at window 6, flush 2 is keep"
    finish(figure, "Response to a prompt switch", _n(cells), keys, [note])
    return Plot("response", figure, _frame(rows), f"Response to a prompt switch: {note}. {_n(cells)}.")


def _cuts(study: Study) -> Plot | None:
    cells = [cell for checkpoint in study.checkpoints for cell in study.find("cut", checkpoint)]
    if not cells:
        return None
    measures = ("once", "late", "edge", "same")
    figure, axes = panels(len(measures) * len(study.checkpoints), across=len(measures), size=(2.7, 2.3))
    rows, used = [], set()
    for number, checkpoint in enumerate(study.checkpoints):
        for place, measure in enumerate(measures):
            axis = axes[number * len(measures) + place]
            axis.set_title(f"{NAMES[measure]}, {checkpoint}", fontsize=9.5, loc="left")
            axis.set_xlabel("Δ", fontsize=8, color=GREY)
            axis.set_xscale("log")
            for reading, look in CUTS.items():
                mode, frames = reading
                found = study.find("cut", checkpoint, way="cut", mode=mode, frames=frames)
                if not found:
                    continue
                used.add(reading)
                deltas = [cell.facts["delta"] for cell in found]
                values = [cell.interval(measure) for cell in found]
                _line(axis, deltas, values, look)
                rows += [
                    {"checkpoint": checkpoint, "cell": cell.label, "measure": measure, "mean": value.estimate}
                    for cell, value in zip(found, values, strict=True)
                ]
            for way, dashes in (("none", ":"), ("flush", "--")):
                plain = study.one("cut", checkpoint, way=way)
                if plain is not None:
                    axis.axhline(plain.interval(measure).estimate, color=GREY, linestyle=dashes, linewidth=1.2)
            ticks = sorted({cell.facts["delta"] for cell in cells if "delta" in cell.facts})
            axis.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
            axis.minorticks_off()
    keys = [key(" ".join(reading), look) for reading, look in CUTS.items() if reading in used]
    keys += [Key("flush only", {"color": GREY, "linestyle": "--"}), Key("no event", {"color": GREY, "linestyle": ":"})]
    finish(figure, "RoPE Cut against Δ", _n(cells), keys, ["bands: 95 % over prompts"])
    return Plot("cut", figure, _frame(rows), f"RoPE Cut against Δ, window 6, sink 1. {_n(cells)}.")


def _attention(study: Study) -> Plot | None:
    cells = [cell for checkpoint in study.checkpoints for cell in study.find("attention", checkpoint)]
    if not cells:
        return None
    figure, axes = panels(2 * len(study.checkpoints), across=2, size=(3.4, 2.5))
    looks = {"absolute": Style("#d55e00", "o", LINES[1]), "f0 sweep": Style("#0072b2", "s", ())}
    rows: list[dict[str, Any]] = []
    for number, checkpoint in enumerate(study.checkpoints):
        for place, which in enumerate(("first", "last")):
            axis = axes[2 * number + place]
            axis.set_title(f"{which} denoising step, {checkpoint}", fontsize=9.5, loc="left")
            axis.set_xlabel("index distance of the sink", fontsize=8, color=GREY)
            axis.set_xscale("log")
            axis.set_ylabel("share of attention", fontsize=8, color=GREY)
            found = study.find("attention", checkpoint)
            curves: dict[str, list[tuple[int, Any, Any]]] = {name: [] for name in looks}
            for cell in found:
                attention = cell.data["attention"]
                distance = np.asarray(attention["distance"])
                mass_TB = np.asarray(attention["by_prompt"])[:, :, -place].T
                heads_TN = np.asarray(attention["by_head"])[:, -place].reshape(len(distance), -1)
                if cell.facts["index"] == "absolute":
                    points = [(int(d), mass_TB[i], heads_TN[i]) for i, d in enumerate(distance)]
                    curves["absolute"] += points
                else:
                    rest = distance == distance.max()
                    curves["f0 sweep"].append((int(distance.max()), mass_TB[rest].mean(0), heads_TN[rest].mean(0)))
            for name, points in curves.items():
                if not points:
                    continue
                xs = [x for x, _, _ in points]
                if name == "absolute":
                    for head in np.asarray([heads for _, _, heads in points]).T:
                        axis.plot(xs, head, color=looks[name].colour, linewidth=0.5, alpha=0.35)
                _line(axis, xs, [interval(dict(enumerate(mass)), "mass") for _, mass, _ in points], looks[name])
                rows += [
                    {
                        "checkpoint": checkpoint,
                        "step": which,
                        "roll-out": name,
                        "distance": x,
                        "mass": float(mass.mean()),
                    }
                    for x, mass, _ in points
                ]
            even = found[0].data["attention"]["even"][-1]
            axis.axhline(even, color=GREY, linestyle=":", linewidth=1.2)
            ticks = [3, 6, 12, 21, 48, 96, 160]
            axis.set_xticks(ticks, [str(tick) for tick in ticks])
            axis.minorticks_off()
    keys = [key(name, look) for name, look in looks.items()]
    keys.append(Key("even attention", {"color": GREY, "linestyle": ":"}))
    note = "mean over layers, heads and prompts; thin lines: every head of every layer of the absolute roll-out"
    finish(figure, "Attention on the sink against its distance", _n(cells), keys, [note])
    return Plot("attention", figure, _frame(rows), f"Attention on the sink against its index distance; {note}.")
