"""A small video codec with the strides of the Wan VAE: 4 frames x 8 x 8 pixels become one latent cell.

Encoding is linear: cells are projected on their leading principal components. Decoding is the transpose of that plus
a learned correction, a latent frame at a time: no state between latents, streaming for free.

Shapes: B batch, F pixel frames, N latent frames, C channels, H W pixels, h w latent cells, M cells, V values a cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from irope.errors import WeightsError
from irope.models.checkpoint import load_strict
from irope.models.tiny.decoder import WIDTH, Correction

TEMPORAL_STRIDE = 4
SPATIAL_STRIDE = 8
_CELL_VALUES = TEMPORAL_STRIDE * SPATIAL_STRIDE**2 * 3


def pixel_frames(latent_frames: int) -> int:
    """Pixel frames that ``latent_frames`` (>= 1) decode to: 1 + 4(N-1)."""
    return 1 + TEMPORAL_STRIDE * (latent_frames - 1)


def to_cells(video_BFCHW: Tensor) -> Tensor:
    """Cut a video [B, 1+4(N-1), 3, H, W] into cells [B, N, h, w, V]; the first frame stands in for a group of four."""
    _, frames, channels, height, width = video_BFCHW.shape
    if frames % TEMPORAL_STRIDE != 1 or channels != 3 or height % SPATIAL_STRIDE or width % SPATIAL_STRIDE:
        raise ValueError(
            f"the codec encodes [B, 1 + {TEMPORAL_STRIDE}k, 3, H, W] with H and W multiples of {SPATIAL_STRIDE}, "
            f"got {tuple(video_BFCHW.shape)}"
        )
    first = video_BFCHW[:, :1].expand(-1, TEMPORAL_STRIDE - 1, -1, -1, -1)
    grouped = torch.cat([first, video_BFCHW], dim=1)
    cells = grouped.unflatten(1, (-1, TEMPORAL_STRIDE))
    cells = cells.unflatten(4, (-1, SPATIAL_STRIDE)).unflatten(6, (-1, SPATIAL_STRIDE))
    # [B, N, 4, 3, h, 8, w, 8] -> [B, N, h, w, 4, 8, 8, 3]
    return cells.permute(0, 1, 4, 6, 2, 5, 7, 3).flatten(4)


class TinyCodec(nn.Module):
    """Principal components of the world's cells as encoder, the same with a learned `Correction` as decoder.

    Buffers: ``mean`` [V], ``basis`` [C, V] with orthonormal rows, ``scale`` [C], all float32. A latent channel is its
    component divided by ``scale``, the root of its standard deviation: coarse channels stay louder than fine ones,
    and the variance averages 1 over channels. A codec that was only fitted decodes linearly: its correction is zero.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, channels: int, width: int = WIDTH) -> None:
        super().__init__()
        if not 0 < channels <= _CELL_VALUES:
            raise ValueError(f"a codec has 1 to {_CELL_VALUES} channels, got {channels}")
        self.channels = channels
        self.register_buffer("mean", torch.zeros(_CELL_VALUES))
        self.register_buffer("basis", torch.eye(channels, _CELL_VALUES))
        self.register_buffer("scale", torch.ones(channels))
        self.correction = Correction(channels, _CELL_VALUES, width).requires_grad_(False)

    @classmethod
    def fit(cls, cells: Iterable[Tensor], channels: int, width: int = WIDTH) -> TinyCodec:
        """Fit to batches of cells [M, V] (values -1..1); same cells in the same order, same codec."""
        codec = cls(channels, width)
        total = torch.zeros(_CELL_VALUES, dtype=torch.float64)
        square = torch.zeros(_CELL_VALUES, _CELL_VALUES, dtype=torch.float64)
        count = 0
        for batch_MV in cells:
            batch = batch_MV.double()
            total += batch.sum(0)
            square += batch.T @ batch
            count += len(batch)
        if count <= channels:
            raise ValueError(f"{count} cells are too few to fit {channels} channels")
        mean = total / count
        variance, vectors = torch.linalg.eigh(square / count - torch.outer(mean, mean))
        basis = vectors.T.flip(0)[:channels]
        # An eigenvector's sign is arbitrary; fix it so that refitting gives the same codec.
        peak = basis.gather(1, basis.abs().argmax(1, keepdim=True))
        basis = basis * peak.sign()
        deviation = variance.flip(0)[:channels].clamp_min(1e-12).sqrt()
        scale = deviation.sqrt() * deviation.mean().sqrt()
        codec.mean.copy_(mean)
        codec.basis.copy_(basis)
        codec.scale.copy_(scale)
        return codec

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of the codec: the linear part as it is, the correction in float16."""
        state = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}
        return {name: w.half() if name.startswith("correction.") else w for name, w in state.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], where: str) -> TinyCodec:
        """The codec of `tensors`, all float32.

        Raises:
            WeightsError: a tensor is missing, misshapen or unknown; says which, and ``where`` it came from.
        """
        try:
            channels, width = len(tensors["scale"]), len(tensors["correction.mix.bias"])
        except (KeyError, TypeError) as error:
            raise WeightsError(f"{where}: holds no codec with a decoder ({error})") from error
        codec = cls(channels, width)
        load_strict(codec, tensors, where)
        return codec

    @torch.no_grad()
    def encode(self, video_BFCHW: Tensor) -> Tensor:
        """Pixels [B, 1+4(N-1), 3, H, W], float in -1..1, to float32 latents [B, N, C, h, w]."""
        cells = to_cells(video_BFCHW.float()) - self.mean
        return ((cells @ self.basis.T) / self.scale).permute(0, 1, 4, 2, 3).contiguous()

    def linear(self, latents_BChw: Tensor) -> Tensor:
        """Cells [B, h, w, V], float32, that the components alone make of latent frames [B, C, h, w]."""
        return latents_BChw.float().permute(0, 2, 3, 1) * self.scale @ self.basis + self.mean

    def decoder(self) -> TinyDecoder:
        """A fresh decoding stream."""
        return TinyDecoder(self)

    def decode(self, latents_BNChw: Tensor) -> Tensor:
        """Latents to uint8 frames [B, 1+4(N-1), H, W, 3]: one stream from start to end."""
        return self.decoder()(latents_BNChw)


class TinyDecoder:
    """Decodes latents as they come: the first one of the stream gives one frame, each later one four.

    Every latent frame is decoded by itself, so any cutting of the stream gives the same bits.
    """

    def __init__(self, codec: TinyCodec) -> None:
        self._codec = codec
        self._started = False

    def state(self) -> dict[str, Tensor]:
        """What a stream needs to go on after a kill: whether its first latent has passed."""
        return {"started": torch.tensor(self._started)}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self._started = bool(tensors["started"])

    @torch.no_grad()
    def __call__(self, latents_BNChw: Tensor) -> Tensor:
        """The next n latents [B, n, C, h, w] to uint8 frames [B, m, H, W, 3] on the latents' device."""
        if latents_BNChw.ndim != 5 or latents_BNChw.shape[2] != self._codec.channels or not latents_BNChw.shape[1]:
            raise ValueError(
                f"the decoder takes latents [B, n >= 1, {self._codec.channels}, h, w], got {tuple(latents_BNChw.shape)}"
            )
        frames = []
        for latent_BChw in latents_BNChw.unbind(1):
            group = self._decode_one(latent_BChw)
            frames.append(group if self._started else group[:, -1:])
            self._started = True
        return torch.cat(frames, dim=1)

    def _decode_one(self, latent_BChw: Tensor) -> Tensor:
        codec, latent = self._codec, latent_BChw.float()
        cells = codec.linear(latent) + codec.correction(latent).permute(0, 2, 3, 1)
        cells = cells.unflatten(3, (TEMPORAL_STRIDE, SPATIAL_STRIDE, SPATIAL_STRIDE, 3))
        # [B, h, w, 4, 8, 8, 3] -> [B, 4, h, 8, w, 8, 3]
        video = cells.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)
        return ((video + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
