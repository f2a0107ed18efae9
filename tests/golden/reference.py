"""A second generator, written from the published description alone: numpy, float64, explicit loops, no cache.

Every block lists the earlier frames it sees, with their temporal indices, and their keys are rotated again in every
call. Slow and plain on purpose; it shares no code with `irope`.

Shapes: F frames, S tokens per frame, D width, N heads, K head dimension, P channel pairs of a head.
"""

import math
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray


@dataclass
class Frame:
    """Clean keys (not rotated) and values of one latent frame: [S, N, K] per layer."""

    keys: list[Array] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """One earlier frame that a call attends to: its number and its temporal index."""

    frame: int
    index: int


class Reference:
    """The generator of a state dict; ``heads`` and the patch (1, 2, 2) are all it needs besides the weights."""

    def __init__(self, weights: dict[str, Array], heads: int) -> None:
        self.weights = {key: value.astype(np.float64) for key, value in weights.items()}
        self.heads = heads
        self.layers = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("blocks."))

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def rms_norm(self, name: str, x: Array) -> Array:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * self.weights[f"{name}.weight"]

    def split(self, x: Array) -> Array:
        return x.reshape(len(x), self.heads, -1)

    def flow(
        self, x: Array, t: float, text: Array, index: list[int], past: list[tuple[Frame, int]], unseen: int = 0
    ) -> tuple[Array, list[Frame]]:
        """Flow [F, C, H, W] of frames at timestep ``t``, and the keys and values of those frames.

        Nobody attends to the first ``unseen`` frames of the call, which is how LongLive encodes its window again.
        """
        frames, channels, height, width = x.shape
        rows, columns = height // 2, width // 2
        tokens = []
        for f in range(frames):
            for r in range(rows):
                for c in range(columns):
                    patch = x[f, :, None, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2]
                    tokens.append((self.weights["patch_embedding.weight"] * patch).sum((1, 2, 3, 4)))
        h = np.stack(tokens) + self.weights["patch_embedding.bias"]

        half = self.weights["time_embedding.0.weight"].shape[1] // 2
        angle = t * 10000.0 ** (-np.arange(half) / half)
        e = silu(self.linear("time_embedding.0", np.concatenate([np.cos(angle), np.sin(angle)])))
        e = self.linear("time_embedding.2", e)
        e6 = self.linear("time_projection.1", silu(e)).reshape(6, -1)
        prompt = self.linear("text_embedding.2", gelu(self.linear("text_embedding.0", text)))

        made = [Frame() for _ in range(frames)]
        size = rows * columns
        for layer in range(self.layers):
            name = f"blocks.{layer}"
            shift1, scale1, gate1, shift2, scale2, gate2 = self.weights[f"{name}.modulation"][0] + e6
            y = layer_norm(h) * (1 + scale1) + shift1
            q = self.split(self.rms_norm(f"{name}.self_attn.norm_q", self.linear(f"{name}.self_attn.q", y)))
            k = self.split(self.rms_norm(f"{name}.self_attn.norm_k", self.linear(f"{name}.self_attn.k", y)))
            v = self.split(self.linear(f"{name}.self_attn.v", y))
            for f, frame in enumerate(made):
                frame.keys.append(k[f * size : (f + 1) * size])
                frame.values.append(v[f * size : (f + 1) * size])
            visible = [*past, *list(zip(made, index, strict=True))[unseen:]]
            keys = np.concatenate([turn(frame.keys[layer], at, columns) for frame, at in visible])
            values = np.concatenate([frame.values[layer] for frame, _ in visible])
            queries = np.concatenate([turn(q[f * size : (f + 1) * size], at, columns) for f, at in enumerate(index)])
            h = h + gate1 * self.linear(f"{name}.self_attn.o", attend(queries, keys, values))
            y = layer_norm(h) * self.weights[f"{name}.norm3.weight"] + self.weights[f"{name}.norm3.bias"]
            q = self.split(self.rms_norm(f"{name}.cross_attn.norm_q", self.linear(f"{name}.cross_attn.q", y)))
            k = self.split(self.rms_norm(f"{name}.cross_attn.norm_k", self.linear(f"{name}.cross_attn.k", prompt)))
            v = self.split(self.linear(f"{name}.cross_attn.v", prompt))
            h = h + self.linear(f"{name}.cross_attn.o", attend(q, k, v))
            y = layer_norm(h) * (1 + scale2) + shift2
            h = h + gate2 * self.linear(f"{name}.ffn.2", gelu(self.linear(f"{name}.ffn.0", y)))
        shift, scale = self.weights["head.modulation"][0] + e
        out = self.linear("head.head", layer_norm(h) * (1 + scale) + shift)
        flow = np.zeros_like(x)
        for f in range(frames):
            for r in range(rows):
                for c in range(columns):
                    patch = out[(f * rows + r) * columns + c].reshape(2, 2, channels)
                    flow[f, :, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2] = patch.transpose(2, 0, 1)
        return flow, made


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def layer_norm(x: Array) -> Array:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def attend(q: Array, k: Array, v: Array) -> Array:
    """[L, N, K] queries against [M, N, K] keys, head by head -> [L, N*K]."""
    heads = []
    for n in range(q.shape[1]):
        logits = q[:, n] @ k[:, n].T / math.sqrt(q.shape[2])
        weights = np.exp(logits - logits.max(1, keepdims=True))
        heads.append(weights / weights.sum(1, keepdims=True) @ v[:, n])
    return np.concatenate(heads, axis=1)


