"""The codec of the embedded model: strides, streaming, quality, and that it can be fitted again to the bit."""

import numpy as np
import pytest
import torch

from irope.models.tiny.codec import TinyCodec, pixel_frames, to_cells
from irope.models.tiny.data import covered_cells, fit_codec, to_video
from irope.world import render, sample_scene, sample_staging


@pytest.fixture(scope="module")
def codec() -> TinyCodec:
    return fit_codec(24, seed=0, clips=12)


def _clip(seed: int, frames: int = 33) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rng = np.random.default_rng(seed)
    return render(sample_scene(rng), sample_staging(rng), frames)[0]


def test_the_strides_are_those_of_the_wan_vae(codec: TinyCodec) -> None:
    latents = codec.encode(to_video(_clip(0)))
    assert latents.shape == (1, 9, 24, 8, 8)
    assert codec.decode(latents).shape == (1, 33, 64, 64, 3)
    assert [pixel_frames(n) for n in (1, 2, 21)] == [1, 5, 81]


def test_a_cell_holds_its_own_four_frames_and_nothing_else() -> None:
    video = torch.zeros(1, 9, 3, 16, 24)
    video[0, 5:9, :, 8:16, 16:24] = 1.0  # latent frame 2, cell (1, 2)
    lit = to_cells(video).mean(-1)[0]
    assert lit[2, 1, 2] == 1.0
    assert lit.sum() == 1.0
    video = torch.zeros(1, 5, 3, 8, 8)
    video[0, 0] = 1.0
    assert to_cells(video).mean(-1).flatten().tolist() == [1.0, 0.0]


@pytest.mark.parametrize("cuts", [[1] * 9, [3, 3, 3], [4, 1, 4]])
def test_streaming_decode_equals_full_decode_bit_for_bit(codec: TinyCodec, cuts: list[int]) -> None:
    latents = torch.cat([codec.encode(to_video(_clip(seed))) for seed in (1, 2)])
    stream, other = codec.decoder(), codec.decoder()
    parts = []
    for part in latents.split(cuts, dim=1):
        parts.append(stream(part))
        other(part.flip(0))  # a second stream beside the first changes nothing
    torch.testing.assert_close(torch.cat(parts, dim=1), codec.decode(latents), rtol=0, atol=0)


def test_a_stream_goes_on_from_its_state(codec: TinyCodec) -> None:
    latents = codec.encode(to_video(_clip(1)))
    first, second = codec.decoder(), codec.decoder()
    head = first(latents[:, :4])
    second.load_state(first.state())
    torch.testing.assert_close(torch.cat([head, second(latents[:, 4:])], dim=1), codec.decode(latents), rtol=0, atol=0)


def test_quality_on_clips_it_was_not_fitted_to(codec: TinyCodec) -> None:
    errors = []
    for seed in range(100, 108):
        clip = _clip(seed)
        decoded = codec.decode(codec.encode(to_video(clip)))[0].numpy()
        errors.append(np.mean((decoded.astype(float) - clip) ** 2))
    assert 10 * np.log10(255**2 / np.mean(errors)) > 26.0


def test_fitting_again_gives_the_same_codec_and_orthonormal_components(codec: TinyCodec) -> None:
    again = fit_codec(24, seed=0, clips=12)
    for name, tensor in codec.state_dict().items():
        torch.testing.assert_close(tensor, again.state_dict()[name], rtol=0, atol=0)
    torch.testing.assert_close(codec.basis @ codec.basis.T, torch.eye(24), rtol=0, atol=1e-5)


def test_the_subject_weight_sits_where_the_subject_is() -> None:
    coverage = np.zeros((9, 64, 64), np.uint8)
    coverage[1:5, 8:16, 16:24] = 255
    cells = covered_cells(coverage)
    assert cells.shape == (3, 8, 8)
    assert cells[1, 1, 2] == 1.0
    assert cells.sum() == 1.0


def test_wrong_shapes_are_refused(codec: TinyCodec) -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        codec.encode(torch.zeros(1, 4, 3, 64, 64))
    with pytest.raises(ValueError, match="takes latents"):
        codec.decode(torch.zeros(1, 3, 16, 8, 8))
    with pytest.raises(ValueError, match="channels"):
        TinyCodec(0)
