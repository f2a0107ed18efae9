"""The latency measurement: what it counts against what the cache really does. No test asserts how fast."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from eval.plots.latency import latency as draw
from eval.plots.plot import NoPlotError
from irope import latency, measurements
from irope.cache import ArenaShape, KVArena
from irope.config import CONF, load
from irope.errors import UserError
from irope.latency import METHODS, Sweep, TimedRollout, fit_cost, host_seconds, measure_pair, policy_at
from irope.latency_report import HEADINGS, as_markdown, clock_of, load_report, table_rows
from irope.noise import KeyedNoise
from irope.policy import CachePlan, PolicyError
from irope.sampler import Sampler
from tests.rollout_kit import CONFIG, FAST, FRAME, SWITCH, Script, latents, model, rollout, text

ROOT = Path(__file__).resolve().parents[2]
WINDOWS = [3, 6, 9, 24]


def timed(method: str, window: int, script: Script) -> TimedRollout:
    return TimedRollout(
        model=model(),
        policy=policy_at(method, window, 3),
        events=script,
        sampler=Sampler.from_nominal(FAST, 5.0),
        texts=text,
        noise=KeyedNoise(7, ["a"], (3, *FRAME)),
        frame_shape=FRAME,
    )


@pytest.mark.parametrize("method", METHODS)
def test_timing_changes_no_frame(method: str) -> None:
    script = Script(6, {4: SWITCH})
    assert torch.equal(latents(timed(method, 9, script)), latents(rollout(policy_at(method, 9, 3), script)))


@pytest.mark.parametrize("window", WINDOWS)
def test_a_switch_is_measured_when_the_window_is_full(window: int) -> None:
    blocks = window // 3 + 2
    made = measure_pair({m: timed(m, window, Script(blocks, {blocks - 1: SWITCH})) for m in METHODS}, blocks, 1)
    flush, again = made["flush"].plan, made["recache"].plan
    assert flush.recompute is None
    assert again.recompute is not None
    assert len(again.recompute.frames) == window  # R of the table
    assert len(flush.read) == min(3, window - 3)
    for switch in made.values():
        assert all(
            math.isfinite(v) for part in (switch.prompt, switch.block, switch.extra_cache) for v in part.values()
        )
        assert 0 < switch.prompt["wall"] < switch.block["wall"]
        assert switch.extra_block["wall"] == pytest.approx(switch.block["wall"] - switch.ordinary["wall"])


def test_bytes_are_those_that_change_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages whose keys and whose values change when the switch begins, counted in the arena."""
    changed: dict[str, list[int]] = {}

    def watch(method: str, rollout: TimedRollout) -> TimedRollout:
        begin = rollout._begin

        def counted(plan: CachePlan, segment: int) -> None:
            before = rollout.arena.keys.clone(), rollout.arena.values.clone()
            begin(plan, segment)
            now = rollout.arena.keys, rollout.arena.values
            slots = [(a != b).unflatten(2, (9, -1)).flatten(3).any(-1) for a, b in zip(before, now, strict=True)]
            changed[method] = [int(slot.any(1).any(0).sum()) for slot in slots]

        monkeypatch.setattr(rollout, "_begin", counted)
        return rollout

    script = Script(6, {5: SWITCH})
    measure_pair({m: watch(m, timed(m, 9, script)) for m in METHODS}, 6, 2)
    # A flush turns the sink's keys, as every block does, and brings two pages at most beside the others.
    assert max(changed["flush"]) <= 2
    assert changed["recache"] == [8, 8]  # keys and values of window - sink frames


def test_the_host_part_is_planned_for_a_full_window(monkeypatch: pytest.MonkeyPatch) -> None:
    views: list[Any] = []
    policy = policy_at("recache", 9, 3)
    plan = type(policy).plan
    monkeypatch.setattr(type(policy), "plan", lambda self, view: views.append(view) or plan(self, view))
    arena = KVArena(CONFIG, ArenaShape(9, (2, 2)), torch.float32, torch.device("cpu"))
    taken = host_seconds(policy, arena, block=3, number=320, repeats=2)
    assert len(taken) == 2
    assert min(taken) > 0
    assert views[0].frames == (0, *range(952, 960))
    assert views[0].block == (960, 961, 962)
    assert views[0].event is SWITCH


