"""The causal Wan2.1 transformer: one class for the 1.3B model, the embedded one and the golden one.

Shape letters: B batch, F latent frames, C channels, H W latent height and width, S tokens per frame, L = F * S tokens,
T text rows, D model width, N heads, K head dimension.

The transformer knows neither caches nor angles: self-attention is a callable (`SelfAttention`) that receives the
un-rotated queries, keys and values of a layer. Causality comes only from what that callable lets the queries see.
Key names of the state dict are the published ones, so checkpoints load without renaming.

What does not change from call to call is made once and handed in: keys and values of a prompt (`text_kv`), everything
that a timestep decides (`CausalWanTransformer.times`). `fuse` lays the weights of q, k and v side by side, so that they
are one matrix product.

Rounding order in bfloat16 follows Self-Forcing: RMSNorm normalises in float32, rounds, then multiplies by the weight;
LayerNorm has float32 internals; modulation sums and gates are in the model's dtype (``modulation_float32`` restores
the float32 of the official Wan code).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from irope.pointwise import gated_sum, norm_modulate
from irope.projections import AttentionProjections, FeedForward
from irope.rope import split_head_dim


@dataclass(frozen=True)
class WanConfig:
    """Geometry of a causal Wan transformer; the defaults are Wan2.1-T2V-1.3B."""

    dim: int = 1536
    ffn_dim: int = 8960
    num_heads: int = 12
    num_layers: int = 30
    in_dim: int = 16
    out_dim: int = 16
    text_len: int = 512
    text_dim: int = 4096
    freq_dim: int = 256
    patch_size: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6
    modulation_float32: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_size", tuple(self.patch_size))
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not divisible by num_heads {self.num_heads}")
        split_head_dim(self.head_dim)

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def rope_dims(self) -> tuple[int, int, int]:
        """Channels of one head rotated by (time, row, column)."""
        return split_head_dim(self.head_dim)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Token rows and columns of a latent frame of ``height`` x ``width``.

        Raises:
            ValueError: the frame is not a whole number of patches.
        """
        _, ph, pw = self.patch_size
        if height % ph or width % pw:
            raise ValueError(f"latent frame {height}x{width} is not a whole number of {ph}x{pw} patches")
        return height // ph, width // pw

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WanConfig:
        """Read a published ``config.json``; keys that do not concern the geometry are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


class SelfAttention(Protocol):
    """Rotates and attends for one layer: raw q, k, v [B, L, N, K] in (frame, row, column) order -> [B, L, N, K]."""

    def __call__(self, layer: int, q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor) -> Tensor: ...


class Store(ABC):
    """A `SelfAttention` that keeps keys and values, and takes q, k and v as they leave their projection."""

    @abstractmethod
    def __call__(self, layer: int, q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor) -> Tensor: ...

    @abstractmethod
    def attend_projected(self, layer: int, y_BL3D: Tensor, projections: AttentionProjections) -> Tensor:
        """What `__call__` makes of ``projections.split(y_BL3D)``."""

    @abstractmethod
    def store_projected(self, layer: int, y_BL3D: Tensor, projections: AttentionProjections) -> Any:
        """`attend_projected` without attending."""


CrossKV = list[tuple[Tensor, Tensor]]
"""Cross-attention keys and values of one prompt, a pair of [B, T, N, K] per layer."""


Modulation = tuple[Tensor, ...]
"""Of one layer: (shift, 1 + scale, gate) of self-attention, then of the feed-forward, [B or 1, F or 1, 1, D] each."""


@dataclass(frozen=True)
class Times:
    """All that the timesteps of a call decide: the modulation of every layer, and (shift, 1 + scale) of the head."""

    layers: tuple[Modulation, ...]
    head: Modulation


def attention(q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor) -> Tensor:
    """Unmasked softmax attention with scale 1/sqrt(K); [B, L, N, K] in and out."""
    out = F.scaled_dot_product_attention(q_BLNK.transpose(1, 2), k_BLNK.transpose(1, 2), v_BLNK.transpose(1, 2))
    return out.transpose(1, 2)


def attention_backends(device: torch.device) -> AbstractContextManager[None]:
    """On a GPU cuDNN's attention first, unless it is switched off, then flash; none of them is asked for a mask."""
    if device.type != "cuda":
        return nullcontext()
    order = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    if torch.backends.cuda.cudnn_sdp_enabled():
        order.insert(0, SDPBackend.CUDNN_ATTENTION)
    return sdpa_kernel(order, set_priority=True)


