"""What the policy study says of each claim of ∞-RoPE's paper, by rules fixed before the numbers were seen.

A claim is a list of conditions. All hold: it shows; some: it shows in part; none: it does not show. A condition that a
tier does not test, or tests on fewer than `eval.stats.FEWEST` prompts, does not count. Significant means p < .05 after
Holm's correction for all comparisons of the condition, by a sign-flip test on differences paired by prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from eval.stats import FEWEST, mean_interval
from eval.study import APPEARANCE, NAMES, QUALITY, RESAMPLES, Difference, Readings, Study, Values, differences

LOSS = 0.05
"""What a video may lose from its first to its last stretch, in any measure, and still be called stable."""
ALIKE = 0.1
"""A difference between two settings that would matter: intervals must lie within it to call them alike."""
COMPARABLE = 1.0
"""Blocks by which two reactions may differ and be called comparable."""
AT_ONCE = 0.5
"""Share of prompts that must react in the first block to call a policy's reaction immediate."""
HEAD = 2.0
"""Times its even share that a head must give the sink to be called a sink head."""
HORIZON = 21
"""Latent frames seen in training."""


@dataclass(frozen=True)
class Condition:
    """``holds`` is None where it was not tested, or on too few prompts."""

    text: str
    holds: bool | None
    numbers: str


@dataclass(frozen=True)
class Claim:
    """A claim on one checkpoint."""

    number: str
    text: str
    checkpoint: str
    conditions: tuple[Condition, ...]

    @property
    def verdict(self) -> str:
        tested = [condition.holds for condition in self.conditions if condition.holds is not None]
        if not tested:
            return "not tested"
        return "shows" if all(tested) else "shows in part" if any(tested) else "does not show"


def claims(study: Study) -> list[Claim]:
    """Every claim on every checkpoint."""
    rules: tuple[Callable[[Study, str], list[Claim]], ...] = (_horizon, _switch, _cut, _anchor, _sink, _window)
    return [claim for checkpoint in study.checkpoints for rule in rules for claim in rule(study, checkpoint)]


def _missing(text: str) -> Condition:
    return Condition(text, None, "not in this tier")


def _few(found: Sequence[Difference]) -> bool:
    return not found or not all(one.enough for one in found)


def _listed(found: Sequence[Difference], most: int = 4) -> str:
    """The significant differences first, the largest of each kind first."""
    ordered = sorted(found, key=lambda one: (one.sign == 0, -abs(one.interval.estimate)))
    more = f"; {len(found) - most} more in the JSON" if len(found) > most else ""
    return "; ".join(one.text() for one in ordered[:most]) + more


def one_sided(text: str, found: Sequence[Difference], sign: int, least: float = 0.0) -> Condition:
    """Holds if a difference of this sign is significant (and at least ``least``) and none of the other."""
    signs = {one.sign for one in found if abs(one.interval.estimate) >= least}
    return Condition(text, None if _few(found) else sign in signs and -sign not in signs, _listed(found))


# --- 1: indices -------------------------------------------------------------------------------------------------------


def _horizon(study: Study, checkpoint: str) -> list[Claim]:
    absolute = study.one("windows", checkpoint, window=6, sink=1, index="absolute")
    relative = study.one("windows", checkpoint, window=6, sink=1, index="relative", f0=6) or study.one(
        "windows", checkpoint, window=6, sink=1, index="relative"
    )
    breaks = (
        f"window 6, sink 1: absolute indices do worse than relative ones by {ALIKE} or more after the 5 s of training, "
        "nowhere better"
    )
    stable = f"relative indices lose at most {LOSS} of action, colour, background, IoU from first to last stretch"
    conditions = [_missing(breaks), _missing(stable)]
    if absolute and relative:
        later = [start for start in absolute.starts if start >= 5 and start in relative.starts]
        found = differences(
            (f"{NAMES[m]} at {start:g} s, relative - absolute", m, relative.values(m, start), absolute.values(m, start))
            for start in later
            for m in QUALITY
        )
        first, last = relative.starts[0], relative.starts[-1]
        lost = differences(
            (f"{NAMES[m]} at {last:g} s - at {first:g} s", m, relative.values(m, last), relative.values(m, first))
            for m in QUALITY
        )
        kept = all(one.interval.estimate >= -LOSS for one in lost)
        conditions = [
            one_sided(breaks, found, 1, ALIKE),
            Condition(stable, None if _few(lost) else kept, _listed(lost)),
        ]
    text = "absolute indices break beyond the trained horizon, Block-Relativistic RoPE is stable"
    return [Claim("1", text, checkpoint, tuple(conditions))]