def turn(x: Array, index: int, columns: int) -> Array:
    """Rotate the tokens [S, N, K] of one frame: first the pairs of time, then those of row and column."""
    size = x.shape[2]
    space = 2 * (size // 6)
    out = np.empty_like(x)
    for token in range(len(x)):
        pair = 0
        for position, width in ((index, size - 2 * space), (token // columns, space), (token % columns, space)):
            for j in range(width // 2):
                angle = position * 10000.0 ** (-2 * j / width)
                a, b = x[token, :, 2 * pair], x[token, :, 2 * pair + 1]
                out[token, :, 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
                out[token, :, 2 * pair + 1] = a * math.sin(angle) + b * math.cos(angle)
                pair += 1
    return out


def roll_out(
    model: Reference,
    noise: Array,
    renoise: Array,
    texts: list[Array],
    steps: list[float],
    seen: list[list[Seen]],
    own: list[list[int]],
    again: dict[int, tuple[list[int], list[int], list[Seen]]] | None = None,
) -> Array:
    """Clean latents [frames, C, H, W].

    Args:
        noise: [frames, C, H, W]; renoise: [block, step, block frames, C, H, W].
        texts: prompt of every block; ``steps``: timesteps, noise share = t/1000.
        seen, own: what every block attends to besides itself, and the indices of its own frames.
        again: block -> (frames encoded again first, their indices, old frames they see besides). As many of the first
            frames as there are old ones are encoded but neither seen nor stored.
    """
    size = renoise.shape[2]
    cache: dict[int, Frame] = {}
    video: list[Array] = []
    for b in range(len(seen)):
        if again and b in again:
            frames, index, read = again[b]
            past = [(cache[s.frame], s.index) for s in read]
            _, made = model.flow(np.stack([video[f] for f in frames]), 0.0, texts[b], index, past, unseen=len(read))
            cache |= dict(zip(frames[len(read) :], made[len(read) :], strict=True))
        past = [(cache[s.frame], s.index) for s in seen[b]]
        x = noise[b * size : (b + 1) * size]
        for j, t in enumerate(steps):
            v, _ = model.flow(x, t, texts[b], own[b], past)
            x0 = x - t / 1000 * v
            if j + 1 < len(steps):
                x = (1 - steps[j + 1] / 1000) * x0 + steps[j + 1] / 1000 * renoise[b, j]
        _, made = model.flow(x0, 0.0, texts[b], own[b], past)
        cache |= {b * size + f: frame for f, frame in enumerate(made)}
        video += list(x0)
    return np.stack(video)
