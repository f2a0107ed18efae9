"""Loss curves: what is drawn is what the file says; a file that is none is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval.plots.losses import losses
from eval.plots.plot import NoPlotError
from irope.cli.plot import run
from irope.errors import UserError

HEADER = "step,stage,loss_first,loss_later,frames_per_second,minutes\n"


def make_run(folder: Path, shift: float = 0.0) -> Path:
    folder.mkdir()
    rows = [(step, "short" if step < 60 else "full", 2 - step / 100 + shift, 1 - step / 200) for step in (25, 50, 75)]
    text = "".join(f"{step},{stage},{first},{later},100,{step / 10}\n" for step, stage, first, later in rows)
    (folder / "losses.csv").write_text(HEADER + text)
    return folder / "losses.csv"


def test_the_lines_are_the_numbers_of_the_files(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / "a"), make_run(tmp_path / "b", 0.5)]
    plot = losses(paths)
    for axis, column in zip(plot.figure.axes, ("loss_first", "loss_later"), strict=True):
        lines = [line for line in axis.lines if len(line.get_xdata()) == 3]
        for line, path in zip(lines, paths, strict=True):
            wanted = pd.read_csv(path)
            np.testing.assert_array_equal(line.get_xdata(), wanted["step"])
            np.testing.assert_array_equal(line.get_ydata(), wanted[column])
        assert [text.get_text() for text in axis.texts if text.get_text() in ("short", "full")] == ["short", "full"]
        assert [line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 2] == [75]
    assert list(plot.data["run"]) == ["a"] * 3 + ["b"] * 3


def test_the_command_draws_the_files_it_is_given(tmp_path: Path) -> None:
    path = make_run(tmp_path / "train")
    assert run([str(path), "--out", str(tmp_path / "plots"), "--format", "png"]) == 0
    assert {file.name for file in (tmp_path / "plots").iterdir()} == {"losses.png", "losses.csv", "plots.md"}


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "train")
    with pytest.raises(NoPlotError, match="folders of one name"):
        losses([path, path])
    path.write_text(HEADER)
    with pytest.raises(NoPlotError, match="no loss yet"):
        losses([path])
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column step"):
        run([str(path)])
    with pytest.raises(UserError, match="cannot be read"):
        run([str(tmp_path / "none.csv")])
