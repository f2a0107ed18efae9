"""The trainable part of the embedded model: text encoder and transformer, and how they start."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from irope.models.tiny.text import TinyTextEncoder
from irope.transformer import CausalWanTransformer, SelfAttention, WanConfig

TINY_WAN = WanConfig(dim=192, ffn_dim=768, num_heads=3, num_layers=4, in_dim=24, out_dim=24, text_len=12, text_dim=96)
"""Head dimension 64, so time has 12 frequencies; 16 tokens a latent frame of 8x8 cells."""


class TinyNet(nn.Module):
    """Text encoder and transformer under one state dict (prefixes ``text.`` and ``wan.``)."""

    def __init__(self, geometry: WanConfig) -> None:
        super().__init__()
        self.text = TinyTextEncoder(geometry.text_len, geometry.text_dim)
        self.wan = CausalWanTransformer(geometry)

    def forward(self, x_BNChw: Tensor, t_BN: Tensor, prompts: list[str], attend: SelfAttention) -> Tensor:
        return self.wan(x_BNChw, t_BN, self.wan.text_kv(self.text(prompts)), attend)


@torch.no_grad()
def initialize(net: TinyNet, seed: int) -> None:
    """Overwrite every weight from ``seed``: scaled normal matrices, half-open gates, a silent head."""
    generator = torch.Generator().manual_seed(seed)
    gate = (2 * net.wan.config.num_layers) ** -0.5
    for name, weight in net.named_parameters():
        if name.endswith(("norm_q.weight", "norm_k.weight", "norm3.weight")):
            weight.fill_(1.0)
        elif name.endswith("modulation"):
            weight.zero_()
            if weight.shape[1] == 6:
                weight[:, 2::3] = gate
        elif name.startswith("text."):
            weight.normal_(0.0, 1.0 if name == "text.word" else 0.3, generator=generator)
        elif weight.ndim == 1 or name.startswith(("wan.head", "wan.time_projection")):
            weight.zero_()
        else:
            weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)
