"""The steps of self-rollout distillation: a clip from the student, its last step with gradients, their direction.

The student makes whole clips with its few sampler steps and a rolling cache, as in use, and so learns on its own
mistakes (Self Forcing, arXiv 2506.08009). Distribution matching (DMD2, arXiv 2405.14867) says in which direction a
clip should move: the difference of what two nets, the fake score and a frozen teacher, make of it.

As in Self Forcing gradients flow through one denoising step, a clip's last, and the past takes none. The keys that a
cache holds are those of a teacher-forced pass over [clean clip | noisy blocks]. So the clip is made by
`irope.rollout.Rollout` without gradients, and its last step is repeated with them, all blocks in one pass.

Shapes: B clips, N latent frames, C latent channels, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from irope.infinity import InfinityRope
from irope.models.tiny.codec import SPATIAL_STRIDE, TEMPORAL_STRIDE, TinyCodec
from irope.models.tiny.net import TinyNet
from irope.models.tiny.teacher_forcing import BLOCK_FRAMES, Window
from irope.rollout import Rollout
from irope.sampler import Sampler
from irope.schedules import EventTable
from irope.world.tracker import SUBJECT_LEVEL

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Self-attention over [clean | noisy]: (layer, queries, keys, values), as `TeacherForcing` is."""


def rollout_policy(window: Window, frames: int) -> InfinityRope:
    """The cache policy under which a roll-out of ``frames`` sees what ``window`` shows in training."""
    if window.past is None:
        return InfinityRope(window=frames, f0=frames)
    size = window.past + window.sink + BLOCK_FRAMES
    return InfinityRope(window=size, sink=window.sink, f0=size if window.near_sink else max(frames, size))


def self_roll_out(
    net: TinyNet,
    prompts: list[str],
    window: Window,
    sampler: Sampler,
    shape: tuple[int, int, int, int],
    draw: Callable[[tuple[int, ...]], Tensor],
) -> tuple[Tensor, Tensor]:
    """Clips of one prompt each, without gradients: (clean, noisy), both [B, N, C, h, w], float32.

    ``noisy`` is what the last step of ``sampler`` met. ``shape`` is (N, C, h, w); ``draw`` gives the noise, drawn block
    by block and step by step.
    """
    frames, *frame_shape = shape
    noisy: list[Tensor] = []

    def keep(_: object, inputs: tuple[Tensor, ...]) -> None:
        noisy.append(inputs[0])

    video = Rollout(
        model=net.wan,
        policy=rollout_policy(window, frames),
        events=EventTable(frames // BLOCK_FRAMES),
        sampler=sampler,
        texts=lambda segment: net.text(prompts),
        noise=lambda block, step: draw((len(prompts), BLOCK_FRAMES, *frame_shape)),
        frame_shape=(frame_shape[0], frame_shape[1], frame_shape[2]),
        batch=len(prompts),
    )
    hook = net.wan.register_forward_pre_hook(keep)
    try:
        clean = [block.latents.float() for block in video]
    finally:
        hook.remove()
    return torch.cat(clean, dim=1), torch.cat([x.float() for x in noisy[sampler.steps - 1 :: sampler.steps]], dim=1)


def constant_past(attend: Attend) -> Attend:
    """``attend`` over [clean | noisy], with clean keys and values that pass no gradient on, as those of a cache."""

    def attend_past(layer: int, q_BLHD: Tensor, k_BLHD: Tensor, v_BLHD: Tensor) -> Tensor:
        past = q_BLHD.shape[1] // 2
        k, v = (torch.cat([x[:, :past].detach(), x[:, past:]], dim=1) for x in (k_BLHD, v_BLHD))
        return attend(layer, q_BLHD, k, v)

    return attend_past


def denoise(
    net: TinyNet, clean: Tensor, noisy: Tensor, sigma_BN: Tensor, prompts: list[str], attend: Attend
) -> tuple[Tensor, Tensor]:
    """(flow, x0) of ``noisy`` at noise levels ``sigma_BN`` given the blocks of ``clean`` before; float32."""
    t = torch.cat([torch.zeros_like(sigma_BN), 1000 * sigma_BN], dim=1)
    flow = net(torch.cat([clean, noisy], dim=1), t, prompts, attend)[:, clean.shape[1] :].float()
    return flow, noisy - sigma_BN[:, :, None, None, None] * flow


def matching_gradient(x0: Tensor, x0_fake: Tensor, x0_real: Tensor) -> tuple[Tensor, Tensor]:
    """(gradient at ``x0``, gap) of distribution matching: fake minus real prediction, over |x0 - real| of each block.

    DMD2 (arXiv 2405.14867) takes that mean over a whole sample; here every block has a noise level of its own. The gap
    is the same ratio over the batch.
    """
    difference, distance = x0_fake - x0_real, (x0 - x0_real).abs()
    blocks = distance.unflatten(1, (-1, BLOCK_FRAMES)).mean(dim=(2, 3, 4, 5)).repeat_interleave(BLOCK_FRAMES, dim=1)
    gap = difference.abs().mean() / distance.mean().clamp_min(1e-6)
    return difference / blocks[:, :, None, None, None].clamp_min(1e-6), gap


def subject_cells(codec: TinyCodec, latents: Tensor) -> Tensor:
    """Share of every cell that shows a subject, [B, N, 1, h, w]: pixels brighter than any background."""
    bright = (codec.decode(latents).amax(-1) > SUBJECT_LEVEL).float()
    grouped = torch.cat([bright[:, :1].expand(-1, TEMPORAL_STRIDE - 1, -1, -1), bright], dim=1)
    cells = grouped.unflatten(1, (-1, TEMPORAL_STRIDE)).unflatten(3, (-1, SPATIAL_STRIDE))
    return cells.unflatten(5, (-1, SPATIAL_STRIDE)).mean(dim=(2, 4, 6))[:, :, None]
