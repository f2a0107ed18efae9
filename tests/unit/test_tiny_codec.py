"""The codec of the embedded model: strides, streaming, quality, and that it can be made again to the bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from irope.errors import WeightsError
from irope.models.tiny import train_codec as making
from irope.models.tiny.codec import TinyCodec, pixel_frames, to_cells
from irope.models.tiny.data import covered_cells, fit_codec, to_video
from irope.models.tiny.model import load_tiny
from irope.models.tiny.train_codec import CodecConfig, DecoderConfig, codec_psnr, prepare_codec, train_codec
from irope.world import render, sample_scene, sample_staging

BRIEF = CodecConfig(24, 0, 12, DecoderConfig(width=32, steps=40, clips=4, warmup=10))
MICRO = CodecConfig(8, 0, 2, DecoderConfig(width=8, steps=3, clips=1, frames=2, warmup=1))


@pytest.fixture(scope="module")
def codec() -> TinyCodec:
    return train_codec(BRIEF)


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


def test_decoding_commutes_with_moves_on_the_torus(codec: TinyCodec) -> None:
    latents = codec.encode(to_video(_clip(3)))
    moved = codec.decode(latents.roll((1, 3), dims=(3, 4))).int()
    difference = (moved - codec.decode(latents).roll((8, 24), dims=(2, 3)).int()).abs()
    assert difference.max() <= 1  # the order of sums may differ at a tie of rounding
    assert (difference > 0).float().mean() < 1e-3


def test_quality_on_clips_it_was_not_fitted_to(codec: TinyCodec) -> None:
    linear, errors = fit_codec(24, seed=0, clips=12), []
    for seed in range(100, 108):
        clip = _clip(seed)
        decoded = linear.decode(linear.encode(to_video(clip)))[0].numpy()
        errors.append(np.mean((decoded.astype(float) - clip) ** 2))
    assert 10 * np.log10(255**2 / np.mean(errors)) > 26.0
    assert codec_psnr(codec, clips=8)[0] > codec_psnr(linear, clips=8)[0] + 0.3


def test_the_shipped_codec_reaches_29_decibels() -> None:
    shipped = load_tiny().codec
    for spread in (1.0, 0.35):
        assert codec_psnr(shipped, clips=16, spread=spread)[0] >= 29.0


def test_the_decoder_has_no_part_in_the_latents(codec: TinyCodec) -> None:
    linear, clip = fit_codec(24, seed=0, clips=12), to_video(_clip(4))
    assert torch.equal(codec.encode(clip), linear.encode(clip))
    assert not torch.equal(codec.decode(codec.encode(clip)), linear.decode(codec.encode(clip)))


def test_fitting_again_gives_the_same_codec_and_orthonormal_components(codec: TinyCodec) -> None:
    again = fit_codec(24, seed=0, clips=12)
    for name in ("mean", "basis", "scale"):
        torch.testing.assert_close(codec.state_dict()[name], again.state_dict()[name], rtol=0, atol=0)
    torch.testing.assert_close(codec.basis @ codec.basis.T, torch.eye(24), rtol=0, atol=1e-5)


def test_seed_and_steps_decide_the_decoder() -> None:
    one, same = train_codec(MICRO), train_codec(MICRO)
    assert all(torch.equal(tensor, same.state_dict()[name]) for name, tensor in one.state_dict().items())
    for other in (replace(MICRO, seed=1), replace(MICRO, decoder=replace(MICRO.decoder, steps=4))):
        assert not torch.equal(one.correction.out.weight, train_codec(other).correction.out.weight)


def test_a_codec_comes_back_from_its_tensors(codec: TinyCodec) -> None:
    tensors = codec.tensors()
    assert {tensors[name].dtype for name in ("mean", "basis", "scale")} == {torch.float32}
    again = TinyCodec.from_tensors(tensors, "here")
    latents = codec.encode(to_video(_clip(5)))
    assert torch.equal(again.decode(latents), codec.decode(latents))
    assert {weight.dtype for weight in again.correction.parameters()} == {torch.float32}
    with pytest.raises(WeightsError, match=r"here: holds no codec"):
        TinyCodec.from_tensors({"mean": tensors["mean"]}, "here")
    with pytest.raises(WeightsError, match=r"here: key 'correction.out.bias' is missing"):
        TinyCodec.from_tensors({k: w for k, w in tensors.items() if k != "correction.out.bias"}, "here")


def test_a_codec_file_is_used_again_and_never_for_another_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "codec.safetensors"
    asked = iter([False, True])
    with pytest.raises(KeyboardInterrupt, match="step 2 of the codec"):
        prepare_codec(path, MICRO, stop=lambda: next(asked))
    assert not list(tmp_path.iterdir())
    made = prepare_codec(path, MICRO)
    monkeypatch.setattr(making, "train_codec", lambda *_: pytest.fail("trained again"))
    found = prepare_codec(path, MICRO)
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in made.state_dict().items())
    with pytest.raises(ValueError, match="other settings: decoder"):
        prepare_codec(path, replace(MICRO, decoder=replace(MICRO.decoder, noise=0.3)))
    save_file({"x": torch.zeros(1)}, str(path))
    with pytest.raises(ValueError, match="holds no codec"):
        prepare_codec(path, MICRO)


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
