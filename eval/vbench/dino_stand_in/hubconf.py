"""ViT-B/16 with the parameter names and the arithmetic of facebookresearch/dino, read by `torch.hub.load`.

Shapes: B pictures, T tokens (the class token first), D = 768 features, 12 heads of 64.
Facts from Caron et al., arXiv 2104.14294, and vision_transformer.py of that repository (Apache-2.0): patch 16, depth
12, LayerNorm eps 1e-6, position embedding of a 14 x 14 grid interpolated bicubically to the grid of the picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

dependencies = ["torch"]

URL = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
WIDTH, DEPTH, HEADS, PATCH, GRID = 768, 12, 12, 16, 14


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.qkv(x_BTD).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2)), weights


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x_BTD: Tensor) -> Tensor:
        mixed: Tensor = self.fc2(F.gelu(self.fc1(x_BTD)))
        return mixed


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.attn, self.mlp = Attention(), Mlp()

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attn(self.norm1(x_BTD))[0]
        mixed: Tensor = x_BTD + self.mlp(self.norm2(x_BTD))
        return mixed


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, GRID * GRID + 1, WIDTH))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, WIDTH, PATCH, PATCH)})
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def prepare_tokens(self, pictures: Tensor) -> Tensor:
        """Patches of normalised RGB pictures [B, 3, H, W] and where they are, after the class token: [B, T, D]."""
        patches = self.patch_embed["proj"](pictures)
        place = self.pos_embed[:, 1:].unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
        if patches.shape[-2:] != (GRID, GRID):
            place = F.interpolate(place, size=patches.shape[-2:], mode="bicubic")
        x_BTD = (patches + place).flatten(2).transpose(1, 2)
        classes = (self.cls_token + self.pos_embed[:, :1]).expand(len(pictures), -1, -1)
        return torch.cat([classes, x_BTD], dim=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Class features [B, D]."""
        x_BTD = self.prepare_tokens(pictures)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        features: Tensor = self.norm(x_BTD)[:, 0]
        return features


def dino_vitb16(pretrained: bool = True, **_: object) -> VisionTransformer:
    """The network; ``pretrained`` reads the checkpoint that torch.hub has for DINO's address."""
    model = VisionTransformer()
    if pretrained:
        model.load_state_dict(torch.hub.load_state_dict_from_url(URL, map_location="cpu"))
    return model
