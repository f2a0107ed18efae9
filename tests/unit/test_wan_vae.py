"""The Wan VAE: both published layouts, streams against diffusers' own decode, tiles, and files that are no such VAE.

On small random models of the published shape; diffusers decodes the same latents as the reference.
"""

import json
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from irope.errors import WeightsError
from irope.models.wan import vae as vae_module
from irope.models.wan.vae import WanCodec, load_vae
from irope.models.wan.vae_names import from_original
from tests.diffusers_kit import import_diffusers

CPU = torch.device("cpu")
LEVELS = (1, 2, 4, 4)
WIDTH = 4


@pytest.fixture(scope="module")
def small() -> Any:
    """A random VAE with the published number of layers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return import_diffusers().AutoencoderKLWan(base_dim=WIDTH).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wan") / "vae"
    small.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def codec(folder: Path) -> WanCodec:
    return load_vae(folder, CPU, torch.float32)


@pytest.fixture(scope="module")
def rough(folder: Path) -> WanCodec:
    return load_vae(folder, CPU, torch.bfloat16)


def latents(frames: int, videos: int = 1, height: int = 3, width: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(videos, frames, 16, height, width, generator=torch.Generator().manual_seed(seed))


def original_keys() -> list[str]:
    """The keys of Wan2.1_VAE.pth, written down from its layout: flat lists of residual blocks and resamplings."""
    both = ("weight", "bias")

    def residual(at: str, changes: bool) -> list[str]:
        keys = [f"{at}.residual.{n}.gamma" for n in (0, 3)] + [f"{at}.residual.{n}.{k}" for n in (2, 6) for k in both]
        return keys + [f"{at}.shortcut.{k}" for k in both if changes]

    def half(
        name: str, layers: str, widths: list[int], blocks: int, timed: tuple[bool, ...], halved: bool
    ) -> list[str]:
        keys, number = [f"{name}.conv1.{k}" for k in both], 0
        for level, (before, after) in enumerate(pairwise(widths)):
            width = before // 2 if halved and level else before
            for _ in range(blocks):
                keys += residual(f"{name}.{layers}.{number}", width != after)
                width, number = after, number + 1
            if level < len(LEVELS) - 1:
                keys += [f"{name}.{layers}.{number}.resample.1.{k}" for k in both]
                keys += [f"{name}.{layers}.{number}.time_conv.{k}" for k in both if timed[level]]
                number += 1
        keys += residual(f"{name}.middle.0", False) + residual(f"{name}.middle.2", False)
        keys += [f"{name}.middle.1.norm.gamma", f"{name}.head.0.gamma"]
        keys += [f"{name}.{layer}.{k}" for layer in ("middle.1.to_qkv", "middle.1.proj", "head.2") for k in both]
        return keys

    up = list(reversed(LEVELS))
    return [
        *half("encoder", "downsamples", [1, *LEVELS], 2, (False, True, True), halved=False),
        *half("decoder", "upsamples", [up[0], *up], 3, (True, True, False), halved=True),
        *[f"{name}.{k}" for name in ("conv1", "conv2") for k in both],
    ]


def uint8_frames(video_BCMHW: Tensor) -> Tensor:
    """Clamped, -1..1 to 0..255, to the nearest, as frames [B, M, H, W, 3]; by NumPy."""
    pixels = np.clip(video_BCMHW.float().numpy(), np.float32(-1), np.float32(1))
    return torch.from_numpy(np.rint((pixels + np.float32(1)) * np.float32(127.5)).astype(np.uint8)).permute(
        0, 2, 3, 4, 1
    )


def decoded(small: Any, z_BFCHW: Tensor) -> Tensor:
    """diffusers' full decode of normalised latents."""
    mean, std = (torch.tensor(c).view(1, -1, 1, 1, 1) for c in (small.config.latents_mean, small.config.latents_std))
    return uint8_frames(small.decode(z_BFCHW.transpose(1, 2) / (1 / std) + mean).sample)


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def likeness(a: Tensor, b: Tensor) -> float:
    """Correlation of the pixels of two videos."""
    return float(np.corrcoef(a.flatten().float(), b.flatten().float())[0, 1])


# --- files -----------------------------------------------------------------------------------------------------------


def test_original_keys_are_renamed_as_diffusers_does(small: Any) -> None:
    convert = import_diffusers("diffusers.loaders.single_file_utils").convert_wan_vae_to_diffusers
    keys = original_keys()
    assert {old: new for new, old in convert({key: key for key in keys}).items()} == {k: from_original(k) for k in keys}
    assert {from_original(key) for key in keys} == set(small.state_dict())
    assert all(from_original(name) == name for name in small.state_dict())