class WanBlock(nn.Module):
    """One layer: modulated self-attention, cross-attention behind norm3, modulated feed-forward."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim) / config.dim**0.5)
        self.self_attn = AttentionProjections(config)
        self.norm3 = nn.LayerNorm(config.dim, config.eps)
        self.cross_attn = AttentionProjections(config)
        self.ffn = FeedForward(config)
        self._compiled: tuple[Callable[..., Tensor], Callable[..., Tensor]] | None = None
        self._compiled_frames: frozenset[int] = frozenset()

    def modulated(self, e_BF6D: Tensor) -> Modulation:
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation[:, None] + e_BF6D).unsqueeze(3).unbind(2)
        return shift1, 1 + scale1, gate1, shift2, 1 + scale2, gate2

    def forward(
        self, x_BFSD: Tensor, time: Modulation, cross: tuple[Tensor, Tensor], attend: SelfAttention, layer: int
    ) -> Tensor:
        before, after = self.parts(x_BFSD)
        y_BL3D = before(x_BFSD, time)
        if isinstance(attend, Store):
            attended = attend.attend_projected(layer, y_BL3D, self.self_attn)
        else:
            attended = attend(layer, *self.self_attn.split(y_BL3D))
        return after(x_BFSD, attended, time, cross)

    def parts(self, x_BFSD: Tensor) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        """What comes before self-attention and what comes after it; compiled where `compile_parts` was told to."""
        if self._compiled is not None and x_BFSD.shape[1] in self._compiled_frames and not torch.is_grad_enabled():
            return self._compiled
        return self.before_attention, self.after_attention

    def compile_parts(self, frames: Collection[int], backend: str | Callable[..., Any]) -> None:
        """See `CausalWanTransformer.compile_layers`."""
        # Not fullgraph: at the ninth batch size that would be an error, where a layer can run as it is.
        compiled = partial(torch.compile, dynamic=False, backend=backend)
        self._compiled_frames = frozenset(frames)
        self._compiled = (compiled(self.before_attention), compiled(self.after_attention)) if frames else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}  # a copy's would still be this one's

    def before_attention(self, x_BFSD: Tensor, time: Modulation) -> Tensor:
        """q, k and v of self-attention before their norms, [B, L, 3, D]."""
        shift, scale = time[:2]
        return self.self_attn.project(norm_modulate(x_BFSD, shift, scale, self.eps))

    def after_attention(
        self, x_BFSD: Tensor, attended_BLNK: Tensor, time: Modulation, cross: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The layer from the output of self-attention on."""
        _, _, gate1, shift2, scale2, gate2 = time
        x_BFSD = gated_sum(x_BFSD, self.self_attn.output(attended_BLNK), gate1)
        y = attention(self.cross_attn.queries(self.norm3(x_BFSD)), *cross)
        x_BFSD = x_BFSD + self.cross_attn.output(y).view(x_BFSD.shape)
        return gated_sum(x_BFSD, self.ffn(norm_modulate(x_BFSD, shift2, scale2, self.eps)), gate2)


class Head(nn.Module):
    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.eps = config.eps
        patch = config.patch_size[0] * config.patch_size[1] * config.patch_size[2]
        self.head = nn.Linear(config.dim, config.out_dim * patch)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def modulated(self, e_BFD: Tensor) -> Modulation:
        shift, scale = (self.modulation[:, None] + e_BFD[:, :, None]).unsqueeze(3).unbind(2)
        return shift, 1 + scale

    def forward(self, x_BFSD: Tensor, time: Modulation) -> Tensor:
        shift, scale = time
        return self.head(norm_modulate(x_BFSD, shift, scale, self.eps))


