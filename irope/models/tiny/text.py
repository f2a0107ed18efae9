"""Prompts of the embedded world to text features: one learned vector a word, plus its position.

Shapes: B prompts, T text rows, E text width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from irope.world.scene import parse_prompt, vocabulary


class TinyTextEncoder(nn.Module):
    """Word embeddings plus positions; rows beyond the words are zero, as the published models leave theirs."""

    def __init__(self, text_len: int, text_dim: int, words: Sequence[str] = vocabulary()) -> None:
        super().__init__()
        self.text_len = text_len
        self.words = tuple(words)
        self._row = {word: index for index, word in enumerate(self.words)}
        self.word = nn.Parameter(torch.zeros(len(self.words), text_dim))
        self.position = nn.Parameter(torch.zeros(text_len, text_dim))

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """Features [B, T, E] in the dtype of the weights; raises PromptError for a prompt outside the world."""
        index, used = self.tokens(prompts)
        device = self.word.device
        return (self.word[index.to(device)] + self.position) * used.to(device, self.word.dtype)[..., None]

    def tokens(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Word indices [B, T] int64 and which rows hold a word [B, T] bool, of the prompts in canonical wording."""
        index = torch.zeros(len(prompts), self.text_len, dtype=torch.int64)
        used = torch.zeros(len(prompts), self.text_len, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            words = parse_prompt(prompt).prompt.split()
            index[row, : len(words)] = torch.tensor([self._row[word] for word in words])
            used[row, : len(words)] = True
        return index, used