@pytest.mark.parametrize("layout", ["folder", "repository", "file", "original", "original safetensors"])
def test_every_layout_gives_the_same_weights(small: Any, folder: Path, tmp_path: Path, layout: str) -> None:
    tensors = {key: small.state_dict()[from_original(key)] for key in original_keys()}
    path = {
        "folder": folder,
        "repository": folder.parent,
        "file": folder / "diffusion_pytorch_model.safetensors",
        "original": tmp_path / "Wan2.1_VAE.pth",
        "original safetensors": tmp_path / "vae.safetensors",
    }[layout]
    torch.save(tensors, tmp_path / "Wan2.1_VAE.pth")
    save_file({k: t.contiguous() for k, t in tensors.items()}, tmp_path / "vae.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WanModel", "dim": 1536}))  # lies there as well
    found = load_vae(path, CPU, torch.float32)
    for name, tensor in small.state_dict().items():
        same(found.vae.state_dict()[name], tensor)
    assert not any(parameter.requires_grad for parameter in found.vae.parameters())


def test_files_that_are_no_such_vae(small: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, *words: str) -> None:
        with pytest.raises(WeightsError) as caught:
            load_vae(path, CPU, torch.float32)
        message = str(caught.value)
        assert "\n" not in message
        assert str(path) in message
        assert all(word in message for word in words), message

    good = (folder / "diffusion_pytorch_model.safetensors").read_bytes()
    for size in (5, 1000, len(good) - 1):
        (tmp_path / "cut.safetensors").write_bytes(good[:size])
        refused(tmp_path / "cut.safetensors", "download it again")
    torch.save(dict(small.state_dict()), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-100])
    refused(tmp_path / "cut.pth", "truncated", "download it again")
    torch.save({"weights": [1, 2]}, tmp_path / "other.pth")
    refused(tmp_path / "other.pth", "no tensors by name")
    for key in ("conv2.weight", "post_quant_conv.weight"):
        save_file({key: torch.zeros(48, 48, 1, 1, 1)}, tmp_path / "wan22.safetensors")
        refused(tmp_path / "wan22.safetensors", "48 latent channels", "Wan2.2-TI2V-5B", "irope weights")
    save_file({"shared.weight": torch.zeros(4, 4)}, tmp_path / "text.safetensors")
    refused(tmp_path / "text.safetensors", "not the VAE of Wan2.1", "missing", "irope weights")
    partial = dict(small.state_dict())
    del partial["decoder.conv_out.bias"]
    save_file(partial, tmp_path / "partial.safetensors")
    refused(tmp_path / "partial.safetensors", "'decoder.conv_out.bias' is missing")
    save_file({**small.state_dict(), "more": torch.zeros(1)}, tmp_path / "more.safetensors")
    refused(tmp_path / "more.safetensors", "unexpected key 'more'")
    refused(tmp_path / "nowhere", "irope weights")
    monkeypatch.setattr(vae_module, "CONVOLUTIONS", 34)
    with pytest.raises(WeightsError, match=r"diffusers \d.*33 convolutions, expected are 34"):
        load_vae(folder, CPU, torch.float32)


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [[1, 1, 1, 1, 1], [3, 2], [5], [2, 1, 2]])
def test_streaming_decode_equals_diffusers_full_decode_bit_for_bit(
    small: Any, codec: WanCodec, cuts: list[int]
) -> None:
    z = latents(5, videos=2)
    stream, other = codec.decoder(), codec.decoder()
    parts = []
    for part in z.split(cuts, dim=1):
        parts.append(stream(part))
        other(part.flip(0))  # a second stream beside the first changes nothing
    frames = torch.cat(parts, dim=1)
    assert frames.shape == (2, 17, 24, 32, 3)
    assert frames.dtype == torch.uint8
    assert len(frames.unique()) > 100  # not a grey picture that anything would equal
    same(frames, torch.cat([decoded(small, one) for one in z.split(1)]))


def test_a_video_does_not_depend_on_its_neighbours_in_the_batch(codec: WanCodec) -> None:
    z = latents(3, videos=2)
    both = codec.decoder()(z)
    same(both[1:], codec.decoder()(z[1:]))


@pytest.mark.parametrize("name", ["codec", "rough"])
@pytest.mark.parametrize("seen", [0, 1, 2, 3])
def test_a_stream_goes_on_from_its_state(seen: int, name: str, request: pytest.FixtureRequest) -> None:
    codec: WanCodec = request.getfixturevalue(name)
    z = latents(4, height=2, width=3).to(codec.vae.dtype)
    first, second = codec.decoder(), codec.decoder()
    head = [first(z[:, :seen])] if seen else []
    kept = load(save(first.state()))  # as a checkpoint of a killed run keeps it
    rest = first(z[:, seen:])  # going on changes nothing that was kept
    second.load_state(kept)
    same(second(z[:, seen:]), rest)
    same(torch.cat([*head, rest], dim=1), codec.decoder()(z))


