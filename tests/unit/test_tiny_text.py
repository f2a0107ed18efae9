"""Text features of the embedded model."""

import pytest
import torch

from irope.models.tiny.text import TinyTextEncoder
from irope.world.scene import PromptError


@pytest.fixture
def encoder() -> TinyTextEncoder:
    encoder = TinyTextEncoder(12, 8)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(weight.numel()))
    return encoder


def test_rows_are_word_plus_position_and_zero_beyond_the_words(encoder: TinyTextEncoder) -> None:
    features = encoder(["a red circle bouncing", "a red circle bouncing over a navy plain background"])
    assert features.shape == (2, 12, 8)
    red = encoder.words.index("red")
    torch.testing.assert_close(features[0, 1], encoder.word[red] + encoder.position[1])
    assert not features[0, 4:].any()
    assert features[1, :9].any(dim=1).all()
    assert not features[1, 9:].any()


def test_wording_that_means_the_same_gives_the_same_features(encoder: TinyTextEncoder) -> None:
    short, long = encoder(["Red circle bouncing over navy.", "a red circle bouncing over a navy plain background"])
    assert torch.equal(short, long)


def test_a_word_outside_the_world_is_refused_with_the_nearest_one(encoder: TinyTextEncoder) -> None:
    with pytest.raises(PromptError, match='did you mean "circle"'):
        encoder(["a red circel bouncing"])


def test_gradients_reach_words_and_positions(encoder: TinyTextEncoder) -> None:
    encoder(["a red circle bouncing"]).square().sum().backward()
    assert encoder.word.grad is not None
    assert encoder.word.grad.any(dim=1).sum() == 4
