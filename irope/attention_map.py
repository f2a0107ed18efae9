"""Frame-to-frame attention of a roll-out: how much of a frame's attention goes to which frame of the video.

∞-RoPE's supplement G takes one layer and one denoising step, averages the heads and sums the softmax over all token
pairs of a frame pair. A row printed that way sums to the tokens of a frame; here it is divided by them, so that a row
is a distribution: rows sum to 1.

Shape letters: T frames of the video, N heads, S tokens per frame, L = query tokens, M = key tokens, K head dimension.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irope.cache import Probe
from irope.errors import UserError
from irope.policy import CachePlan
from irope.provenance import write_atomic
from irope.schedules import Denoise

Maps = NDArray[np.float32]


class AttentionMapError(UserError, ValueError):
    """A layer or step that the model does not have."""


def frame_attention(q_LNK: Tensor, k_MNK: Tensor, tokens: int) -> Tensor:
    """Share of every query frame's attention that goes to every key frame: float32 [N, L / S, M / S] on the CPU.

    Softmax of q·k / sqrt(K) over all keys, summed over the tokens of a key frame and averaged over those of a query
    frame. One head and one query frame at a time: the largest array held is [S, M].

    Args:
        tokens: S.
    """
    scale = q_LNK.shape[-1] ** -0.5
    queries_NFSK = q_LNK.float().movedim(1, 0).unflatten(1, (-1, tokens))
    keys_NKM = k_MNK.float().permute(1, 2, 0)
    rows = [
        torch.softmax(frame_SK @ keys_KM * scale, dim=-1).mean(0).unflatten(0, (-1, tokens)).sum(-1)
        for queries_FSK, keys_KM in zip(queries_NFSK, keys_NKM, strict=True)
        for frame_SK in queries_FSK
    ]
    return torch.stack(rows).unflatten(0, queries_NFSK.shape[:2]).cpu()


@dataclass
class AttentionRecorder:
    """Fills a T x T map while a video is rolled out (`irope.rollout.Rollout.watch`); the frames stay the same bits.

    Rows are query frames, columns key frames, both by their true numbers in the video, whatever their temporal index.
    A pair that was not attended is NaN. A page read twice counts twice. Memory pages, which hold merged frames or
    tokens selected from several, stand for no frame: what goes to them is in ``memory``, so that the numbers of a row
    and its ``memory`` add up to 1. Frames that a recache encoded again count as themselves. Where several blocks are
    denoised together (Rolling Forcing), a frame also attends to later ones. Of a batch, the first video is recorded.

    Attributes:
        frames: T.
        layers, steps: what the model has.
        tokens: S.
        layer: 1 is the first; ``all`` averages over the layers.
        step: denoising step, 1 is the noisiest.
        heads: 1 for the mean over the heads; else the model's number of heads, each recorded apart.
        maps: float32 [heads, T, T]; ``memory`` float32 [heads, T].
    """

    frames: int
    layers: int
    steps: int
    tokens: int
    layer: int | Literal["all"]
    step: int
    heads: int = 1
    maps: Maps = field(init=False, repr=False)
    memory: Maps = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.layer != "all":
            check_in("layer", self.layer, self.layers, "layers", ", or all")
        check_in("step", self.step, self.steps, "denoising steps")
        self.maps = np.full((self.heads, self.frames, self.frames), np.nan, dtype=np.float32)
        self.memory = np.zeros((self.heads, self.frames), dtype=np.float32)

    def __call__(self, op: Denoise, plan: CachePlan, /) -> Probe | None:
        """The probe of a denoising call, or None where no block of the call is at the wanted step."""
        if self.step - 1 not in op.levels:
            return None
        size = len(op.frames) // len(op.levels)
        # A schedule that restarts numbers frames within its cache; the noise is numbered within the video.
        offset = op.noise_block * size - op.frames[0]
        first = op.levels.index(self.step - 1) * size
        queries = slice(first, first + size)
        rows = np.asarray(op.frames[queries]) + offset
        pages = [page + offset if isinstance(page, int) else None for page in (*plan.read, *op.frames)]
        wanted = range(self.layers) if self.layer == "all" else (self.layer - 1,)
        self._clear(rows, [page for page in pages if page is not None])

        def probe(layer: int, q_BLNK: Tensor, k_BMNK: Tensor) -> None:
            if layer not in wanted:
                return
            q_LNK = q_BLNK[0, queries.start * self.tokens : queries.stop * self.tokens]
            share = frame_attention(q_LNK, k_BMNK[0], self.tokens).numpy() / len(wanted)
            self._add(rows, pages, share if self.heads > 1 else share.mean(0, keepdims=True))

        return probe

    def _clear(self, rows: NDArray[np.int64], columns: list[int]) -> None:
        self.maps[:, rows] = np.nan
        self.maps[:, rows[:, None], columns] = 0
        self.memory[:, rows] = 0

    def _add(self, rows: NDArray[np.int64], pages: list[int | None], share_NFP: NDArray[np.floating[Any]]) -> None:
        for place, page in enumerate(pages):
            if page is None:
                self.memory[:, rows] += share_NFP[:, :, place]
            else:
                self.maps[:, rows, page] += share_NFP[:, :, place]


def check_in(what: str, value: int, most: int, things: str, also: str = "") -> None:
    """Raise `AttentionMapError` unless 1 <= value <= most, naming the nearest valid value."""
    if not isinstance(value, int) or not 1 <= value <= most:
        nearest = min(max(value, 1), most) if isinstance(value, int) else 1
        raise AttentionMapError(
            f"{what}={value}: the model has {most} {things}, counted from 1; nearest valid: {what}={nearest}{also}"
        )


def shares(map_TT: Maps, sink: int, block: int, events: list[tuple[int, str]]) -> list[dict[str, Any]]:
    """Where the attention of each segment goes, as means over its rows after the first ``2 * block`` frames.

    Returns:
        For every segment: its frames, the share on the ``sink`` first frames of the video, on the frame's own block,
        on the past in between (``old`` of it: frames of an earlier segment), the share that the sink would have if
        attention were even over the frames attended, and the same shares for the block at the event alone.
    """
    edges = [0, *(frame for frame, _ in events), len(map_TT)]
    found = []
    for start, stop in pairwise(edges):
        settled = range(start + (2 * block if start == 0 else 0), stop)
        entry: dict[str, Any] = {"start": start, "stop": stop, **_shares(map_TT, settled, sink, block, start)}
        if start:
            entry["first_block"] = _shares(map_TT, range(start, min(stop, start + block)), sink, block, start)
        found.append(entry)
    return found


def _shares(map_TT: Maps, rows: range, sink: int, block: int, start: int) -> dict[str, float]:
    sums = {"sink": 0.0, "past": 0.0, "old": 0.0, "own": 0.0, "even_sink": 0.0}
    for row in rows:
        begin = row // block * block
        values = np.nan_to_num(map_TT[row])
        attended = np.isfinite(map_TT[row])
        sums["sink"] += float(values[:sink].sum())
        sums["past"] += float(values[sink:begin].sum())
        sums["old"] += float(values[sink:start].sum())
        sums["own"] += float(values[begin : begin + block].sum())
        sums["even_sink"] += float(attended[:sink].sum() / max(1, attended.sum()))
    return {name: round(total / max(1, len(rows)), 4) for name, total in sums.items()}


def save_maps(path: Path, maps: Maps, memory: Maps, info: Mapping[str, Any]) -> None:
    """Write ``maps`` [n, T, T], ``memory`` [n, T] and ``info`` (a JSON string) as an npz file, or nothing."""
    file = io.BytesIO()
    np.savez_compressed(file, maps=maps, memory=memory, info=np.array(json.dumps(info, ensure_ascii=False)))
    write_atomic(path, file.getvalue())


def load_maps(path: Path) -> tuple[Maps, Maps, dict[str, Any]]:
    """(maps [n, T, T], memory [n, T], info) of `save_maps`.

    Raises:
        AttentionMapError: the file is not one of these.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["maps"], file["memory"], json.loads(str(file["info"]))
    except (OSError, ValueError, KeyError) as error:
        raise AttentionMapError(f"{path} holds no attention maps ({error}); run: irope run attention_maps") from error
