"""Prompt switches and scene cuts on a time axis."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from eval.plots.colours import CUT, SWITCH
from eval.plots.plot import Key

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from eval.results import Results

MOST = 24
"""More lines than this would hide the curves; they are then left out, and it is said."""
SWITCH_KEY = Key("prompt switch", {"color": SWITCH, "linewidth": 1.1, "linestyle": (0, (4, 2))})
CUT_KEY = Key("scene cut", {"color": CUT, "linewidth": 1.1, "linestyle": (0, (1.5, 1.5))})


def events(content: dict[str, Any]) -> list[tuple[int, float, bool]]:
    """(number of the segment, seconds from the start, whether it is a cut) of every event of a score file's video.

    A segment that only goes on with the prompt before it, without a cut, is no event.
    """
    video = content["video"]
    segments = video["source"]["segments"]
    return [
        (number, segment["start"] / video["fps"], bool(segment.get("cut")))
        for number, segment in enumerate(segments)
        if number and (segment.get("cut") or segment["prompt"] != segments[number - 1]["prompt"])
    ]


def event_times(results: Results) -> dict[tuple[float, bool], float]:
    """(second, cut) -> share of the prompts that have that event; prompts count once, whatever their cells."""
    scripts: dict[str, set[tuple[float, bool]]] = {}
    for _, video, content in results.score_files():
        found = {(round(second, 3), cut) for _, second, cut in events(content)}
        scripts.setdefault(video.prompt, set()).update(found)
    counts = Counter(event for script in scripts.values() for event in script)
    return {event: count / len(scripts) for event, count in sorted(counts.items())}


def draw_events(axis: Axes, times: dict[tuple[float, bool], float]) -> None:
    """A line for each event, fainter where fewer prompts have it."""
    for (second, cut), share in times.items():
        look = (CUT_KEY if cut else SWITCH_KEY).look
        axis.axvline(second, **look, alpha=0.25 + 0.6 * share, zorder=1)
