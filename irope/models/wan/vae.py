"""The Wan VAE: diffusers' ``AutoencoderKLWan`` with a decoding stream of our own.

A stream holds its own feature cache, so any number of them run side by side and a killed run continues where it was.
Every video of a batch is decoded by itself: its frames do not depend on its neighbours.

Shapes: B batch, F latent frames, C latent channels, h w latent size, M pixel frames, H W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from irope.errors import WeightsError
from irope.models.wan.checkpoint import load_into
from irope.models.wan.parts import NEEDS, Part, import_extra, offload, open_part
from irope.models.wan.vae_names import from_original

Features = list[Any]
"""What the causal convolutions of the decoder remember of earlier frames: a tensor [1, c, 1 or 2, y, x] each, None
where nothing is kept, and ``_FIRST`` where an upsampling has seen the first latent alone."""

_FIRST = "Rep"  # diffusers' own mark
CONVOLUTIONS = 33
_LATENT_CHANNELS = 16
_CPU = torch.device("cpu")
_TILE, _TILE_STRIDE = 256, 192  # pixels; what diffusers tiles with


class WanCodec:
    """A VAE with its normalisation; `decoder` begins a stream.

    Latents are (posterior mean - mean) / std with the published constants of ``config.json``. As in the published
    code of Self-Forcing (utils/wan_wrapper.py), mean and 1/std are rounded to the dtype of the VAE, bfloat16 by
    default, and applied in it; convolutions run in it as well.

    Attributes:
        latents_per_call: latent frames that one call of the decoder takes after the first of a stream.
        tile, tile_stride: pixels; a latent frame larger than a tile is decoded in overlapping tiles, whose features
            wait on the CPU. None: never.
        device: where calls run. That is where the weights are, unless the codec is offloaded from there.
        offloaded: weights are on ``device`` for one layer's call at a time, the features of a stream while latents
            are decoded; in between both wait on the CPU.

    Args:
        compiled: run ``torch.compile``'s version of the decoder once a stream is steady, that is for every call but its
            first two; they stay as they are, as each would cost a compilation of its own. Rounds otherwise.

    On a GPU the weights of the decoder's convolutions lie channels-last, the order that cuDNN's fastest kernels read,
    and activations follow them.

    The memory of a stream of 832x480 in bfloat16 beside the weights (0.25 GB), added up from the sizes of its tensors,
    without the work space of kernels: 4.0 GB at the peak, of which 1.9 GB are features that stay; 8.4 GB with three
    latents a call; 0.7 GB and 3.1 GB on the CPU in tiles of 256 by steps of 192. `WanDecoder.state` is as large as the
    features.
    """

    def __init__(
        self,
        vae: Any,
        latents_per_call: int = 1,
        tile: int | None = None,
        tile_stride: int = _TILE_STRIDE,
        compiled: bool = False,
        runs_on: torch.device | None = None,
    ) -> None:
        if latents_per_call < 1:
            raise ValueError(f"latents_per_call is at least 1, got {latents_per_call}")
        self.vae = vae.eval().requires_grad_(False)
        if vae.device.type == "cuda" and runs_on is None:
            _channels_last(vae.decoder)
        self._steady = torch.compile(vae.decoder, dynamic=False) if compiled else vae.decoder
        self.device: torch.device = runs_on or vae.device
        self.latents_per_call = latents_per_call
        self.offloaded = runs_on is not None
        self.tile, self.tile_stride = tile, tile_stride
        if tile is not None:
            vae.enable_tiling(tile, tile, tile_stride, tile_stride)
        self.stride: int = vae.config.scale_factor_spatial
        constants = torch.tensor([vae.config.latents_mean, vae.config.latents_std], dtype=torch.float32)
        mean, std = constants.to(self.device, vae.dtype)[:, :, None, None, None]
        self._mean, self._inverse_std = mean, 1.0 / std
        if runs_on is not None:
            offload(vae, runs_on)

    @torch.no_grad()
    def encode(self, video_BMCHW: Tensor) -> Tensor:
        """Pixels [B, 1 + 4(F-1), 3, H, W], float in -1..1, to latents [B, F, C, h, w] in the VAE's dtype and place."""
        _, frames, channels, height, width = video_BMCHW.shape
        if frames % 4 != 1 or channels != 3 or height % self.stride or width % self.stride:
            raise ValueError(
                f"the VAE encodes [B, 1 + 4k, 3, H, W] with H and W multiples of {self.stride}, "
                f"got {tuple(video_BMCHW.shape)}"
            )
        video = video_BMCHW.to(self.device, self.vae.dtype).transpose(1, 2)
        means = [self.vae.encode(one).latent_dist.mode() for one in video.split(1)]
        return ((torch.cat(means) - self._mean) * self._inverse_std).transpose(1, 2)

    def decoder(self) -> WanDecoder:
        """A fresh decoding stream."""
        return WanDecoder(self)

    def denormalised(self, latents_BFChw: Tensor) -> Tensor:
        """What the decoder takes, [B, C, F, h, w]."""
        latents = latents_BFChw.to(self.device, self.vae.dtype).transpose(1, 2)
        return latents / self._inverse_std + self._mean

    def decode_chunk(self, z_BCFhw: Tensor, features: Features, first: bool) -> Tensor:
        """The next latent frames of one stream to pixels [B, 3, M, H, W]; ``features`` is brought up to date.

        The only place that leans on how diffusers caches features, which is no public interface; verified for 0.42.1.
        """
        steady = z_BCFhw.shape[2] == self.latents_per_call and _full(features)
        decode = self._steady if steady else self.vae.decoder
        if steady:
            features[:] = [_usual_strides(one) if isinstance(one, Tensor) else one for one in features]
        pixels: Tensor = decode(self.vae.post_quant_conv(z_BCFhw), feat_cache=features, feat_idx=[0], first_chunk=first)
        return pixels

    def tiles(self, height: int, width: int) -> list[list[tuple[slice, slice]]]:
        """Rows of the latent windows, in cells, that are decoded by themselves; one window without tiling."""
        if self.tile is None or max(height, width) * self.stride <= self.tile:
            return [[(slice(None), slice(None))]]
        size, stride = self.tile // self.stride, self.tile_stride // self.stride
        return [
            [(slice(y, y + size), slice(x, x + size)) for x in range(0, width, stride)]
            for y in range(0, height, stride)
        ]

    def blended(self, rows: list[list[Tensor]], height: int, width: int) -> Tensor:
        """One picture of overlapping tiles [1, 3, M, y, x], as diffusers' ``tiled_decode`` makes it."""
        if len(rows) == len(rows[0]) == 1:
            return rows[0][0]
        stride, overlap = self.tile_stride, (self.tile or 0) - self.tile_stride
        for i, row in enumerate(rows):
            for j, tile in enumerate(row):
                if i > 0:
                    tile = self.vae.blend_v(rows[i - 1][j], tile, overlap)
                if j > 0:
                    tile = self.vae.blend_h(row[j - 1], tile, overlap)
                row[j] = tile
        whole = [torch.cat([tile[..., :stride, :stride] for tile in row], dim=-1) for row in rows]
        return torch.cat(whole, dim=-2)[..., :height, :width]


