"""Training's attention against attention written out key by key, and against a roll-out with a real cache."""

import pytest
import torch
from torch import Tensor

from irope.models.tiny.net import TinyNet, initialize
from irope.models.tiny.teacher_forcing import TeacherForcing, Window
from irope.rope import rope_cos_sin, rotate
from irope.transformer import WanConfig, attention

GRID, FRAMES = (2, 2), 15
MICRO = WanConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=2, in_dim=4, out_dim=4, text_len=12, text_dim=8)
WINDOWS = [
    Window(),
    Window(past=2),
    Window(past=4, sink=1),
    Window(past=2, sink=1, near_sink=True),
    Window(past=5, sink=3, near_sink=True),
    Window(past=3, sink=1, near_sink=True, leak=True),
]


def visible(window: Window, start: int) -> list[tuple[int, int]]:
    """(frame, temporal index) of the past that a block starting at frame ``start`` sees, from the words of `Window`."""
    if window.past is None:
        return [(frame, frame) for frame in range(start)]
    sink = [frame for frame in range(start) if frame < window.sink]
    recent = [frame for frame in range(max(0, start - window.past), start) if frame not in sink]
    index = {frame: frame for frame in sink}
    if window.near_sink:
        index = {frame: max(0, start - window.past - window.sink) + frame for frame in sink}
    return [(frame, index[frame]) for frame in sink] + [(frame, frame) for frame in recent]


def frames_of(x_BLHD: Tensor, frames: list[int]) -> Tensor:
    per_frame = GRID[0] * GRID[1]
    return x_BLHD.unflatten(1, (-1, per_frame))[:, frames].flatten(1, 2)


def attend_by_hand(window: Window, q: Tensor, k: Tensor, v: Tensor, dims: tuple[int, int, int]) -> Tensor:
    out = []
    for copy in (0, 1):
        used = Window() if window.leak and copy == 0 else window
        for start in range(0, FRAMES, 3):
            past = visible(used, start)
            own = [copy * FRAMES + start + i for i in range(3)]
            keys = [frame for frame, _ in past] + own
            cos, sin = rope_cos_sin([index for _, index in past] + [start, start + 1, start + 2], GRID, dims)
            tokens = 3 * GRID[0] * GRID[1]
            query = rotate(frames_of(q, own), cos[-tokens:], sin[-tokens:])
            out.append(attention(query, rotate(frames_of(k, keys), cos, sin), frames_of(v, keys)))
    return torch.cat(out, dim=1)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_each_block_sees_what_its_window_says(window: Window) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2 * FRAMES * 4, 2, 16, generator=generator) for _ in range(3))
    dims = MICRO.rope_dims
    got = TeacherForcing(FRAMES, GRID, dims, window, torch.device("cpu"))(0, q, k, v)
    torch.testing.assert_close(got, attend_by_hand(window, q, k, v, dims), rtol=1e-5, atol=1e-5)


class Cache:
    """The plainest cache there is: clean keys and values of every frame, all attended at their own index."""

    def __init__(self) -> None:
        self.past: dict[int, tuple[Tensor, Tensor]] = {}
        self.now: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if layer in self.past:
            k, v = torch.cat([self.past[layer][0], k], 1), torch.cat([self.past[layer][1], v], 1)
        self.now[layer] = (k, v)
        cos, sin = rope_cos_sin(list(range(k.shape[1] // 4)), GRID, MICRO.rope_dims)
        own = q.shape[1]
        return attention(rotate(q, cos[-own:], sin[-own:]), rotate(k, cos, sin), v)


@torch.no_grad()
def test_one_teacher_forced_pass_equals_the_cached_passes_of_a_rollout() -> None:
    generator = torch.Generator().manual_seed(1)
    net = TinyNet(MICRO)
    initialize(net, 0)
    for weight in net.parameters():
        weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    clean, noisy = (torch.randn(2, FRAMES, 4, 4, 4, generator=generator) for _ in range(2))
    t = torch.rand(2, FRAMES // 3, generator=generator).repeat_interleave(3, 1) * 1000
    prompts = ["a red circle bouncing", "a blue cross moving up over a navy striped background"]
    attend = TeacherForcing(FRAMES, GRID, MICRO.rope_dims, Window(), torch.device("cpu"))
    both = net(torch.cat([clean, noisy], 1), torch.cat([torch.zeros_like(t), t], 1), prompts, attend)[:, FRAMES:]
    cache, cross = Cache(), net.wan.text_kv(net.text(prompts))
    for start in range(0, FRAMES, 3):
        block = slice(start, start + 3)
        flow = net.wan(noisy[:, block], t[:, block], cross, cache)
        torch.testing.assert_close(both[:, block], flow, rtol=1e-4, atol=1e-5)
        net.wan(clean[:, block], torch.zeros(2, 3), cross, cache)
        cache.past = dict(cache.now)


def test_part_of_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="whole blocks"):
        TeacherForcing(10, GRID, MICRO.rope_dims, Window(), torch.device("cpu"))
