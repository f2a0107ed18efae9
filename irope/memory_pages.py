"""What memory pages are made of: weighted sums of pages, or the best of their tokens.

Shape letters: B batch, S tokens per latent frame, M tokens of several pages, N heads, K head dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from irope.policy import TokenScorer


def weighted_sum(pages: Sequence[Tensor], weights: Sequence[float], pool_tokens: bool) -> Tensor:
    """Sum of weight * page in float32, [layers, B, S, N, K]; with ``pool_tokens`` every token is the mean of all."""
    total = torch.stack([weight * page.float() for page, weight in zip(pages, weights, strict=True)]).sum(0)
    return total.mean(2, keepdim=True).expand_as(total) if pool_tokens else total


def best_tokens(
    k: Tensor, v: Tensor, ids: Tensor, wanted: int, scorer: TokenScorer, queries: Mapping[int, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The ``wanted`` best-scored tokens of every layer and video, in their order.

    Args:
        k, v: un-rotated keys and values [layers, B, M, N, K].
        ids: place of every token in the grid [layers, B, M].
        queries: un-rotated, of layers for which they are known.
    """
    scores = [scorer(layer, queries.get(layer), k[layer], v[layer]) for layer in range(len(k))]
    best = torch.stack([score.topk(wanted, dim=1).indices for score in scores]).sort(dim=2)[0]
    rows = best[..., None, None].expand(-1, -1, -1, *k.shape[3:])
    return k.gather(2, rows), v.gather(2, rows), ids.gather(2, best)
