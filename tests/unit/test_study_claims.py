"""Verdicts of the policy study on made-up readings, both ways, and the tables' numbers by hand."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from eval.study import Readings, Study, differences, lag
from eval.study_claims import Claim, claims
from eval.study_report import markdown
from eval.study_tables import tables

PROMPTS = 24


def cell(part: str, label: str, facts: Mapping[str, Any], rows: list[dict[str, Any]], **more: Any) -> Readings:
    data = {"part": part, "label": label, "facts": facts, "checkpoint": "toy", "readings": rows, "key": label}
    common = {"weights": "0" * 64, "seed": 0, "seconds": {"cpu": 1.0}, "prompts": ["p"] * PROMPTS}
    return Readings(data | common | more)


def rows(make: Callable[[np.random.Generator], dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    draw = np.random.default_rng(seed)
    return [{"prompt": prompt, **make(draw)} for prompt in range(PROMPTS)]


def window(label: str, facts: Mapping[str, Any], quality: Mapping[float, float], prompts: int = PROMPTS) -> Readings:
    """A cell whose measures lie about ``quality`` of each start."""
    found = []
    for start, level in quality.items():
        draw = np.random.default_rng(round(start) + len(label))
        for prompt in range(prompts):
            value = float(np.clip(level + draw.normal(0, 0.02), 0, 1))
            rates = {"action": float((prompt + 0.5) / prompts < level), "streak": 0.0}
            same = dict.fromkeys(("color", "background", "iou", "shape", "visible"), value)
            rest = {"pace": 1.0, "home": 0.0, "seam": 1.0, "returns": 0.0}
            found.append({"prompt": prompt, "start": start, **rates, **same, **rest})
    return cell("windows", label, facts, found)


def w(window: int, index: str, f0: int | None = None) -> dict[str, Any]:
    return {"window": window, "sink": 1, "index": index, "f0": f0}


def verdict(found: list[Readings], number: str) -> Claim:
    (claim,) = [claim for claim in claims(Study(tuple(found))) if claim.number == number]
    return claim


GOOD = {0.0: 0.95, 5.0: 0.95, 15.0: 0.95}
FALLS = {0.0: 0.95, 5.0: 0.5, 15.0: 0.4}


@pytest.mark.parametrize(
    ("absolute", "relative", "expected"),
    [
        (FALLS, GOOD, "shows"),
        (GOOD, GOOD, "shows in part"),  # nothing breaks
        (FALLS, {0.0: 0.95, 5.0: 0.9, 15.0: 0.7}, "shows in part"),  # the other is not stable
        (GOOD, FALLS, "does not show"),
        ({0.0: 0.95, 5.0: 0.9, 15.0: 0.88}, GOOD, "shows in part"),  # significantly worse, but not broken
    ],
)
def test_claim_1_goes_both_ways(absolute: dict[float, float], relative: dict[float, float], expected: str) -> None:
    found = [window("absolute", w(6, "absolute"), absolute), window("f0=6", w(6, "relative", 6), relative)]
    assert verdict(found, "1").verdict == expected


def test_few_prompts_give_no_verdict() -> None:
    found = [window("absolute", w(6, "absolute"), FALLS, 5), window("f0=6", w(6, "relative", 6), GOOD, 5)]
    assert verdict(found, "1").verdict == "not tested"
    assert verdict([], "1").verdict == "not tested" if claims(Study(())) else True


def switch(way: str, window: int, late: float, seed: int = 0) -> Readings:
    def row(draw: np.random.Generator) -> dict[str, Any]:
        first = int(np.clip(round(draw.normal(late, 0.7)), 0, 10))
        shown = [0] * first + [1] * (10 - first)
        return {"shown": shown, "before": 1.0, "edge": 1.0, "color": 1.0, "shape": 1.0, "visible": 1.0}

    facts = {"kind": "motion", "window": window, "way": way, "sink": 1}
    return cell("switch", f"motion w{window} {way}", facts, rows(row, seed))


@pytest.mark.parametrize(
    ("keep", "flush", "recache", "expected"),
    [(4.0, 0.0, 0.0, "shows"), (4.0, 2.0, 0.0, "shows in part"), (1.0, 4.0, 0.0, "does not show")],
)
def test_claim_2_goes_both_ways(keep: float, flush: float, recache: float, expected: str) -> None:
    found = [switch("keep", 12, keep), switch("flush 1", 12, flush, 1), switch("recache", 12, recache, 2)]
    assert verdict(found, "2").verdict == expected


def cut(way: str, change: float, delta: int | None = None, seed: int = 0) -> Readings:
    def row(draw: np.random.Generator) -> dict[str, Any]:
        return {"once": change + float(draw.normal(0, 0.004)), "late": 0.0, "jump": 1.0, "edge": 1.0, "same": 1.0}

    facts = {"way": way, "mode": "target", "frames": "all", "delta": delta}
    return cell("cut", f"{way} {delta}", facts, rows(row, seed))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((0.01, 0.02, 0.03, 0.06, 0.09), "shows"),
        ((0.01, 0.05, 0.03, 0.07, 0.02), "shows in part"),  # a change, but not one that grows
        ((0.01, 0.02, 0.05, 0.03, 0.09), "shows in part"),  # mostly, but less at 45 than at 21
        ((0.01, 0.01, 0.01, 0.01, 0.01), "does not show"),
        ((0.01, 0.09, 0.06, 0.03, 0.02), "shows in part"),
    ],
)
def test_claim_3_goes_both_ways(changes: tuple[float, ...], expected: str) -> None:
    found = [cut("flush", 0.01)]
    found += [
        cut("cut", change, delta, i + 1)
        for i, (change, delta) in enumerate(zip(changes, (1, 6, 21, 45, 90), strict=True))
    ]
    claim = verdict(found, "3a")
    assert claim.verdict == expected
    if expected == "shows in part":
        assert [one.holds for one in claim.conditions][:2] == [True, False]


@pytest.mark.parametrize(("level", "expected"), [(0.95, "shows"), (0.5, "does not show")])
def test_claim_4_goes_both_ways(level: float, expected: str) -> None:
    found = [window("f0=6", w(6, "relative", 6), GOOD), window("f0=21", w(6, "relative", 21), {**GOOD, 15.0: level})]
    assert verdict(found, "4").verdict == expected


def attention(label: str, facts: Mapping[str, Any], distance: list[int], mass: float) -> Readings:
    draw = np.random.default_rng(3)
    by_prompt = mass + draw.normal(0, 0.01, (PROMPTS, len(distance), 2))
    found = {"distance": distance, "even": [1 / 6] * len(distance), "steps": [1, 4], "by_prompt": by_prompt.tolist()}
    by_head = np.full((len(distance), 2, 4, 3), mass).tolist()
    return cell("attention", label, facts, [], attention=found | {"by_head": by_head, "blocks": []})


@pytest.mark.parametrize(
    ("near", "far", "expected"), [(0.4, 0.4, "shows"), (0.4, 0.1, "shows in part"), (0.1, 0.1, "does not show")]
)
def test_claim_5_goes_both_ways(near: float, far: float, expected: str) -> None:
    found = [
        attention("f0=6", {"index": "relative", "f0": 6}, [3, 3, 3], near),
        attention("absolute", {"index": "absolute"}, [3, 60, 120], far),
    ]
    assert verdict(found, "5").verdict == expected


@pytest.mark.parametrize(
    ("small", "large", "early", "late", "expected"),
    [
        (FALLS, GOOD, 1.0, 4.0, "shows"),
        (GOOD, GOOD, 1.0, 4.0, "shows in part"),
        (GOOD, FALLS, 4.0, 1.0, "does not show"),
    ],
)
def test_claim_6_goes_both_ways(
    small: dict[float, float], large: dict[float, float], early: float, late: float, expected: str
) -> None:
    found = [window("f0=6", w(6, "relative", 6), small), window("w21 f0=21", w(21, "relative", 21), large)]
    found += [switch("keep", 6, early), switch("keep", 21, late, 1)]
    assert verdict(found, "6").verdict == expected


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "blocks"),
    [
        ([1, 1, 1, 1], 0),
        ([0, 1, 1, 1], 1),
        ([1, 0, 1, 1], 2),  # a fluke in the first block
        ([0, 0, 0, 1], 3),  # the last block counts alone
        ([0, 0, 0, 0], 4),  # never: the number of blocks
        ([0, 1, 0, 0], 4),
    ],
)
def test_lag_by_hand(shown: list[int], blocks: int) -> None:
    assert lag(shown) == blocks


def test_differences_are_paired_and_corrected_together() -> None:
    draw = np.random.default_rng(0)
    base = {prompt: float(value) for prompt, value in enumerate(draw.normal(0, 1, PROMPTS))}
    near = {prompt: value + float(draw.normal(0.1, 0.05)) for prompt, value in base.items()}
    alone = differences([("a", "iou", near, base)])[0]
    assert alone.sign == 1  # far below the spread over prompts: only pairing sees it
    assert alone.interval.estimate == pytest.approx(np.mean([near[p] - base[p] for p in base]))
    family = differences([("a", "iou", near, base), *[("b", "iou", base, base)] * 9])
    assert family[0].p == pytest.approx(min(1, 10 * alone.p))
    assert family[1].sign == 0


def test_the_report_says_whose_numbers_they_are_and_tables_hold_the_means() -> None:
    found = [window("absolute", w(6, "absolute"), FALLS), window("f0=6", w(6, "relative", 6), GOOD)]
    found += [switch("keep", 6, 3.0), switch("flush 1", 6, 1.0, 1), cut("none", 0.01), cut("flush", 0.01)]
    study = Study(tuple(found))
    made = tables(study)
    (numbers,) = [
        row
        for table in made
        for row in table.numbers
        if row.get("cell") == "absolute"
        and row.get("measure") == "iou"
        and row.get("start") == 15
        and "interval" in row
    ]
    values = list(found[0].values("iou", 15.0).values())
    assert numbers["mean"] == pytest.approx(np.mean(values), abs=1e-5)
    assert numbers["low"] < numbers["mean"] < numbers["high"]
    assert numbers["n"] == PROMPTS
    text = markdown_of(study)
    assert "preliminary" in text
    assert "never of the 1.3B model" in text
    assert "f0=6 (= attached sink)" in text
    assert "motion w6 keep (= flush 2)" in text
    for line in text.splitlines():
        assert not line.startswith("|") or "nan" not in line


def markdown_of(study: Study) -> str:
    facts = {"command": "irope run policy_study", "date": "today", "checkpoints": {"toy": "0" * 64}, "seed": 0}
    return markdown(facts | {"cells": 6, "cpu_seconds": {"toy": 6.0}, "prompts": PROMPTS}, claims(study), tables(study))