@pytest.mark.parametrize("together", [2, 3])
def test_several_latents_a_call(codec: WanCodec, together: int) -> None:
    z = latents(8)
    several = WanCodec(codec.vae, latents_per_call=together).decoder()
    calls = [chunk.shape[1] for chunk in several._chunks(z)]
    assert calls == [1, *[together] * (7 // together), *[7 % together] * (7 % together > 0)]
    frames = torch.cat([several(z[:, :3]), several(z[:, 3:])], dim=1)
    assert (frames.int() - codec.decoder()(z).int()).abs().max() <= 1
    resumed = several._codec.decoder()
    resumed.load_state(several.state())
    assert next(resumed._chunks(z)).shape[1] == together  # no longer the first by itself


def test_only_the_steady_calls_of_a_stream_are_compiled(codec: WanCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """One shape and stride each call, so one compilation: not the first latent, nor fewer latents than a call takes."""
    shapes = []

    def compiled(decoder: Any, dynamic: bool) -> Any:
        def run(z: Tensor, **features: Any) -> Tensor:
            kept = [(tuple(f.shape), f.stride()) for f in features["feat_cache"] if f is not None]
            shapes.append((tuple(z.shape), tuple(kept), features["first_chunk"], dynamic))
            return decoder(z, **features)

        return run

    z = latents(12, height=1, width=2)
    plain = WanCodec(codec.vae, latents_per_call=3).decoder()
    monkeypatch.setattr(torch, "compile", compiled)
    fast = WanCodec(codec.vae, latents_per_call=3, compiled=True).decoder()
    for block in z.split(3, dim=1):
        same(fast(block), plain(block))
    assert len(shapes) == 3
    assert len(set(shapes)) == 1
    assert shapes[0][0] == (1, 16, 3, 1, 2)


def test_weights_in_the_order_of_a_gpu_give_the_same_picture(folder: Path, codec: WanCodec) -> None:
    other = load_vae(folder, CPU, torch.float32)
    vae_module._channels_last(other.vae.decoder)
    convolution = other.vae.decoder.conv_in.weight
    assert convolution.is_contiguous(memory_format=torch.channels_last_3d)
    z = latents(3, height=2, width=2)
    assert (other.decoder()(z).int() - codec.decoder()(z).int()).abs().max() <= 1


def test_activations_stay_in_the_order_of_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN answers channels-last to such weights; what comes between two convolutions must not turn that around.

    Else each would turn it back, unseen. The latents themselves come channels-first.
    """
    codec = load_vae(folder, CPU, torch.float32, latents_per_call=3)
    vae_module._channels_last(codec.vae.decoder)
    convolve = torch.nn.functional.conv3d
    taken: list[bool] = []

    def as_cudnn(x: Tensor, *rest: Any) -> Tensor:
        taken.append(x.is_contiguous(memory_format=torch.channels_last_3d))
        return convolve(x, *rest).contiguous(memory_format=torch.channels_last_3d)

    monkeypatch.setattr(torch.nn.functional, "conv3d", as_cudnn)
    decode = codec.decoder()
    for _ in range(4):
        taken.clear()
        decode(latents(3, height=4, width=6))
    assert taken == [False] + [True] * (len(taken) - 1)
    assert len(taken) > 30


class Census(TorchDispatchMode):
    """The most bytes that tensors made under it held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.live:
                    self.live[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.live.values()))
        return out


def test_memory_does_not_grow_with_the_stream(codec: WanCodec) -> None:
    z = latents(40, height=1, width=1)

    def peak(count: int) -> int:
        stream = codec.decoder()
        with Census() as census:
            for latent in z[:, :count].split(1, dim=1):
                stream(latent)  # and the frames are gone
        return census.peak

    assert peak(40) == peak(4) > 0


def test_inference_mode_may_begin_and_end_within_a_stream(codec: WanCodec) -> None:
    z = latents(4)
    stream, parts = codec.decoder(), []
    for number in range(4):
        with torch.inference_mode(number % 2 == 0):
            parts.append(stream(z[:, number : number + 1]))
    same(torch.cat(parts, dim=1), codec.decoder()(z))


def test_shapes_that_do_not_fit(codec: WanCodec) -> None:
    with pytest.raises(ValueError, match=r"\[B, n >= 1, 16, h, w\]"):
        codec.decoder()(torch.zeros(1, 1, 48, 3, 4))
    with pytest.raises(ValueError, match="multiples of 8"):
        codec.encode(torch.zeros(1, 1, 3, 20, 32))
    with pytest.raises(ValueError, match="at least 1"):
        WanCodec(codec.vae, latents_per_call=0)


# --- normalisation ---------------------------------------------------------------------------------------------------


def test_latents_are_the_normalised_posterior_mean(small: Any, codec: WanCodec) -> None:
    video = torch.rand(2, 9, 3, 24, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    z = codec.encode(video)
    assert z.shape == (2, 3, 16, 3, 4)
    mean, std = np.array(small.config.latents_mean), np.array(small.config.latents_std)
    means = [small.encode(one.transpose(1, 2)).latent_dist.mean.double().numpy() for one in video.split(1)]
    expected = (np.concatenate(means) - mean[:, None, None, None]) / std[:, None, None, None]
    np.testing.assert_allclose(z.transpose(1, 2).double().numpy(), expected, atol=1e-5)


def test_the_published_constants() -> None:
    """policies.md 1.7; what a file without config.json is normalised with."""
    config = import_diffusers().AutoencoderKLWan(base_dim=4).config
    assert config.latents_mean[:4] == [-0.7571, -0.7089, -0.9113, 0.1075]
    assert config.latents_std[-2:] == [2.8251, 1.9160]


def test_constants_are_rounded_to_bfloat16_as_published(small: Any, rough: WanCodec) -> None:
    assert rough.vae.dtype == torch.bfloat16
    z = latents(2).to(torch.bfloat16)
    scale = torch.tensor(small.config.latents_std).to(torch.bfloat16).reciprocal().view(1, 1, -1, 1, 1)
    shift = torch.tensor(small.config.latents_mean).to(torch.bfloat16).view(1, 1, -1, 1, 1)
    same(rough.denormalised(z), (z / scale + shift).transpose(1, 2))
    assert rough.encode(torch.zeros(1, 1, 3, 16, 16)).dtype == torch.bfloat16


# --- tiles -----------------------------------------------------------------------------------------------------------


def test_tiled_streaming_equals_diffusers_tiled_decode(small: Any, folder: Path, codec: WanCodec) -> None:
    z = latents(3, height=6, width=9)
    tiled = WanCodec(load_vae(folder, CPU, torch.float32).vae, tile=48, tile_stride=32)
    small.enable_tiling(48, 48, 32, 32)
    try:
        expected = decoded(small, z)
    finally:
        small.use_tiling = False
    stream = tiled.decoder()
    frames = torch.cat([stream(z[:, :2]), stream(z[:, 2:])], dim=1)
    same(frames, expected)
    second = tiled.decoder()
    second(z[:, :2])
    third = tiled.decoder()
    third.load_state(load(save(second.state())))
    same(third(z[:, 2:]), frames[:, 5:])
    # Near the picture without tiles, as far as noise for weights lets it be: a trained decoder looks less far around.
    untiled, others = codec.decoder()(z), codec.decoder()(latents(3, height=6, width=9, seed=1))
    assert likeness(frames, untiled) > 0.7 > 0.3 > likeness(frames, others)


def test_the_decoder_sees_one_tile_at_a_time_and_parks_its_features(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = WanCodec(load_vae(folder, CPU, torch.float32).vae, tile=48, tile_stride=32)
    windows, moves, move = [], [], vae_module._on
    decode_chunk = codec.decode_chunk

    def watched(z: Tensor, features: Any, first: bool) -> Tensor:
        windows.append(tuple(z.shape[-2:]))
        return decode_chunk(z, features, first)

    def noted(device: torch.device, features: Any) -> Any:
        moves.append(device)
        return move(device, features)

    monkeypatch.setattr(codec, "decode_chunk", watched)
    monkeypatch.setattr(vae_module, "_on", noted)
    codec.decoder()(latents(2, height=6, width=9))
    assert windows == [(6, 6), (6, 5), (6, 1), (2, 6), (2, 5), (2, 1)] * 2
    assert moves == [CPU] * 2 * len(windows)  # to where the VAE is, and off it again


def test_tiling_is_off_unless_asked_for_and_spares_small_frames(folder: Path, codec: WanCodec) -> None:
    assert codec.tile is None
    tiled = load_vae(folder, CPU, torch.float32, tiling=True)
    assert (tiled.tile, tiled.tile_stride) == (256, 192)
    same(tiled.decoder()(latents(2)), codec.decoder()(latents(2)))
    assert [len(row) for row in tiled.tiles(60, 104)] == [5, 5, 5]
