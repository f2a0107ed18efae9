"""Features by name, and text alignment, against openai-clip itself; the weights are random."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eval.features import feature_rows, text_rows
from eval.registry import make_scorer
from eval.scorer import Chunk, Measurement, Pairs, Part, Runtime, Span, Take, VideoFacts
from eval.vbench import packages
from eval.vbench.networks import read_state
from tests.vbench.conftest import moving

FRAMES = moving(4, 72, 96)


def part() -> Part:
    video = VideoFacts("video", 4, 2, 72, 96, (Span(0, 2, "a cat"), Span(2, 4, "a red ball " * 40)))
    return Part(Chunk(0, FRAMES), Take(video, 0, 4), Pairs())


@pytest.mark.slow
def test_features_by_name(weights):
    weights("subject_consistency", "background_consistency")
    widths = {kind: feature_rows(part(), kind, Runtime()).shape for kind in ("lite0", "dino", "clip")}
    assert widths == {"lite0": (4, 1280), "dino": (4, 768), "clip": (4, 512)}


@pytest.fixture
def whole_vocabulary(weights, tmp_path, monkeypatch):
    """The random weights with a text side for every token and length: those that all tests share are smaller."""
    weights("background_consistency")
    state = read_state("ViT-B-32.pt")
    generator, width = torch.Generator().manual_seed(0), state["token_embedding.weight"].shape[1]
    for name, rows in {"token_embedding.weight": 49408, "positional_embedding": 77}.items():
        state[name] = torch.randn(rows, width, generator=generator).half()
    place = tmp_path / "clip_model" / "ViT-B-32.pt"
    place.parent.mkdir()
    torch.save(state, place)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    return state


@pytest.mark.slow
def test_the_similarity_of_frames_and_texts_is_that_of_openai_clip(whole_vocabulary):
    clip = packages.load("clip")
    model = packages.load("clip.model").build_model(dict(whole_vocabulary)).float()
    prompts = [span.prompt for span in part().take.spans]
    with torch.inference_mode():
        texts = model.encode_text(clip.tokenize(prompts, truncate=True))
        pictures = packages.load("vbench.utils").clip_transform(224)(
            torch.from_numpy(FRAMES).permute(0, 3, 1, 2).float()
        )
        similar = torch.cosine_similarity(model.encode_image(pictures)[:, None], texts[None], dim=2).numpy()

    rows, cut = text_rows(prompts, Runtime())
    np.testing.assert_allclose(rows, texts.numpy(), atol=1e-5)
    assert cut == (False, True)

    scorer = make_scorer("segment_alignment")
    accumulator = scorer.open(part().take, Runtime())
    accumulator.push(part())
    found = accumulator.close()
    assert isinstance(found, Measurement)
    np.testing.assert_allclose(found.curve, [similar[0, 0], similar[1, 0], similar[2, 1], similar[3, 1]], atol=1e-6)
    assert found.value == pytest.approx(found.curve.mean())
    assert "75 tokens" in found.notes[0]
