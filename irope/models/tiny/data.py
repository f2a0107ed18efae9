"""Training batches of the embedded model, rendered on the fly: a batch is a pure function of (seed, step).

Shapes: B clips, N latent frames, C latent channels, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from irope.models.tiny.codec import SPATIAL_STRIDE, TEMPORAL_STRIDE, TinyCodec, pixel_frames, to_cells
from irope.models.tiny.decoder import WIDTH
from irope.world import SIZE, render, sample_scene, sample_staging

OPEN_BACKGROUND_SHARE = 0.25
HUE_DRIFT = 8.0
PAUSE_SHARE = 0.25
ROLLED_SHARE = 0.5


@dataclass(frozen=True)
class Batch:
    """Latents [B, N, C, h, w], subject coverage of each cell 0..1 [B, N, 1, h, w], prompts, and which clips were moved
    on the torus [B] (their first block cannot be guessed from the prompt)."""

    latents: Tensor
    subject: Tensor
    prompts: list[str]
    rolled: Tensor


def to_video(frames_FHWC: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """uint8 frames [F, H, W, 3] to the codec's float input [1, F, 3, H, W] in -1..1."""
    return torch.from_numpy(frames_FHWC).permute(0, 3, 1, 2)[None].float() / 127.5 - 1


def covered_cells(coverage_FHW: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """Share of every latent cell that the subject covers, float32 [N, h, w], from coverage 0..255 [F, H, W]."""
    grouped = np.concatenate([np.repeat(coverage_FHW[:1], TEMPORAL_STRIDE - 1, axis=0), coverage_FHW])
    side = SIZE // SPATIAL_STRIDE
    cells = grouped.reshape(-1, TEMPORAL_STRIDE, side, SPATIAL_STRIDE, side, SPATIAL_STRIDE)
    return torch.from_numpy(cells.mean(axis=(1, 3, 5), dtype=np.float32) / 255)


def make_batch(codec: TinyCodec, size: int, latent_frames: int, seed: int, step: int, spread: float = 1.0) -> Batch:
    """Batch ``step`` of the stream ``seed``; held-out prompts never occur in it. ``spread``: see `sample_staging`."""
    latents, subjects, prompts, rolled = [], [], [], []
    for clip in range(size):
        rng = np.random.default_rng([seed, step, clip])
        scene = sample_scene(rng)
        open_background = rng.random() < OPEN_BACKGROUND_SHARE
        drift = HUE_DRIFT if open_background else 0.0
        staging = sample_staging(rng, hue_drift=drift, pause_share=PAUSE_SHARE, spread=spread)
        frames, coverage = render(scene, staging, pixel_frames(latent_frames))
        moved = rng.random() < ROLLED_SHARE
        if moved:
            shift = tuple(SPATIAL_STRIDE * rng.integers(0, SIZE // SPATIAL_STRIDE, size=2))
            frames, coverage = np.roll(frames, shift, axis=(1, 2)), np.roll(coverage, shift, axis=(1, 2))
        latents.append(codec.encode(to_video(frames)))
        subjects.append(covered_cells(coverage)[None, :, None])
        prompts.append((scene.without_background() if open_background else scene).prompt)
        rolled.append(moved)
    return Batch(torch.cat(latents), torch.cat(subjects), prompts, torch.tensor(rolled))


def fit_codec(channels: int, seed: int, clips: int, width: int = WIDTH) -> TinyCodec:
    """The codec of the world, fitted to cells of random clips; a cell on a subject's edge counts four times."""

    def cells() -> Iterator[Tensor]:
        for clip in range(clips):
            rng = np.random.default_rng([seed, clip])
            frames, coverage = render(sample_scene(rng), sample_staging(rng, hue_drift=HUE_DRIFT), pixel_frames(21))
            cell = to_cells(to_video(frames)).flatten(0, 3)
            covered = covered_cells(coverage).flatten()
            edge = (covered > 0) & (covered < 1)
            yield torch.cat([cell[edge], cell[~edge][::4]])

    return TinyCodec.fit(cells(), channels, width)