# --- 2: switches ------------------------------------------------------------------------------------------------------


def _switch(study: Study, checkpoint: str) -> list[Claim]:
    flushed = {_where(cell): cell for cell in study.find("switch", checkpoint, way="flush 1")}
    kept = {_where(cell): cell for cell in study.find("switch", checkpoint, way="keep")}
    recached = {_where(cell): cell for cell in study.find("switch", checkpoint, way="recache")}

    def against(others: dict[tuple[str, int], Readings], name: str) -> list[Difference]:
        return differences(
            (
                f"{kind} w{window}, blocks, flush 1 - {name}",
                "lag",
                flushed[kind, window].values("lag"),
                cell.values("lag"),
            )
            for (kind, window), cell in others.items()
            if (kind, window) in flushed
        )

    sooner, alike = against(kept, "keep"), against(recached, "recache")
    shares = [cell.interval("at_once") for cell in flushed.values()]
    enough = bool(shares) and all(share.clusters >= FEWEST for share in shares)
    within = all(max(abs(one.interval.low), abs(one.interval.high)) <= COMPARABLE for one in alike)
    text = "KV Flush reacts at once, keeping the cache lags, KV Recache is comparable at far higher cost"
    conditions = (
        one_sided("a flush (1 frame kept) reacts earlier than keeping the cache, nowhere later", sooner, -1),
        Condition(
            f"it reacts at once (first and second block) in {100 * AT_ONCE:g} % of the prompts, everywhere",
            all(share.estimate >= AT_ONCE for share in shares) if enough else None,
            "; ".join(f"{k} w{w} {s.text()}" for (k, w), s in zip(flushed, shares, strict=True)) or "not in this tier",
        ),
        Condition(
            f"recache differs from it by at most {COMPARABLE:g} block (the whole interval), everywhere",
            None if _few(alike) else within,
            (_listed(alike) or "not in this tier")
            + ". Cost: a recache of window w is one more forward of w frames, a flush none",
        ),
    )
    return [Claim("2", text, checkpoint, conditions)]


def _where(cell: Readings) -> tuple[str, int]:
    return str(cell.facts["kind"]), int(cell.facts["window"])


# --- 3: cuts ----------------------------------------------------------------------------------------------------------


def _cut(study: Study, checkpoint: str) -> list[Claim]:
    made = []
    readings = {"3a": ("target", "all", "the released code"), "3b": ("offset", "last2", "eq. 4 as printed")}
    for number, (mode, frames, whose) in readings.items():
        text = f"RoPE Cut makes a scene change that grows with Δ, less within the horizon ({mode}, {frames}: {whose})"
        found = study.find("cut", checkpoint, way="cut", mode=mode, frames=frames)
        made.append(Claim(number, text, checkpoint, _cut_conditions(study, checkpoint, found)))
    return made