def time_sinusoid(t: Tensor, dim: int) -> Tensor:
    """Sinusoid of the timestep, layout [cos | sin], float64 [..., dim]."""
    half = dim // 2
    frequency = torch.pow(10000.0, -torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angle = t.to(torch.float64)[..., None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class CausalWanTransformer(nn.Module):
    """Wan2.1 text-to-video transformer with per-frame timesteps and pluggable self-attention.

    Attributes:
        offloaded: the weights of the layers wait on the CPU and come to `device` one layer at a time, for its calls.
    """

    offloaded: bool = False

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embedding = nn.Conv3d(config.in_dim, dim, config.patch_size, config.patch_size)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim * 6))
        self.blocks = nn.ModuleList(WanBlock(config) for _ in range(config.num_layers))
        self.head = Head(config)

    @property
    def dtype(self) -> torch.dtype:
        return self.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where calls run, and all weights are, but for those of offloaded layers."""
        return self.patch_embedding.weight.device

    def text_kv(self, text_BTE: Tensor) -> CrossKV:
        """Cross-attention keys and values of a prompt, made once and reused until the prompt changes.

        Args:
            text_BTE: text features [B, text_len, text_dim]; rows beyond the prompt's length are zero. They are not
                masked: the text MLP turns them into a constant row, as in the published models.
        """
        context_BTD = self.text_embedding(text_BTE.to(self.dtype))
        kept = []
        for block in self.blocks:
            cross_attn: AttentionProjections = block.cross_attn  # type: ignore[assignment]
            with self._here(cross_attn):
                kept.append(cross_attn.keys_values(context_BTD))
        return kept

    def times(self, t_BF: Tensor) -> Times:
        """What the timesteps of a call decide; timesteps repeat from block to block, so it can be made once.

        Args:
            t_BF: timestep of every frame, 0..1000; [1, 1] where videos and frames share it.
        """
        config = self.config
        e_BFD = self.time_embedding(time_sinusoid(t_BF, config.freq_dim).to(self.dtype))
        e_BF6D = self.time_projection(e_BFD).unflatten(-1, (6, config.dim))
        if config.modulation_float32:
            e_BFD, e_BF6D = e_BFD.float(), e_BF6D.float()
        return Times(tuple(block.modulated(e_BF6D) for block in self.blocks), self.head.modulated(e_BFD))  # type: ignore[operator]

    def fuse(self) -> None:
        """Prepare the weights for inference, without a change to their names, values or number of bytes.

        Those of offloaded layers stay as they are.
        """
        for block in () if self.offloaded else self.blocks:
            block.self_attn.fuse()  # type: ignore[operator, union-attr]

    def compile_layers(self, frames: Collection[int] = (3,), backend: str | Callable[..., Any] = "inductor") -> None:
        """Run what lies around self-attention through ``torch.compile``, for calls of so many latent frames.

        Two functions are compiled, at the first call and for all layers alike; a GPU needs about a minute. Their shapes
        do not depend on the window, whose keys only self-attention sees: one compilation serves every fill level. Each
        number of ``frames`` (and each batch) is another one, so a recache runs as it is, and so does what comes after
        eight sizes of a batch. No frames: nothing compiled.
        """
        for block in self.blocks:
            block.compile_parts(frames, backend)  # type: ignore[operator]

    @property
    def compiled(self) -> bool:
        """Whether `compile_layers` is in force."""
        return any(block._compiled is not None for block in self.blocks)

    def forward(self, x_BFCHW: Tensor, t: Tensor | Times, cross: CrossKV, attend: SelfAttention) -> Tensor:
        """Flow v = noise - x0 of F latent frames, [B, F, C, H, W] in the dtype of the model.

        Args:
            x_BFCHW: noisy latents.
            t: timestep of every frame [B, F], 0..1000, or what `times` made of them.
            cross: from `text_kv`.
            attend: self-attention of every layer; see `SelfAttention`.
        """
        config = self.config
        rows, columns = config.grid(*x_BFCHW.shape[-2:])
        times = self.times(t) if isinstance(t, Tensor) else t
        x_BFSD = self._tokens(x_BFCHW)
        with attention_backends(x_BFSD.device):
            for layer, block in enumerate(self.blocks):
                with self._here(block):
                    x_BFSD = block(x_BFSD, times.layers[layer], cross[layer], attend, layer)
        out = self.head(x_BFSD, times.head)
        # Patch axes (p_t, p_h, p_w, channel) of the last dimension back to pixels; p_t is 1 in every Wan model.
        _, ph, pw = config.patch_size
        out = out.view(*x_BFCHW.shape[:2], rows, columns, ph, pw, config.out_dim)
        return out.permute(0, 1, 6, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)

    def store(self, x_BFCHW: Tensor, t: Tensor | Times, cross: CrossKV, write: Store) -> None:
        """`forward` as far as self-attention's keys and values need it: the last layer ends at its q, k and v.

        Args:
            write: takes keys and values of every layer.
        """
        times = self.times(t) if isinstance(t, Tensor) else t
        x_BFSD = self._tokens(x_BFCHW)
        last = len(self.blocks) - 1
        with attention_backends(x_BFSD.device):
            for layer, block in enumerate(self.blocks):
                with self._here(block):
                    if layer < last:
                        x_BFSD = block(x_BFSD, times.layers[layer], cross[layer], write, layer)
                    else:
                        y_BL3D = block.parts(x_BFSD)[0](x_BFSD, times.layers[layer])  # type: ignore[operator]
                        write.store_projected(layer, y_BL3D, block.self_attn)  # type: ignore[arg-type]

    def offload(self) -> None:
        """Let the weights of all layers wait on the CPU; modulations, which `times` reads, stay with the small rest."""
        self.offloaded = True
        for block in self.blocks:
            for part, name, weight in _weights(block):
                setattr(part, name, nn.Parameter(_waiting(weight, self.device), requires_grad=False))

    @contextmanager
    def _here(self, module: nn.Module) -> Iterator[None]:
        """The weights of an offloaded layer, or part of one, where calls run, for as long as they are used."""
        home = _weights(module) if self.offloaded else []
        for part, name, weight in home:
            setattr(part, name, nn.Parameter(weight.to(self.device, non_blocking=True), requires_grad=False))
        try:
            yield
        finally:
            for part, name, weight in home:
                setattr(part, name, weight)

    def _tokens(self, x_BFCHW: Tensor) -> Tensor:
        x_BFSD = self.patch_embedding(x_BFCHW.to(self.dtype).transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)
        return x_BFSD.contiguous()  # else every later sum would inherit the channels-outermost layout


def _weights(module: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """(owner, name, weight) of a layer, without its modulation."""
    return [
        (part, name, weight)
        for part in module.modules()
        for name, weight in part.named_parameters(recurse=False)
        if name != "modulation"
    ]


def _waiting(weight: Tensor, device: torch.device) -> Tensor:
    """A copy on the CPU, in pinned memory where a GPU is to read it."""
    kept = weight.detach().cpu()
    return kept.pin_memory() if device.type == "cuda" else kept