def test_the_fit_finds_the_law_it_was_made_from() -> None:
    frames = np.arange(3, 25, 3)
    fit = fit_cost(frames, 3.9 * frames + 0.449 * frames**2)  # type: ignore[arg-type]
    assert fit is not None
    assert (fit["a_ms"], fit["b_ms"], fit["r2"]) == pytest.approx((3.9, 0.449, 1))
    fit = fit_cost(frames, 2 + 0.5 * frames + 0.01 * frames**2, fixed=True)  # type: ignore[arg-type]
    assert fit is not None
    assert (fit["fixed_ms"], fit["a_ms"], fit["b_ms"], fit["r2"]) == pytest.approx((2, 0.5, 0.01, 1))
    noisy = 2 * frames + np.random.default_rng(0).normal(0, 3, len(frames))
    fit = fit_cost(frames, noisy)  # type: ignore[arg-type]
    assert fit is not None
    line = np.polynomial.Polynomial.fit(frames, noisy, 2, domain=[-1, 1])  # with a constant it can only fit better
    assert fit["r2"] <= 1 - np.sum((noisy - line(frames)) ** 2) / np.sum((noisy - noisy.mean()) ** 2)
    assert fit_cost([3, 6], [1, 2]) is None


# --- the experiment ---------------------------------------------------------------------------------------------------


def config(**settings: Any) -> Mapping[str, Any]:
    experiment: Any = OmegaConf.to_container(OmegaConf.load(CONF / "experiment" / "latency.yaml"))
    experiment["tiers"]["smoke"] |= settings
    return {**load(["sys.device=cpu"]), "experiment": experiment, "tier": "smoke"}


def test_the_experiment_writes_json_and_a_table_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_HOST_REPEATS", 3)
    small, said = config(windows=[3, 6, 9], repeats=1, ordinary=1), list[str]()
    path, table = measurements.latency(small, tmp_path, said.append)
    report = load_report(path)
    assert [(row["method"], row["window"], row["recached"], row["forwards"]) for row in report["rows"]] == [
        *(("flush", window, 0, 0) for window in (3, 6, 9)),
        *(("recache", window, window, 1) for window in (3, 6, 9)),
    ]
    assert all(row["bytes_written"] == 0 for row in report["rows"][:3])
    assert report["fit"]["cpu"].keys() == {"a_ms", "b_ms", "r2"}
    assert clock_of(report) == "cpu"
    rows = table_rows(report)
    assert len(rows) == 6
    assert all(len(row) == len(HEADINGS) for row in rows)
    text = table.read_text(encoding="utf-8")
    assert text == as_markdown(report)
    assert all(word in text for word in ("tiny/stable", "irope run latency tier=smoke", "recache, medians: cpu ms ="))
    written = path.stat().st_mtime_ns
    table.unlink()
    said.clear()
    assert measurements.latency(small, tmp_path, said.append) == [path, table]
    assert said == [f"{path.name} is there"]
    assert path.stat().st_mtime_ns == written
    assert table.read_text(encoding="utf-8") == text


def test_bad_settings_name_the_key() -> None:
    good = {"windows": [6], "repeats": 1, "ordinary": 1, "prompts": ["a", "b"]}
    for bad, message in (
        ({"repeats": 0}, "repeats=0"),
        ({"windows": []}, "windows="),
        ({"prompts": ["a"]}, "expected two"),
    ):
        with pytest.raises(UserError, match=message):
            Sweep.from_config({**good, **bad})
    with pytest.raises(PolicyError, match="nearest valid"):
        policy_at("flush", 2, 3)


def test_another_file_is_refused(tmp_path: Path) -> None:
    for content in ("no", json.dumps({"rows": []}), "[]"):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(UserError, match="irope run latency"):
            load_report(tmp_path / "x.json")


def test_the_plot_shows_the_published_numbers_and_names_the_model(tmp_path: Path) -> None:
    path = next((ROOT / "results" / "published").glob("bench-switch-cpu-*.json"))
    report, plot = load_report(path), draw(path)
    data = plot.data.set_index(["method", "window"])
    assert len(data) == len(report["rows"])
    for row in report["rows"]:
        here = data.loc[row["method"], row["window"]]
        assert here["cache_ms_median"] == row["cache_ms"]["cpu"]["median"]
        assert here["first_frame_ms_p90"] == row["first_frame_ms"]["cpu"]["p90"]
    assert "the embedded model" in plot.caption
    cost = plot.figure.axes[0]
    (law,) = [line for line in cost.lines if len(line.get_xdata()) == 100]
    fit = report["fit"]["cpu"]
    assert law.get_ydata()[-1] == pytest.approx(fit["a_ms"] * 24 + fit["b_ms"] * 24**2)
    plot.figure.savefig(tmp_path / "x.png")
    with pytest.raises(NoPlotError, match="irope run latency"):
        draw(tmp_path / "x.png")