def _cut_conditions(study: Study, checkpoint: str, found: Sequence[Readings]) -> tuple[Condition, ...]:
    texts = (
        "the background changes more at the cut than at a flush alone (at some Δ from 6 on, and less at none)",
        "the change grows with Δ from 6 on: rank correlation above 0, and no step to the next Δ falls significantly",
        "Δ of 6 and 21 change less than Δ of 45 and 90",
    )
    flush = study.one("cut", checkpoint, way="flush")
    by_delta: dict[int, Values] = {cell.facts["delta"]: cell.values("once") for cell in found}
    if flush is None or not by_delta:
        return tuple(_missing(text) for text in texts)
    large = {delta: values for delta, values in by_delta.items() if delta >= 6}
    more = differences((f"Δ={d} - flush only", "once", v, flush.values("once")) for d, v in large.items())
    first = one_sided(texts[0], more, 1)
    if len(large) < 4:
        return first, _missing(texts[1]), _missing(texts[2])
    steps = differences((f"Δ={b} - Δ={a}", "once", large[b], large[a]) for a, b in pairwise(sorted(large)))
    common = sorted(set.intersection(*(set(values) for values in large.values())))
    order = sorted(large)
    ranks = mean_interval(
        {p: _rank_correlation(order, [large[delta][p] for delta in order]) for p in common}, resamples=RESAMPLES
    )
    near, far = ([d for d in order if (d <= HORIZON) == within] for within in (True, False))
    means = [{p: float(np.mean([large[d][p] for d in part])) for p in common} for part in (near, far)]
    less = differences([("Δ within - Δ beyond the horizon", "once", means[0], means[1])])
    grows = ranks.clusters >= FEWEST and ranks.low > 0 and all(step.sign >= 0 for step in steps)
    return (
        first,
        Condition(texts[1], None if _few(steps) else grows, f"correlation {ranks.text()}; {_listed(steps)}"),
        one_sided(texts[2], less, -1),
    )


def _rank_correlation(deltas: Sequence[int], values: Sequence[float]) -> float:
    """Spearman's, of increasing Δ and the change at each; 0 where all changes are equal."""
    from scipy.stats import rankdata

    a, b = rankdata(deltas), rankdata(values)
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(b) > 0 else 0.0


# --- 4, 5: f0 and the sink --------------------------------------------------------------------------------------------


def _anchor(study: Study, checkpoint: str) -> list[Claim]:
    cells = study.find("windows", checkpoint, window=6, sink=1, index="relative")
    text = "every f0 from 6 to 21 gives the same smooth and consistent video (supplement E.1)"
    texts = ("no f0 differs significantly from f0 = 6", f"and no difference of {ALIKE} is left open by the intervals")
    if len(cells) < 2 or cells[0].facts["f0"] != 6:
        return [Claim("4", text, checkpoint, tuple(_missing(one) for one in texts))]
    last = max(start for start in cells[0].starts if all(start in cell.starts for cell in cells))
    found = differences(
        (f"{NAMES[m]} at {last:g} s, f0={cell.facts['f0']} - f0=6", m, cell.values(m, last), cells[0].values(m, last))
        for cell in cells[1:]
        for m in QUALITY
    )
    few = _few(found)
    same = all(one.sign == 0 for one in found)
    within = all(max(abs(one.interval.low), abs(one.interval.high)) <= ALIKE for one in found)
    widest = sorted(found, key=lambda one: -max(abs(one.interval.low), abs(one.interval.high)))
    conditions = (
        Condition(texts[0], None if few else same, _listed(found)),
        Condition(texts[1], None if few else within, "; ".join(one.text() for one in widest[:2])),
    )
    return [Claim("4", text, checkpoint, conditions)]


def sink_excess(cell: Readings, wanted: Callable[[int], bool] = lambda distance: True) -> Values:
    """By prompt: mass on the sink over the share that even attention would give it, minus 1.

    The mean over layers, heads, steps and the blocks at a wanted index distance; empty where there is none.
    """
    found = cell.data["attention"]
    blocks = [place for place, distance in enumerate(found["distance"]) if wanted(distance)]
    if not blocks:
        return {}
    mass_BTS = np.asarray(found["by_prompt"], dtype=np.float64)[:, blocks]
    relative = mass_BTS.mean(axis=2) / np.asarray(found["even"])[blocks] - 1
    return {prompt: float(row.mean()) for prompt, row in enumerate(relative)}