class WanDecoder:
    """Decodes latents as they come: the first one of the stream gives one frame, each later one four.

    With ``latents_per_call=1`` any cutting of the stream gives the same bits. With more, the cutting decides which
    latents share a call, and a kernel may round otherwise for another number of frames: on a CPU, with a small random
    VAE, by one step of 255 in float32 and by up to six in bfloat16.
    """

    def __init__(self, codec: WanCodec) -> None:
        self._codec = codec
        self._started = False
        self._features: dict[str, Features] = {}  # "video.tile" -> features

    @torch.no_grad()
    def __call__(self, latents_BFChw: Tensor) -> Tensor:
        """The next n latents [B, n >= 1, C, h, w] to uint8 frames [B, m, H, W, 3], where the VAE is.

        Values beyond -1..1 are clamped; -1..1 becomes 0..255, rounded to the nearest in float32, half to even.
        """
        codec = self._codec
        channels = len(codec.vae.config.latents_mean)
        if latents_BFChw.ndim != 5 or latents_BFChw.shape[2] != channels or not latents_BFChw.shape[1]:
            raise ValueError(
                f"the decoder takes latents [B, n >= 1, {channels}, h, w], got {tuple(latents_BFChw.shape)}"
            )
        frames = []
        for chunk in self._chunks(latents_BFChw):
            z = codec.denormalised(chunk)
            pixels = torch.cat([self._decode(number, one) for number, one in enumerate(z.split(1))])
            self._started = True
            frames.append(_to_uint8(pixels).permute(0, 2, 3, 4, 1))
        if codec.offloaded:
            self._features = {name: _on(_CPU, features) for name, features in self._features.items()}
        return torch.cat(frames, dim=1)

    def _chunks(self, latents_BFChw: Tensor) -> Iterator[Tensor]:
        if not self._started:  # by itself: it gives one frame, the others four
            yield latents_BFChw[:, :1]
            latents_BFChw = latents_BFChw[:, 1:]
        if latents_BFChw.shape[1]:
            yield from latents_BFChw.split(self._codec.latents_per_call, dim=1)

    def _decode(self, video: int, z_1CFhw: Tensor) -> Tensor:
        codec = self._codec
        height, width = z_1CFhw.shape[-2:]
        numbers = count()
        rows = [
            [self._decode_window(f"{video}.{next(numbers)}", z_1CFhw[..., y, x]) for y, x in row]
            for row in codec.tiles(height, width)
        ]
        return codec.blended(rows, height * codec.stride, width * codec.stride)

    def _decode_window(self, name: str, z_1CFhw: Tensor) -> Tensor:
        features = _on(z_1CFhw.device, self._features.get(name, [None] * CONVOLUTIONS))
        pixels = self._codec.decode_chunk(z_1CFhw, features, first=not self._started)
        self._features[name] = features if self._codec.tile is None else _on(_CPU, features)
        return pixels

    def state(self) -> dict[str, Tensor]:
        """What a stream needs to go on after a kill: its features, where diffusers' mark is an empty tensor."""
        tensors = {"started": torch.tensor(self._started)}
        for name, features in self._features.items():
            for number, feature in enumerate(features):
                if feature is not None:
                    kept = isinstance(feature, Tensor)
                    tensors[f"{name}.{number}"] = feature.contiguous() if kept else torch.empty(0)
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self._started = bool(tensors["started"])
        self._features = {}
        for key, tensor in tensors.items():
            if key != "started":
                name, _, number = key.rpartition(".")
                features = self._features.setdefault(name, [None] * CONVOLUTIONS)
                features[int(number)] = tensor if tensor.numel() else _FIRST


