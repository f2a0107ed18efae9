"""How soon a prompt switch is answered: the share of prompts that show the new one, over time since the switch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.plots.colours import GREY
from eval.plots.events import events
from eval.plots.numbers import cell_styles, longest, short_labels
from eval.plots.plot import Key, NoPlotError, Plot, counted, finish, gaps, panels, subtitle, title_panel
from eval.stats import rate_interval

if TYPE_CHECKING:
    import pandas as pd

    from eval.results import Results

SCORER = "switch_latency"
BANDED = 4
"""Lines up to which bands are drawn; more would hide each other."""
KINDS = {False: "Prompt switches", True: "Scene cuts"}


def switches(results: Results) -> Plot:
    """Share of switches that are answered, over the seconds since the switch; scene cuts in a panel of their own.

    A switch is answered from the block on that `switch_latency` gives: the new prompt wins there and in the next one.
    The share is the mean over prompts, with Wilson's interval of `eval.stats.rate_interval`, in which all switches of a
    prompt count as its own. Every curve ends with the shortest segment, so that each switch is seen at each point.
    ``data``: a row for each method, kind and block: blocks, seconds, share, low, high, prompts, switches.

    Raises:
        NoPlotError: no video has a switch whose time to the answer is known.
    """
    known = answers(results)
    if known.empty:
        raise NoPlotError(
            "no switch with a known time to its answer (scorer switch_latency, of videos of the embedded world; "
            "scores made before it kept single switches have to be made again)"
        )
    data = shares(known)
    looks, (labels, heading) = cell_styles(results), short_labels(results)
    shown = [label for label in labels if label in set(data["method"])]
    kinds = sorted(set(data["cut"]))
    figure, axes = panels(len(kinds), size=(4.4, 3.3))
    for axis, cut in zip(axes, kinds, strict=True):
        here = data[data["cut"] == cut]
        title_panel(
            axis, f"{KINDS[cut]}: {_span(here.groupby('method')['switches'].first().tolist())} a line", "higher"
        )
        axis.set_ylabel("share answered, higher is better", fontsize=8.5, color=GREY)
        for label in shown:
            rows = here[here["method"] == label]
            if rows.empty:
                continue
            x, step = rows["seconds"].to_numpy(), float(rows["seconds"].max()) / max(1, len(rows) - 1)
            ends = np.append(x, x[-1] + step)  # the last block lasts until its end
            look, drawn = looks[label], {c: np.append(rows[c], rows[c].iloc[-1]) for c in ("share", "low", "high")}
            axis.step(ends, drawn["share"], where="post", **look.line, linewidth=1.6)
            axis.plot(x, rows["share"], linestyle="none", marker=look.marker, color=look.colour, markersize=4)
            if len(shown) <= BANDED:
                axis.fill_between(
                    ends, drawn["low"], drawn["high"], step="post", color=look.colour, alpha=0.1, linewidth=0
                )
        axis.set_ylim(-0.03, 1.03)
        axis.set_xlim(left=-0.02 * float(here["seconds"].max()))
        axis.set_xlabel(f"time since the {'cut' if cut else 'switch'} (s)", fontsize=8.5, color=GREY)
    keys = [Key(labels[s], {**looks[s].line, "marker": looks[s].marker, "markersize": 5}) for s in shown]
    per_line = data.groupby(["method", "cut"])[["prompts", "switches"]].first()
    n = counted(per_line["prompts"].tolist(), per_line["prompts"].tolist()).replace(" a point", " a line")
    step = known["block_seconds"].iloc[0]
    spread = "bands: Wilson's 95 % intervals" if len(shown) <= BANDED else "Wilson's 95 % intervals: see the CSV file"
    notes = [f"{spread}; measured in blocks of {step:g} s, a point at the start of each"]
    notes += [f"no switch: {', '.join(x for x in labels if x not in shown)}"] * (len(shown) < len(labels))
    finish(figure, "Switch response", subtitle(results, n), keys, [*notes, *gaps(results)], heading)
    caption = f"Share of switches that already show the new prompt, over the time since the switch. {n}."
    return Plot("switches", figure, data, caption)


def answers(results: Results) -> pd.DataFrame:
    """One row a switch: columns method, prompt, seed, segment, cut, blocks (until the answer), answered (False: not
    within its segment, which has ``length`` blocks), block_seconds."""
    import pandas as pd

    rows = [row for cell, video, content in results.score_files() for row in _answers(cell.label, video, content)]
    columns = ["method", "prompt", "seed", "segment", "cut", "blocks", "answered", "length", "block_seconds"]
    return pd.DataFrame(rows, columns=columns)


def shares(known: pd.DataFrame) -> pd.DataFrame:
    """Share of switches answered by each block; see `switches`."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for cut, of_kind in known.groupby("cut"):
        last = int(of_kind["length"].min())
        for method, of in of_kind.groupby("method", sort=False):
            for block in range(last):
                answered = of["answered"] & (of["blocks"] <= block)
                keys = zip(of["prompt"], zip(of["seed"], of["segment"], strict=True), strict=True)
                found = rate_interval({key: float(a) for key, a in zip(keys, answered, strict=True)})
                rows.append(
                    {
                        "method": method,
                        "cut": bool(cut),
                        "blocks": block,
                        "seconds": block * float(of["block_seconds"].iloc[0]),
                        "share": found.estimate,
                        "low": found.low,
                        "high": found.high,
                        "prompts": found.clusters,
                        "switches": found.n,
                    }
                )
    return pd.DataFrame(rows)


def _answers(label: str, video: Any, content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    window = longest(content)
    found = window[1].get(SCORER, {}) if window else {}
    extra, fps = found.get("extra", {}), content["video"]["fps"]
    if window is None or "value" not in found:
        return
    block = found.get("made", {}).get("settings", {}).get("block", 12)
    segments = content["video"]["source"]["segments"]
    for number, _, cut in events(content):
        if f"blocks_{number}" not in extra:
            continue
        yield {
            "method": label,
            "prompt": video.prompt,
            "seed": video.seed,
            "segment": number,
            "cut": cut,
            "blocks": int(extra[f"blocks_{number}"]),
            "answered": not extra[f"censored_{number}"],
            "length": -(-(min(segments[number]["stop"], window[0]) - segments[number]["start"]) // block),
            "block_seconds": block / fps,
        }


def _span(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low}–{high}"
