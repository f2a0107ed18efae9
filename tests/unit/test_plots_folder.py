"""A scored folder as results, and `irope plot` on it."""

import pandas as pd
import pytest

from eval.folder_results import folder_results, settings_of
from eval.scores import write_scores
from irope.cli.plot import run
from irope.errors import UserError
from tests.results_kit import make_results


def test_a_folder_gives_the_scores_of_the_experiment_that_made_it(tmp_path):
    experiment = make_results(tmp_path, seconds=(5.0, 40.0), seeds=(0, 1))
    found = folder_results(tmp_path)
    assert (found.axes, found.protocol, found.model) == (("cut_delta",), "embedded", "tiny/stable")
    assert [cell.axes["cut_delta"] for cell in found.cells] == [6, 21, 45, 90]
    same = ["method", "base", "cut_delta", "prompt", "seed", "seconds", "metric"]
    ours, theirs = (r.frame.set_index(same)["value"].sort_index() for r in (found, experiment))
    pd.testing.assert_series_equal(ours, theirs)
    assert found.costs["kv_bytes"].sum() == experiment.costs["kv_bytes"].sum()
    assert folder_results(tmp_path / "scores").frame.equals(found.frame)


@pytest.mark.parametrize(
    ("label", "settings"),
    [
        ("infinity_rope", {}),
        ("infinity_rope@cut_delta=6", {"cut_delta": 6}),
        ("infinity_rope@cut_delta=6,cut_mode=offset", {"cut_delta": 6, "cut_mode": "offset"}),
        ("rolling@window=null@x=0.5", {"window": None, "x": 0.5}),
        ("a@b", {}),
    ],
)
def test_settings_are_read_from_a_label(label, settings):
    assert settings_of(label) == settings


def test_cells_with_other_axes_are_methods_of_their_own(tmp_path):
    make_results(tmp_path, {"infinity_rope@f0=6": {}, "causvid": {}})
    found = folder_results(tmp_path)
    assert found.axes == ()
    assert [(cell.label, cell.method) for cell in found.cells] == [
        ("causvid", "causvid"),
        ("infinity_rope@f0=6", "infinity_rope@f0=6"),
    ]


def test_two_protocols_have_to_be_chosen_from_and_two_models_are_refused(tmp_path):
    results = make_results(tmp_path, prompts=("a",))
    make_results(tmp_path, prompts=("a",), protocol="vbench")
    with pytest.raises(UserError, match=r"--protocol embedded \(of embedded, vbench\)"):
        folder_results(tmp_path)
    assert folder_results(tmp_path, "vbench").protocol == "vbench"
    with pytest.raises(UserError, match="did you mean 'vbench'"):
        folder_results(tmp_path, "vbensh")
    *_, (_, video, content) = results.score_files()
    write_scores(video.scores, content | {"video": content["video"] | {"model": "wan_1_3b/self_forcing"}})
    with pytest.raises(UserError, match=r"tiny/stable and wan_1_3b/self_forcing, which never share"):
        folder_results(tmp_path, "embedded")


def test_an_unscored_folder_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match="run: irope score"):
        folder_results(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        folder_results(tmp_path / "absent")


def test_the_verb_writes_pictures_data_and_a_page(tmp_path, capsys):
    make_results(tmp_path / "videos", metrics=("imaging", "world_prompt"))
    out = tmp_path / "plots"
    assert run([str(tmp_path / "videos"), "--only", "ablation,duration", "--out", str(out), "--format", "svg"]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["ablation-cut_delta.csv", "ablation-cut_delta.svg", "plots.md"]
    assert "no duration plot: a plot against duration needs two durations" in capsys.readouterr().out
    assert "ablation-cut_delta.svg" in (out / "plots.md").read_text()
    assert run([str(tmp_path / "videos"), "--only", "drift", "--metrics", "imaging", "--out", str(out)]) == 0
    assert set(pd.read_csv(out / "drift.csv")["metric"]) == {"imaging"}
    assert run([str(tmp_path / "videos"), "--only", "switches", "--out", str(out)]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{videos}", "--format", "jpg"], "choices: pdf, png, svg"),
        (["{videos}", "--only", "drft"], "did you mean 'drift'"),
        (["{videos}", "--metrics", "imagin"], "did you mean 'imaging'"),
        (["{videos}", "tier=quick"], "settings are of experiments"),
        (["{videos}/maps.npz"], "no attention maps"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, message):
    make_results(tmp_path, metrics=("imaging",), prompts=("a",))
    with pytest.raises(UserError, match=message):
        run([part.format(videos=tmp_path) for part in arguments])
