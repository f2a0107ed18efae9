"""Overall consistency with a network of full size, against the stock package in its own process."""

from __future__ import annotations

import pytest

from eval.vbench import viclip
from eval.vbench.stock import stock_scores
from tests.vbench.conftest import moving, write_mp4
from tests.vbench.kit import measured

PROMPT = "a red disc crosses a wall"


@pytest.mark.slow
def test_the_network_in_full_size(weights, tmp_path):
    """428 M parameters: two minutes of a core and 4 GB."""
    weights("overall_consistency")
    clip = moving(21, 72, 96)
    path = write_mp4(tmp_path / "clip.mp4", clip)
    (stock,) = stock_scores([path], ["overall_consistency"], {path: PROMPT})["overall_consistency"].videos.values()
    try:
        assert measured("overall_consistency", clip, prompts=[PROMPT]).value == pytest.approx(stock, abs=1e-6)
    finally:
        viclip._load.cache_clear()