def load_vae(
    path: Path,
    device: torch.device,
    dtype: torch.dtype,
    tiling: bool = False,
    latents_per_call: int = 1,
    compiled: bool = False,
    offloaded: bool = False,
) -> WanCodec:
    """Load the published VAE: ``Wan2.1_VAE.pth``, or diffusers' ``vae`` folder or file.

    Tensors are read one at a time, cast to ``dtype`` and moved to ``device``.

    Args:
        tiling: decode and encode in tiles of 256 pixels that overlap by 64, as diffusers does. Needs less memory, more
            time, and gives other pixels.
        latents_per_call, compiled: see `WanCodec`.
        offloaded: let weights and features wait on the CPU.

    Raises:
        WeightsError: the file is missing, truncated or another VAE, or diffusers is missing or does not fit.
    """
    part, vae = open_vae(path)
    load_into(vae, part.read, _CPU if offloaded else device, dtype)
    runs_on = device if offloaded else None
    return WanCodec(vae, latents_per_call, _TILE if tiling else None, compiled=compiled, runs_on=runs_on)


def open_vae(path: Path) -> tuple[Part, Any]:
    """The tensors of a VAE, none of them read, and the ``AutoencoderKLWan`` on ``meta`` that they fit; raises as
    `load_vae`."""
    part = open_part(path, "vae", from_original)
    if (channels := part.shapes.get("post_quant_conv.weight", (_LATENT_CHANNELS,))[0]) != _LATENT_CHANNELS:
        other = "that of Wan2.2-TI2V-5B" if channels == 48 else "another VAE"
        raise WeightsError(
            f"{part.where} has {channels} latent channels, as {other}; needed is the VAE of Wan2.1 with "
            f"{_LATENT_CHANNELS}; to see which files there are run: irope weights"
        )
    module = import_extra("diffusers.models.autoencoders.autoencoder_kl_wan")
    with torch.device("meta"):
        vae = module.AutoencoderKLWan.from_config(_config(part))
    part.check(vae, "the VAE of Wan2.1")
    convolutions = sum(isinstance(layer, module.WanCausalConv3d) for layer in vae.decoder.modules())
    if convolutions != CONVOLUTIONS:
        version = import_extra("diffusers").__version__
        raise WeightsError(
            f"the decoder of the Wan VAE in diffusers {version} caches features of {convolutions} convolutions, "
            f"expected are {CONVOLUTIONS}: a version that this was not written for; run: {NEEDS}"
        )
    return part, vae


def _config(part: Part) -> dict[str, Any]:
    """``config.json`` of a diffusers folder; without one, the published configuration of the width in the file."""
    file = part.folder / "config.json"
    if file.is_file():
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise WeightsError(f"{file} is no JSON ({error}); download it again") from error
        if values.get("_class_name") == "AutoencoderKLWan":
            return dict(values)
    first = part.shapes.get("encoder.conv_in.weight")
    return {"base_dim": first[0]} if first else {}


def _channels_last(module: torch.nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Conv3d)):
            order = torch.channels_last if layer.weight.ndim == 4 else torch.channels_last_3d
            layer.weight.data = layer.weight.data.contiguous(memory_format=order)


def _full(features: Features) -> bool:
    """Whether every convolution that remembers anything remembers two frames, as from the third call of a stream on."""
    kept = [feature for feature in features if feature is not None]
    return bool(kept) and all(isinstance(feature, Tensor) and feature.shape[2] == 2 for feature in kept)


def _usual_strides(feature_1Cfyx: Tensor) -> Tensor:
    """An axis of one may have any stride; a compiler begins anew for another one, and the layout is read from it."""
    return feature_1Cfyx.as_strided(feature_1Cfyx.shape, (feature_1Cfyx.numel(), *feature_1Cfyx.stride()[1:]))


def _on(device: torch.device, features: Features) -> Features:
    return [feature.to(device) if isinstance(feature, Tensor) else feature for feature in features]


def _to_uint8(pixels: Tensor) -> Tensor:
    return ((pixels.float().clamp_(-1, 1) + 1) * 127.5).round_().to(torch.uint8)