def _sink(study: Study, checkpoint: str) -> list[Claim]:
    text = "the sink draws attention beyond its share (attention sink)"
    swept = study.find("attention", checkpoint, index="relative")
    absolute = study.one("attention", checkpoint, index="absolute")
    texts = (
        "beyond its even share at the released setting, f0 = 6, mean over layers and heads",
        "the same at every f0 of the sweep",
        "the same at absolute distances beyond the horizon",
        f"some head of some layer gives it at least {HEAD:g} times its even share at f0 = 6",
    )

    def above(condition: str, named: dict[str, Values]) -> Condition:
        named = {name: values for name, values in named.items() if values}
        found = differences(
            (f"{name}, mass / even share - 1", "mass", values, dict.fromkeys(values, 0.0))
            for name, values in named.items()
        )
        holds = None if _few(found) else all(one.sign == 1 for one in found)
        return Condition(condition, holds, _listed(found, 6) or "not in this tier")

    settled = {f"f0={cell.facts['f0']}": sink_excess(cell, _settled(cell)) for cell in swept}
    beyond = {"distance > 21": sink_excess(absolute, lambda distance: distance > HORIZON)} if absolute else {}
    conditions = (
        above(texts[0], {"f0=6": settled.get("f0=6", {})}),
        above(texts[1], settled),
        above(texts[2], beyond),
        _head(texts[3], next((cell for cell in swept if cell.facts["f0"] == 6), None)),
    )
    return [Claim("5", text, checkpoint, conditions)]


def _head(text: str, cell: Readings | None) -> Condition:
    if cell is None:
        return _missing(text)
    found, wanted = cell.data["attention"], _settled(cell)
    rest = [place for place, distance in enumerate(found["distance"]) if wanted(distance)]
    mass_AH = np.asarray(found["by_head"])[rest].mean(axis=(0, 1))
    most = float(mass_AH.max()) / float(np.asarray(found["even"])[rest].mean())
    layer, head = (int(place) + 1 for place in np.unravel_index(mass_AH.argmax(), mass_AH.shape))
    share = float((mass_AH >= np.asarray(found["even"])[rest].mean()).mean())
    numbers = f"{most:.1f} times in layer {layer}, head {head}; {100 * share:.0f} % of the heads exceed the even share"
    return Condition(text, most >= HEAD if len(found["by_prompt"]) >= FEWEST else None, numbers)


def _settled(cell: Readings) -> Callable[[int], bool]:
    """Blocks at the distance at which the sink comes to rest."""
    last = max(cell.data["attention"]["distance"])
    return lambda distance: distance == last


# --- 6: window --------------------------------------------------------------------------------------------------------


def _window(study: Study, checkpoint: str) -> list[Claim]:
    text = "a larger window keeps more and lags more"
    keeps = "the largest window keeps colour, background or IoU better than the smallest at the end, none worse"
    lags = "with the cache kept at a switch, the largest window reacts later than the smallest, nowhere sooner"
    windows = sorted(study.choices("windows", checkpoint, "window"))
    conditions = [_missing(keeps), _missing(lags)]
    if len(windows) > 1:
        small, large = (
            study.one("windows", checkpoint, window=w, sink=1, index="relative", f0=w)
            for w in (windows[0], windows[-1])
        )
        if small and large:
            last = max(start for start in small.starts if start in large.starts)
            conditions[0] = one_sided(
                keeps,
                differences(
                    (
                        f"{NAMES[m]} at {last:g} s, w{windows[-1]} - w{windows[0]}",
                        m,
                        large.values(m, last),
                        small.values(m, last),
                    )
                    for m in APPEARANCE
                ),
                1,
            )
    kept = {_where(cell): cell for cell in study.find("switch", checkpoint, way="keep")}
    sizes = sorted({window for _, window in kept})
    if len(sizes) > 1:
        found = differences(
            (
                f"{kind}, blocks, w{sizes[-1]} - w{sizes[0]}",
                "lag",
                kept[kind, sizes[-1]].values("lag"),
                kept[kind, sizes[0]].values("lag"),
            )
            for kind in dict.fromkeys(kind for kind, _ in kept)
            if {(kind, sizes[0]), (kind, sizes[-1])} <= kept.keys()
        )
        conditions[1] = one_sided(lags, found, 1)
    return [Claim("6", text, checkpoint, tuple(conditions))]
