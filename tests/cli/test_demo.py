"""The demo end to end, with fewer and shorter videos."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import irope.cli.demo as demo
from irope.cli.main import main

SHORT = 'prompt="a red circle moving left[1.5s] | a red circle moving up[1.5s] | a red circle circling[1.5s#]"'


def test_the_demo_leaves_videos_sheets_a_table_and_a_page(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = (
        demo.Part("4.5 s, switch and cut", ("infinity_rope", "kv_recache", "rolling_w6", "causvid"), (SHORT,), 1),
        demo.Part("3 s", ("full",), ("prompts=basic", "duration=3"), 2),
    )
    monkeypatch.setattr(demo, "PARTS", parts)
    monkeypatch.chdir(tmp_path)
    assert main(["demo", f"video.model.weights={weights}", "--workers", "1"]) == 0
    out = tmp_path / "results" / "demo"
    rows = pd.read_csv(out / "table.csv")
    assert rows.groupby("method").size().to_dict() == dict.fromkeys(parts[0].methods, 1) | {"full": 2}
    assert rows["visible"].between(0, 1).all()
    table = (out / "table.md").read_text()
    assert "not VBench" in table
    assert re.search(r"\| full \| 2 \|", table)
    sheets = list((out / "sheets").glob("*.png"))
    assert len(sheets) == 3
    assert all(Image.open(sheet).width > 500 for sheet in sheets)
    page = (out / "index.html").read_text()
    sources = re.findall(r'src="([^"]+)"', page)
    assert len(sources) == 6 + 3
    assert all((out / source).is_file() for source in sources)
    told = capsys.readouterr().out
    assert "[ 6/6]" in told
    assert "index.html" in told
    # Again: what is there is shown. A process loads as before, so a thread will do.
    monkeypatch.setattr(demo, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(workers))
    assert main(["demo", f"video.model.weights={weights}", "--workers", "1"]) == 0


def test_a_wrong_override_stops_the_demo_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "sed=1"]) == 2
    assert "did you mean 'seed'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
