"""Execution mode ``reference``: the published order of operations, with all its wasted work, on the same weights.

The baseline that speed is compared with. The official code needs packages that do not run everywhere, so its sequence
is rebuilt here from what it does (yesiltepe-hidir/infinity-rope 63d7b84 and guandeh17/Self-Forcing 33593df, read, not
copied), and `irope.op_counter` holds it to the counts taken from that code:

* every pass writes its keys and values into the cache; ∞-RoPE then rotates its queries and its **whole window** in
  complex128, with a concatenation, a stack and two casts; Self-Forcing rotates queries and new keys;
* RMSNorm is eight kernels, LayerNorm, modulation, gates and residuals are kernels of their own, q, k and v three GEMMs;
* the fill of the cache lives on the device: three reads a layer and pass, six where the window evicts;
* a full window is shifted by clones; a flush copies the last two frames; no update pass is left out.

What is better than published: attention runs on the backend of ``fast``, the text is not embedded again in every pass,
and no key is lost by a flush before the window is full (see `irope.infinity`).

Shape letters: B batch, F latent frames, S tokens of a frame, L = F * S, D width, N heads, K head dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irope import rope
from irope.cache import ArenaShape, Probe
from irope.infinity import PRESETS
from irope.pointwise import layer_norm
from irope.policy import CachePlan, CachePolicy, PageId, PolicyError, TokenScorer
from irope.projections import AttentionProjections, RMSNorm
from irope.transformer import (
    CausalWanTransformer,
    CrossKV,
    SelfAttention,
    WanBlock,
    WanConfig,
    attention,
    attention_backends,
    time_sinusoid,
)

TABLE = 1024
"""Indices that the published code has angles for."""
_ABSOLUTE = ("rolling", "full")


def check_policy(policy: CachePolicy) -> None:
    """Refuse a policy that the official code does not have.

    Raises:
        PolicyError: naming the setting at fault.
    """
    if policy.name in _ABSOLUTE:
        return
    advice = "use sys.execution=fast"
    if policy.name != "infinity_rope":
        raise PolicyError(
            f"sys.execution=reference is the official code of infinity_rope, rolling and full; it has no "
            f"{policy.name}: {advice}"
        )
    wanted = PRESETS["official"] | {"f0": policy.window, "sink_index": "pinned"}
    for name, value in wanted.items():
        if name != "cut_delta" and getattr(policy, name) != value:
            raise PolicyError(
                f"sys.execution=reference is the official code of infinity_rope, where {name} is {value}, not "
                f"{getattr(policy, name)}: {advice}"
            )


class ReferenceArena:
    """The published cache: a buffer a layer whose slots are in order, and its fill in numbers on the device.

    Takes the place of `irope.cache.KVArena` in a roll-out. ∞-RoPE stores raw keys, and the first frame's rotated at
    index 0; ``rolling`` and ``full`` store keys rotated at their frame number.
    """

    def __init__(
        self, config: WanConfig, policy: CachePolicy, shape: ArenaShape, dtype: torch.dtype, device: torch.device
    ) -> None:
        check_policy(policy)
        self.config, self.policy, self.shape = config, policy, shape
        self.relative = policy.name not in _ABSOLUTE
        self.capacity = policy.window * shape.tokens
        self.sink = policy.sink
        buffer = (config.num_layers, shape.batch, self.capacity, config.num_heads, config.head_dim)
        self.k = torch.zeros(buffer, dtype=dtype, device=device)
        self.v = torch.zeros(buffer, dtype=dtype, device=device)
        self.table = rope.phases(TABLE, config.rope_dims).to(device)
        self.device = device
        # Where counting runs on the meta device, numbers are real all the same: they decide what is launched.
        self._numbers = torch.device("cpu") if device.type == "meta" else device
        self.keep_queries = False
        self.probe: Probe | None = None
        self.clear()

    @property
    def page_bytes(self) -> int:
        """Bytes of keys and values, as allocated."""
        return self.k.nbytes + self.v.nbytes

    @property
    def stage_bytes(self) -> int:
        """Nothing lasts beside the buffers; the rotated window is made and dropped in every layer and pass."""
        return 0

    def clear(self) -> None:
        layers = range(self.config.num_layers)
        self.global_end = [torch.zeros(1, dtype=torch.long, device=self._numbers) for _ in layers]
        self.local_end = [torch.zeros(1, dtype=torch.long, device=self._numbers) for _ in layers]
        self.frames: tuple[PageId, ...] = ()  # what the slots hold, the block in progress left out
        self._own: tuple[PageId, ...] = ()
        self._segment: int | None = None
        self._end = 0  # tokens of the video up to the end of the block in progress
        self._index: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))

    # --- executing plans --------------------------------------------------------------------------------------------

    def execute(self, plan: CachePlan, segment: int, scorer: TokenScorer | None = None) -> None:
        """Begin a block: flush where the plan says so; the window itself moves in the first pass, as published.

        Raises:
            PolicyError: the plan reads other frames than the published cache would hold.
        """
        held, sink = (*self.frames, *self._own), self.sink
        over = max(0, len(held) + len(plan.query_index) - self.policy.window)
        rolled = (*held[:sink], *held[sink + over :])
        kept = len(plan.read) - sink
        flushed = (*held[:sink], *held[max(sink, len(held) - kept) :])
        switched = self._segment is not None and segment != self._segment
        if switched and getattr(self.policy, "on_switch", "keep") == "flush" and plan.read == flushed and kept > 0:
            self._flush(kept, len(held))
        elif plan.read != rolled:
            raise PolicyError(
                f"sys.execution=reference: the published cache holds the frames {list(rolled)}, the plan reads "
                f"{list(plan.read)}; use sys.execution=fast"
            )
        self.frames, self._own, self._segment = plan.read, (), segment
        self._end += len(plan.query_index) * self.shape.tokens
        self.stage(plan)

    def stage(self, plan: CachePlan) -> None:
        """Take up the indices of a plan (the last step of `execute`).

        Raises:
            PolicyError: an index beyond the published table.
        """
        if max(*plan.query_index, *plan.key_index, 0) >= TABLE:
            raise PolicyError(
                f"sys.execution=reference: the published code has angles for {TABLE} indices and fails at index "
                f"{max(*plan.query_index, *plan.key_index)}; nearest valid: sys.execution=fast"
            )
        window = (*plan.key_index, *plan.query_index)
        self._index = (
            torch.tensor(plan.query_index, dtype=torch.long).to(self.device),
            torch.tensor(window if self.relative else plan.query_index, dtype=torch.long).to(self.device),
        )

    def resume(self, plan: CachePlan) -> None:
        """Take up the plan in force after `load_state`; the buffers are as they were."""
        self.stage(plan)

    def _flush(self, kept: int, held: int) -> None:
        """Copy the last frames behind the sink and set the fill, layer by layer."""
        tokens = self.shape.tokens
        target = slice(self.sink * tokens, (self.sink + kept) * tokens)
        source = slice((held - kept) * tokens, held * tokens)
        for layer in range(self.config.num_layers):
            for buffer in (self.k[layer], self.v[layer]):
                buffer[:, target] = buffer[:, source].clone()
            self.local_end[layer].fill_((self.sink + kept) * tokens)

    def execute_recompute(self, plan: CachePlan, segment: int) -> None:
        raise PolicyError("sys.execution=reference encodes nothing again; use sys.execution=fast")

    def writing(self, frames: tuple[int, ...], segment: int) -> None:
        """Every pass writes; the names of what the last one leaves are all that is noted."""
        self._own = frames

    # --- attention --------------------------------------------------------------------------------------------------

    def __call__(self, layer: int, q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor) -> Tensor:
        batch, new = q_BLNK.shape[:2]
        rows, columns = self.shape.grid
        grid = torch.tensor([[new // self.shape.tokens, rows, columns]] * batch)
        tokens = int(grid[:, 1:].prod(1).tolist()[0])
        own, window = self._index
        own = own[torch.arange(len(own), device=self.device)]
        if not self.relative:
            q_BLNK, k_BLNK = (rope.rotate_as_published(x, own, grid, self.table) for x in (q_BLNK, k_BLNK))
        end = self._insert(layer, k_BLNK, v_BLNK)
        keys, values = self.k[layer][:, :end], self.v[layer][:, :end]
        if self.relative:
            q_BLNK = rope.rotate_as_published(q_BLNK, own, grid, self.table)
            all_grid = grid.clone()
            all_grid[:, 0] = end // tokens
            slots = window[torch.arange(end // tokens, device=self.device)]
            keys = self._sink(layer, rope.rotate_as_published(keys, slots, all_grid, self.table))
        self.local_end[layer].fill_(end)
        self.global_end[layer].fill_(self._end)
        if self.probe is not None:
            self.probe(layer, q_BLNK, keys)
        return attention(q_BLNK, keys, values)

    def _insert(self, layer: int, k_BLNK: Tensor, v_BLNK: Tensor) -> int:
        """Write the pass's keys and values into their slots, after a shift where they are full; tokens held after."""
        new, end, capacity = k_BLNK.shape[1], self._end, self.capacity
        global_end, local_end = self.global_end[layer], self.local_end[layer]
        if end > global_end.item() and new + local_end.item() > capacity:
            evicted = int(new + local_end.item() - capacity)
            sink = self.sink * self.shape.tokens
            rolled = int(local_end.item() - evicted - sink)
            for buffer in (self.k[layer], self.v[layer]):
                buffer[:, sink : sink + rolled] = buffer[:, sink + evicted : sink + evicted + rolled].clone()
            last = int(local_end.item() + end - global_end.item() - evicted)
        else:
            last = int(local_end.item() + end - global_end.item())
        self.k[layer][:, last - new : last] = k_BLNK
        self.v[layer][:, last - new : last] = v_BLNK
        return last

    def _sink(self, layer: int, keys_BLNK: Tensor) -> Tensor:
        """The first frame is kept as it was rotated in its own block, at index 0, and takes its place in the window."""
        if not self.sink:
            return keys_BLNK
        first = slice(0, self.shape.tokens)
        if not self.frames:
            self.k[layer][:, first] = keys_BLNK[:, first]
        else:
            keys_BLNK[:, first] = self.k[layer][:, first]
        return keys_BLNK

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        record = {
            "frames": self.frames,
            "segment": self._segment,
            "end": self._end,
            "fill": [[int(a), int(b)] for a, b in zip(self.global_end, self.local_end, strict=True)],
        }
        return {"k": self.k.clone(), "v": self.v.clone()}, record

    def load_state(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        self.clear()
        self.k.copy_(tensors["k"])
        self.v.copy_(tensors["v"])
        self.frames, self._segment, self._end = tuple(record["frames"]), record["segment"], record["end"]
        for layer, (global_end, local_end) in enumerate(record["fill"]):
            self.global_end[layer].fill_(global_end)
            self.local_end[layer].fill_(local_end)


# --- the network ------------------------------------------------------------------------------------------------------


def rms_norm(norm: RMSNorm, x: Tensor) -> Tensor:
    """Eight kernels in bfloat16: cast, square, mean, add, root, product, cast, product."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + norm.eps)).type_as(x) * norm.weight


class ReferenceBlock(nn.Module):
    """One layer in the published order, on the weights of a `WanBlock`."""

    def __init__(self, block: WanBlock) -> None:
        super().__init__()
        self.block = block

    def forward(
        self, x_BLD: Tensor, e_BF6D: Tensor, cross: tuple[Tensor, Tensor], attend: SelfAttention, layer: int
    ) -> Tensor:
        block, frames = self.block, e_BF6D.shape[1]
        e = (block.modulation[:, None] + e_BF6D).chunk(6, dim=2)

        def modulated(shift: Tensor, scale: Tensor) -> Tensor:
            y = layer_norm(x_BLD, block.eps).unflatten(1, (frames, -1)) * (1 + scale) + shift
            return y.flatten(1, 2).type_as(x_BLD)

        def gated(y_BLD: Tensor, gate: Tensor) -> Tensor:
            return (y_BLD.unflatten(1, (frames, -1)) * gate).flatten(1, 2).type_as(x_BLD)

        own = block.self_attn
        y = modulated(e[0], e[1])
        q = _heads(own, rms_norm(own.norm_q, _linear(own.q, y)))
        k = _heads(own, rms_norm(own.norm_k, _linear(own.k, y)))
        v = _heads(own, _linear(own.v, y))
        x_BLD = x_BLD + gated(_linear(own.o, attend(layer, q, k, v).flatten(2)), e[2])
        other = block.cross_attn
        q = _heads(other, rms_norm(other.norm_q, _linear(other.q, block.norm3(x_BLD))))
        x_BLD = x_BLD + _linear(other.o, attention(q, *cross).flatten(2))
        wide, gelu, narrow = block.ffn
        y = _linear(narrow, gelu(_linear(wide, modulated(e[3], e[4]))))
        return x_BLD + gated(y, e[5])


def _linear(layer: Any, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def _heads(projections: AttentionProjections, x_BLD: Tensor) -> Tensor:
    return x_BLD.unflatten(2, projections.head_shape)


class ReferenceTransformer(nn.Module):
    """The network of a `CausalWanTransformer` in the published order; shares its weights."""

    def __init__(self, model: CausalWanTransformer) -> None:
        super().__init__()
        self.model = model
        self.blocks = nn.ModuleList(ReferenceBlock(block) for block in model.blocks)  # type: ignore[arg-type]

    def forward(self, x_BFCHW: Tensor, t_BF: Tensor, cross: CrossKV, attend: SelfAttention) -> Tensor:
        """Flow [B, F, C, H, W], as `CausalWanTransformer.forward`."""
        model, config = self.model, self.model.config
        frames = x_BFCHW.shape[1]
        rows, columns = config.grid(*x_BFCHW.shape[-2:])
        x_BLD = model.patch_embedding(x_BFCHW.to(model.dtype).transpose(1, 2)).flatten(2).transpose(1, 2).contiguous()
        e_BFD = model.time_embedding(time_sinusoid(t_BF, config.freq_dim).to(model.dtype))
        e_BF6D = model.time_projection(e_BFD).unflatten(-1, (6, config.dim))
        if config.modulation_float32:
            e_BFD, e_BF6D = e_BFD.float(), e_BF6D.float()
        with attention_backends(x_BFCHW.device):
            for layer, block in enumerate(self.blocks):
                x_BLD = block(x_BLD, e_BF6D, cross[layer], attend, layer)
        shift, scale = (model.head.modulation[:, None] + e_BFD[:, :, None]).chunk(2, dim=2)
        y = layer_norm(x_BLD, config.eps).unflatten(1, (frames, -1)) * (1 + scale) + shift
        out = model.head.head(y.type_as(x_BLD))
        _, ph, pw = config.patch_size
        out = out.view(*x_BFCHW.shape[:2], rows, columns, ph, pw, config.out_dim)
        return out.permute(0, 1, 6, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
