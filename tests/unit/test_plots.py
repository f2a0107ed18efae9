"""Plots: what is drawn is what pandas and SciPy say; they run for one and for twelve methods, the same every time."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from eval.frame import load_frame
from eval.plots.all import KINDS, draw, figures
from eval.plots.numbers import band, numbers
from eval.plots.pareto import MixedDevicesError, frontier, pareto
from eval.plots.plot import Plot, save
from eval.results import Results
from eval.scores import read_scores, write_scores
from irope.errors import UserError
from irope.provenance import write_json_atomic
from tests.results_kit import make_results

TWELVE = (
    *("infinity_rope", "infinity_rope_paper", "kv_recache", "longlive_infinity", "rolling_w6", "rolling_sink1"),
    *("rolling_forcing", "causvid", "full", "memrope", "of_a_later_issue", "of_next_year"),
)


@pytest.fixture(autouse=True)
def drawing_warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def methods(folder: Path, names: tuple[str, ...], **settings: object) -> Results:
    settings = {
        "name": "table1_with_a_long_name",
        "seconds": (5.0, 20.0),
        "metrics": ("imaging", "world_prompt"),
    } | settings
    return make_results(folder, {name: {} for name in names}, **settings)  # type: ignore[arg-type]


def with_switches(results: Results, blocks: dict[str, list[tuple[int, bool]]]) -> Results:
    """Give each video a switch at 5 s and a cut at 10 s with the (blocks, censored) listed for its prompt."""
    for cell, video, content in results.score_files():
        frames = content["video"]["frames"]
        edges = [(0, 80, "a", False), (80, 160, "b", False), (160, frames, "c", True)]
        keys = ("start", "stop", "prompt", "cut")
        content["video"]["source"]["segments"] = [dict(zip(keys, edge, strict=True)) for edge in edges]
        found = blocks[cell.label if cell.label in blocks else video.prompt]
        extra = {}
        for number, (count, censored) in enumerate(found, 1):
            extra |= {f"blocks_{number}": float(count), f"censored_{number}": float(censored)}
        entry = {"key": "k", "value": 1.0, "terms": 2, "extra": extra, "made": {"settings": {"block": 12}}}
        content["windows"][f"0-{frames}"]["scores"]["switch_latency"] = entry
        write_scores(video.scores, content)
    return results


def one(results: Results, kind: str) -> Plot:
    drawn = draw(results, [kind])
    assert len(drawn.plots) == 1, drawn.left_out
    return drawn.plots[0]


def lines(figure: Figure, panel: int) -> list[np.ndarray]:
    return [np.column_stack(line.get_data()) for line in figure.axes[panel].lines if len(line.get_xdata()) > 1]


def test_the_points_of_the_duration_plot_are_the_means_over_prompts_of_the_means_over_seeds(tmp_path):
    results = methods(tmp_path, ("infinity_rope", "causvid"), seeds=(0, 1))
    plot = one(results, "duration")
    frame = load_frame(tmp_path / "scores")
    frame["seconds"] = frame["length"].str.split().str[0].astype(float)
    by_prompt = frame.groupby(["metric", "method", "seconds", "prompt"])["value"].mean()
    means = by_prompt.groupby(["metric", "method", "seconds"]).mean()
    drawn = plot.data.set_index(["metric", "method", "seconds"])["mean"]
    pd.testing.assert_series_equal(drawn.sort_index(), means.sort_index(), check_names=False, check_index_type=False)
    assert set(plot.data["prompts"]) == {10}
    assert set(plot.data["videos"]) == {20}
    for axis, metric in zip(plot.figure.axes, ("imaging", "world_prompt"), strict=False):
        seen = [line.get_ydata() for line in axis.lines if line.get_marker() in "oX" and len(line.get_xdata()) == 2]
        for method, y in zip(("infinity_rope", "causvid"), seen, strict=True):
            np.testing.assert_allclose(y, means[metric, method].to_numpy())


def test_curves_are_averaged_over_prompts_second_by_second(tmp_path):
    results = methods(tmp_path, ("infinity_rope",), seeds=(0, 1))
    plot = one(results, "drift")
    rows = [
        (video.prompt, i + 0.5, value)
        for _, video, content in results.score_files()
        for i, value in enumerate(
            max(content["windows"].items(), key=lambda w: len(w[0]))[1]["scores"]["imaging"]["curve"]["values"]
        )
    ]
    frame = pd.DataFrame(rows, columns=["prompt", "second", "value"])
    means = frame.groupby(["second", "prompt"])["value"].mean().groupby("second").mean()
    drawn = plot.data[plot.data["metric"] == "imaging"].set_index("second")["mean"]
    np.testing.assert_allclose(drawn, means.loc[drawn.index])
    assert len(drawn) == 20
    np.testing.assert_allclose(lines(plot.figure, 0)[0], np.column_stack([drawn.index, drawn]))


def test_bands_are_scipys_bootstrap_of_every_second_at_the_expanded_level():
    x = np.random.default_rng(3).beta(5, 2, (12, 6))
    x[:, 4] = 0.5  # no spread
    x[:7, 5] = np.nan  # five prompts: the range
    mean, low, high, prompts = band(x)
    level = 1 - 2 * stats.norm.cdf(np.sqrt(12 / 11) * stats.t.ppf(0.025, 11))
    for second in range(4):
        found = stats.bootstrap((x[:, second],), np.mean, confidence_level=level, n_resamples=50_000, rng=1)
        np.testing.assert_allclose((low[second], high[second]), found.confidence_interval, atol=0.012)
    assert (low[4], high[4], mean[4]) == (0.5, 0.5, 0.5)
    assert (low[5], high[5]) == (x[7:, 5].min(), x[7:, 5].max())
    assert prompts.tolist() == [12] * 5 + [5]
    np.testing.assert_allclose(mean, np.nanmean(x, axis=0))


def test_prompts_without_a_second_are_left_out_of_it_only():
    x = np.array([[1.0, np.nan], [3.0, 5.0]])
    mean, low, high, prompts = band(x)
    assert (mean.tolist(), low.tolist(), high.tolist(), prompts.tolist()) == ([2, 5], [1, 5], [3, 5], [2, 1])


def test_an_ablation_has_a_line_for_each_value_of_the_other_axis(tmp_path):
    cells = {
        f"infinity_rope@f0={f0},sink_index={sink}": {"f0": f0, "sink_index": sink}
        for f0 in (6, 9, 21)
        for sink in ("pinned", "attached")
    }
    plot = one(make_results(tmp_path, cells, metrics=("imaging",)), "ablation")
    assert plot.name == "ablation-f0"
    assert [text.get_text() for text in plot.figure.legends[0].get_texts()] == [
        "infinity_rope, sink_index=attached",
        "infinity_rope, sink_index=pinned",
    ]
    values = load_frame(tmp_path / "scores").groupby("method")["value"].mean()
    for drawn, sink in zip(lines(plot.figure, 0), ("attached", "pinned"), strict=True):
        expected = [(f0, values[f"infinity_rope@f0={f0},sink_index={sink}"]) for f0 in (6, 9, 21)]
        np.testing.assert_allclose(drawn, expected)


def test_an_axis_of_names_is_no_curve(tmp_path):
    cells = {f"infinity_rope@cut_mode={m}": {"cut_mode": m} for m in ("target", "offset")}
    assert not [p for p in figures(make_results(tmp_path, cells)) if p.name.startswith("ablation")]


PUBLISHED = {"delta_ablation": {"delta": "cut_delta"}}


@pytest.mark.parametrize(
    ("protocol", "model", "count"),
    [("vbench", "wan_1_3b/self_forcing", 4), ("vbench", "tiny/stable", 0), ("vbench_long", "wan_1_3b/self_forcing", 0)],
)
def test_published_values_stand_beside_ours_only_for_the_same_model_and_protocol(tmp_path, protocol, model, count):
    metrics = ("subject_consistency",)
    results = make_results(tmp_path, protocol=protocol, model=model, metrics=metrics, published=PUBLISHED)
    plot = one(results, "ablation")
    hollow = [line for line in plot.figure.axes[0].lines if line.get_markerfacecolor() == "#ffffff"]
    points = [tuple(point) for line in hollow for point in zip(*line.get_data(), strict=True)]
    assert points == [(6, 0.9074), (21, 0.9004), (45, 0.8847), (90, 0.8769)][:count]
    assert any("published" in text.get_text() for text in plot.figure.legends[0].get_texts()) == bool(count)


def test_the_share_answered_is_the_empirical_distribution_of_the_waits(tmp_path):
    waits = [0, 0, 1, 2, 2, 3, 4, 5, 5, 6]
    blocks = {f"p{i}": [(wait, wait == 6), (1, False)] for i, wait in enumerate(waits)}
    plot = one(with_switches(methods(tmp_path, ("infinity_rope",)), blocks), "switches")
    rows = plot.data[~plot.data["cut"]]
    answered = [wait if wait < 6 else 99 for wait in waits]
    expected = stats.ecdf(answered).cdf.evaluate(rows["blocks"])
    np.testing.assert_allclose(rows["share"], expected)
    assert rows["seconds"].tolist() == [0.75 * b for b in range(7)]  # 80 frames are 6 2/3 blocks of 12
    low, high = stats.binomtest(8, 10).proportion_ci(method="wilson")
    at_four = rows[rows["blocks"] == 4].iloc[0]
    assert stats.binomtest(7, 10).proportion_ci(method="wilson") == pytest.approx((at_four["low"], at_four["high"]))
    assert low > at_four["low"]
    assert high > at_four["high"]
    cut = plot.data[plot.data["cut"]]
    assert cut["share"].tolist() == [0.0] + [1.0] * (len(cut) - 1)
    assert [axis.get_title(loc="left") for axis in plot.figure.axes] == [
        "Prompt switches: 10 a line",
        "Scene cuts: 10 a line",
    ]


def test_the_frontier_is_what_no_other_point_beats():
    rng = np.random.default_rng(0)
    cost, score = rng.integers(0, 8, 40).astype(float), rng.integers(0, 8, 40).astype(float)
    for way, sign in (("higher", 1), ("lower", -1)):
        beaten = [
            any(
                (cost[j] <= cost[i])
                & (sign * score[j] >= sign * score[i])
                & ((cost[j] < cost[i]) | (score[j] != score[i]))
                for j in range(40)
            )
            for i in range(40)
        ]
        assert frontier(cost.tolist(), score.tolist(), way) == [i for i in range(40) if not beaten[i]]


def test_costs_are_medians_and_videos_of_two_devices_are_refused(tmp_path):
    results = methods(tmp_path, ("infinity_rope", "causvid"))
    plot = one(results, "pareto")
    costs = results.costs.groupby("method")["seconds_per_frame"].median()
    drawn = plot.data.set_index("method")
    np.testing.assert_allclose(drawn["seconds_per_frame"], costs.loc[drawn.index])
    assert "a made-up CPU" in plot.figure._supxlabel.get_text()  # type: ignore[attr-defined]
    assert set(plot.data["seconds"]) == {20}
    sidecar = results.cells[0].videos[3].sidecar
    facts = json.loads(sidecar.read_text())
    write_json_atomic(sidecar, facts | {"environment": {"device": {"name": "another GPU"}}})
    with pytest.raises(MixedDevicesError, match=r"19 on a made-up CPU, 1 on another GPU"):
        pareto(replace(results), numbers(results))
    drawn_all = draw(replace(results))  # a copy reads the disk again
    assert "another GPU" in drawn_all.left_out["pareto"]
    assert {"duration", "drift"} <= {plot.name for plot in drawn_all.plots}


@pytest.mark.parametrize("names", [TWELVE[:1], TWELVE])
def test_every_plot_runs_for_one_and_for_twelve_methods_and_hides_nothing(tmp_path, names):
    results = methods(tmp_path, names)
    blocks = {name: [(2 + i % 3, False), (1, False)] for i, name in enumerate(names)}
    plots = figures(with_switches(results, blocks))
    assert [plot.name for plot in plots] == ["duration", "drift", "pareto", "switches"]
    for plot in plots:
        plot.figure.draw_without_rendering()
        renderer = plot.figure.canvas.get_renderer()  # type: ignore[attr-defined]
        legend = plot.figure.legends[0].get_window_extent(renderer)
        title, inside = plot.figure._suptitle.get_window_extent(renderer), plot.figure.bbox  # type: ignore[attr-defined]
        for axis in plot.figure.axes:
            if axis.axison:
                box = axis.get_window_extent(renderer)
                assert not box.overlaps(legend)
                assert not box.overlaps(title)
        subtitle = next(text for axis in plot.figure.axes for text in axis.texts if "protocol" in text.get_text())
        assert not subtitle.get_window_extent(renderer).overlaps(legend)
        assert legend.y0 >= 0
        assert legend.x1 <= inside.x1
        said = subtitle.get_text().replace("\xa0", " ").replace("\n", " ")
        model = "model tiny/stable, the embedded model"
        assert said.startswith(f"table1_with_a_long_name (quick) · protocol embedded · {model} · n = 10 prompts")


def test_few_prompts_have_dots_and_ranges_and_no_band(tmp_path):
    results = methods(tmp_path, ("infinity_rope",), prompts=("a", "b", "c"))
    plot = one(results, "duration")
    assert set(plot.data["interval"]) == {"range"}
    means = results.frame.groupby(["metric", "length", "prompt"])["value"].mean()
    dots = [line.get_ydata() for line in plot.figure.axes[0].lines if line.get_marker() == "."]
    np.testing.assert_allclose(dots, [means["imaging", length].to_numpy() for length in ("5 s", "20 s")])
    assert "too few for an interval" in plot.figure._supxlabel.get_text()  # type: ignore[attr-defined]
    assert not one(results, "drift").figure.axes[0].collections  # no band


def test_what_is_missing_is_left_out_and_said(tmp_path):
    gone = {"p1", "p2"}
    results = methods(tmp_path, ("infinity_rope", "full"), leave_out=lambda label, p, s: label == "full" and p in gone)
    plot = one(results, "duration")
    assert plot.data.groupby("method")["prompts"].first().to_dict() == {"infinity_rope": 10, "full": 8}
    assert "2 videos without scores (full 2)" in plot.figure._supxlabel.get_text()  # type: ignore[attr-defined]


def test_files_are_the_same_bytes_every_time(tmp_path):
    results = methods(tmp_path, ("infinity_rope", "causvid"), metrics=("imaging",))
    for folder in ("once", "twice"):
        save(figures(results, ["duration", "drift"]), tmp_path / folder, ("svg", "png", "pdf"))
    files = sorted(path.name for path in (tmp_path / "once").iterdir())
    assert {"duration.svg", "duration.png", "duration.pdf", "duration.csv", "drift.csv", "plots.md"} <= set(files)
    for name in files:
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes(), name
    drawn = pd.read_csv(tmp_path / "once" / "duration.csv")
    pd.testing.assert_frame_equal(drawn, one(results, "duration").data, check_dtype=False)


def test_a_metric_that_ranks_nothing_is_not_set_against_cost(tmp_path):
    results = methods(tmp_path, ("infinity_rope", "causvid"), metrics=("flow_motion", "imaging"))
    assert set(draw(results, ["pareto"], ["flow_motion", "imaging"]).plots[0].data["metric"]) == {"imaging"}
    assert "ranks nothing" in draw(results, ["pareto"], ["flow_motion"]).left_out["pareto"]


def test_an_unknown_plot_names_the_nearest_and_nothing_scored_says_what_to_run(tmp_path):
    results = methods(tmp_path, ("infinity_rope",), leave_out=lambda *_: True)
    with pytest.raises(UserError, match=r"did you mean 'duration'.*choices: ablation"):
        figures(results, ["durations"])
    with pytest.raises(UserError, match="irope run table1_with_a_long_name tier=quick"):
        figures(results)
    assert KINDS == ("duration", "drift", "ablation", "pareto", "switches")


def test_an_experiment_without_two_durations_or_switches_says_why(tmp_path):
    results = methods(tmp_path, ("infinity_rope",), seconds=(5.0,))
    drawn = draw(replace(results, tier=""))
    assert "two durations" in drawn.left_out["duration"]
    assert "no switch" in drawn.left_out["switches"]
    assert read_scores(results.cells[0].videos[0].scores) is not None
