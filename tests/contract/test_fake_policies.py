"""The plan interface carries policies it was not written for, and the KV arena executes any plan correctly.

Two policies from other papers that do not ship, each a formula: LoL (a rotary base per head) and Deep Forcing (the
best tokens per layer). They and all registered block-by-block policies then run on a small random transformer, and
every latent is compared with a roll-out written here from scratch: a dictionary of pages, rotation by complex numbers,
attention head by head.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest
import torch

from irope.policy import CacheEvent, CachePlan, CachePolicy, CacheView, Page, Select, split_window
from irope.registry import make_policy, policies
from irope.rollout import Rollout
from irope.sampler import Sampler
from irope.schedules import Denoise, Run, chunkwise
from irope.transformer import CausalWanTransformer, WanConfig

SWITCH, CUT = CacheEvent.PROMPT_SWITCH, CacheEvent.SCENE_CUT


@dataclass(frozen=True)
class LoL(CachePolicy):
    """Sink + window at absolute indices; every head has a rotary base of its own, drawn once."""

    window: int = 12
    sink: int = 3
    heads: int = 2
    spread: float = 0.8

    def plan(self, view):
        sink, past = split_window(view.frames, len(view.block), self.window, self.sink)
        draw = random.Random(0)
        theta = tuple(10000 * (1 + self.spread * draw.uniform(-1, 1)) for _ in range(self.heads))
        return CachePlan(sink + past, sink + past, view.block, head_theta=theta)


@dataclass(frozen=True)
class DeepForcing(CachePolicy):
    """Slots: sink | the best tokens of everything in between | recent | new, indices contiguous."""

    window: int = 12
    sink: int = 2
    recent: int = 4

    needs = frozenset({"queries"})

    def capacity(self, block):
        return self.window + 2 * block

    def scorer(self, layer, q, k, v):
        return torch.einsum("blnk,bmnk->bm", q, k)

    def plan(self, view):
        n = len(view.block)
        sink, rest = view.frames[: self.sink], view.frames[self.sink :]
        names = tuple(f"top{i}" for i in range(self.window - self.sink - self.recent - n))
        begun = tuple(page.id for page in view.pages if page.id in names)
        if not begun and len(view.frames) + n <= self.window:
            return CachePlan(view.frames, view.frames, view.block)
        select = Select(names, begun + rest[: -self.recent])
        slots = tuple(range(self.window))
        return CachePlan(sink + names + rest[-self.recent :], slots[:-n], slots[-n:], select=(select,))


FAKES = [LoL(), DeepForcing()]


# --- the integers ---------------------------------------------------------------------------------------------------


def plans_of(tools, policy, blocks):
    return [op.plan for op in chunkwise(policy, tools.Script(blocks), Run()) if isinstance(op, Denoise) and op.plan]


@pytest.mark.parametrize("policy", FAKES, ids=lambda policy: type(policy).__name__)
def test_nothing_is_read_before_it_is_written(tools, policy):
    for op, readable, held in tools.replay(chunkwise(policy, tools.Script(40), Run())):
        plan = getattr(op, "plan", None)
        if plan is not None:
            assert set(plan.read) | set(plan.retain) <= readable
        assert len(held) <= policy.capacity(3)


def test_lol_differs_from_a_rolling_window_in_its_bases_only(tools):
    rolling = make_policy("rolling", {"window": 12, "sink": 3})
    for plan, plain in zip(plans_of(tools, LoL(), 9), plans_of(tools, rolling, 9), strict=True):
        assert len(set(plan.head_theta)) == 2
        assert all(2000 <= theta <= 18000 for theta in plan.head_theta)
        assert {**vars(plan), "head_theta": None} == vars(plain)


def test_deep_forcing(tools):
    plans = plans_of(tools, DeepForcing(), 7)
    assert plans[3].select == ()
    tops = ("top0", "top1", "top2")
    assert plans[4] == CachePlan(
        (0, 1, *tops, 8, 9, 10, 11), tuple(range(9)), (9, 10, 11), select=(Select(tops, tuple(range(2, 8))),)
    )
    assert plans[5].select == (Select(tops, (*tops, 8, 9, 10)),)
    assert plans[5].read == (0, 1, *tops, 11, 12, 13, 14)


# --- the arena against a roll-out from scratch ------------------------------------------------------------------------

CONFIG = WanConfig(
    dim=40, ffn_dim=56, num_heads=2, num_layers=2, in_dim=3, out_dim=3, text_len=4, text_dim=10, freq_dim=16
)
FRAME = (3, 4, 6)  # channels, height, width: 2 x 3 tokens
GRID = (2, 3)
TOKENS = 6
SAMPLER = Sampler.from_nominal([1000, 500], 5.0)
BATCH = 2


@pytest.fixture(scope="module")
def model():
    model = CausalWanTransformer(CONFIG).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if "norm_" in name:  # sharp attention, so that it matters what is attended, and where it stands
                parameter.copy_(1.5 + 0.3 * noise)
            elif parameter.dim() > 1 and "modulation" not in name:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.5 + 0.3 * noise)
    return model


def texts(segment):
    return torch.randn(BATCH, 4, 10, generator=torch.Generator().manual_seed(100 + segment), dtype=torch.float64)


def noise(block, step):
    generator = torch.Generator().manual_seed(1000 * block + step)
    return torch.randn(BATCH, 3, *FRAME, generator=generator)


class Reference:
    """Pages in a dictionary, {page: {layer: (key, value, place in the grid of every token)}}; everything in float64."""

    def __init__(self):
        self.pages = {}
        self.queries = {}

    def begin(self, read, key_index, frames, query_index, theta=None, seen=None):
        self.read = list(zip(read, key_index, strict=True))
        self.own = list(zip(frames, query_index, strict=True))
        self.theta = theta or [10000.0] * CONFIG.num_heads
        self.seen = frames if seen is None else seen  # of the call's own frames, those that are attended
        self.store = ()

    def turn(self, x, index, place):
        """x [B, S, N, K] of one frame, rotated pair by pair as complex numbers."""
        heads = []
        for head, theta in enumerate(self.theta):
            axes = ((index * torch.ones_like(place), theta), (place // GRID[1], 10000.0), (place % GRID[1], 10000.0))
            angles = [
                position[..., None] * base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
                for (position, base), dim in zip(axes, CONFIG.rope_dims, strict=True)
            ]
            z = torch.complex(x[:, :, head, 0::2], x[:, :, head, 1::2]) * torch.exp(1j * torch.cat(angles, -1))
            heads.append(torch.stack([z.real, z.imag], -1).flatten(-2))
        return torch.stack(heads, 2)

    def __call__(self, layer, q, k, v):
        whole = torch.arange(TOKENS, dtype=torch.float64).expand(BATCH, -1)
        queries, keys, values = [], [], []
        for page, index in self.read:
            key, value, place = self.pages[page][layer]
            keys.append(self.turn(key, index, place))
            values.append(value)
        for i, (frame, index) in enumerate(self.own):
            at = slice(i * TOKENS, (i + 1) * TOKENS)
            queries.append(self.turn(q[:, at], index, whole))
            if frame in self.seen:
                keys.append(self.turn(k[:, at], index, whole))
                values.append(v[:, at])
            if frame in self.store:
                self.pages.setdefault(frame, {})[layer] = (k[:, at].clone(), v[:, at].clone(), whole)
        if self.store:
            self.queries[layer] = q.clone()
        queries, keys, values = torch.cat(queries, 1), torch.cat(keys, 1), torch.cat(values, 1)
        out = torch.zeros_like(queries)
        for b in range(BATCH):
            for head in range(CONFIG.num_heads):
                weights = torch.softmax(queries[b, :, head] @ keys[b, :, head].T / math.sqrt(CONFIG.head_dim), -1)
                out[b, :, head] = weights @ values[b, :, head]
        return out

    def merge(self, merge):
        self.pages[merge.page] = {}
        sources = {page: self.old[page] for page, _ in merge.terms}
        for layer in range(CONFIG.num_layers):
            parts = []
            for kind in (0, 1):
                total = sum(weight * sources[page][layer][kind] for page, weight in merge.terms)
                if merge.pool_tokens:
                    total = torch.stack([total.sum(1) / TOKENS] * TOKENS, 1)
                parts.append(total)
            self.pages[merge.page][layer] = (*parts, torch.arange(TOKENS, dtype=torch.float64).expand(BATCH, -1))

    def select(self, select, scorer):
        made = {page: {} for page in select.pages}
        for layer in range(CONFIG.num_layers):
            k, v, place = (torch.cat([self.old[page][layer][i] for page in select.sources], 1) for i in range(3))
            scores = scorer(layer, self.queries[layer], k, v)
            rows = []
            for b in range(BATCH):
                ranked = sorted(range(k.shape[1]), key=lambda token, b=b: -scores[b, token].item())
                rows.append(sorted(ranked[: TOKENS * len(select.pages)]))
            for i, page in enumerate(select.pages):
                pick = [row[i * TOKENS : (i + 1) * TOKENS] for row in rows]
                made[page][layer] = tuple(torch.stack([x[b, pick[b]] for b in range(BATCH)]) for x in (k, v, place))
        self.pages |= made

    def plan(self, plan, policy):
        self.old = dict(self.pages)
        for merge in plan.merge:
            self.merge(merge)
            self.old |= {merge.page: self.pages[merge.page]}
        for select in plan.select:
            self.select(select, policy.scorer)
        self.pages = {page: self.pages[page] for page in (*plan.read, *plan.retain)}


@torch.no_grad()
def reference_rollout(model, policy, script):
    reference, latents, prompt = Reference(), {}, None
    held = ()  # pages as the policy sees them
    for block in range(script.blocks):
        frames = tuple(range(3 * block, 3 * block + 3))
        segment = script.segment(block)
        prompt = model.text_kv(texts(segment))
        view = CacheView(held, frames, script.event(block), segment)
        plan = policy.plan(view)
        again = plan.recompute
        if again is not None:
            reference.begin(again.read, again.key_index, again.frames, again.index, seen=again.store)
            reference.store = again.store
            x = torch.stack([latents[frame] for frame in again.frames], 1)
            model(x, torch.zeros(BATCH, len(again.frames)), prompt, reference)
        reference.plan(plan, policy)
        reference.begin(plan.read, plan.key_index, frames, plan.query_index, plan.head_theta)
        x = noise(block, 0).double()
        for step, (t, sigma) in enumerate(zip(SAMPLER.timesteps, SAMPLER.sigmas, strict=True)):
            x0 = x - sigma * model(x, torch.full((BATCH, 3), t), prompt, reference)
            if step + 1 < SAMPLER.steps:
                x = (1 - SAMPLER.sigmas[step + 1]) * x0 + SAMPLER.sigmas[step + 1] * noise(block, step + 1)
        reference.store = frames
        model(x0, torch.zeros(BATCH, 3), prompt, reference)
        latents |= {frame: x0[:, i] for i, frame in enumerate(frames)}
        names = sorted(page for page in reference.pages if isinstance(page, str))
        held = tuple(map(Page, names + sorted(page for page in reference.pages if isinstance(page, int))))
    return torch.stack([latents[frame] for frame in sorted(latents)], 1)


def arena_rollout(model, policy, script):
    rollout = Rollout(model, policy, script, SAMPLER, texts, noise, FRAME, batch=BATCH)
    return torch.cat([block.latents for block in rollout], 1)


REAL = {
    "infinity_rope": [
        {},
        {"compat": "paper"},
        {"window": 12, "sink_index": "attached", "cut_mode": "offset"},
        {"window": 15, "f0": 6},
    ],
    "kv_recache": [{}, {"index": "relative"}, {"sink_at_switch": "renewed"}, {"window": 6, "sink": 1}],
    "rolling": [{"window": 6}, {"window": 9, "sink": 2}],
    "full": [{"window": 33}],
    "memrope": [{}, {"window": 9, "long_rate": 0.5}, {"window": 15, "sink": 1}, {"window": 6, "sink": 0}],
    "rolling_sink": [
        {},
        {"window": 12, "sink": 6},
        {"window": 12, "sink": 9, "recent": 0},
        {"window": 13, "sink": 6, "recent": 4},
    ],
}
CASES = [
    *FAKES,
    *(
        make_policy(name, values)
        for name, policy in policies().items()
        if policy.schedule == "chunkwise"
        for values in REAL.get(name, [{}])
    ),
]


@pytest.mark.parametrize("policy", CASES, ids=lambda policy: f"{type(policy).__name__}-{policy.window}-{policy.sink}")
def test_the_arena_executes_plans_like_plain_concatenation(tools, model, policy):
    script = tools.Script(11, {5: SWITCH, 7: CUT, 9: SWITCH})
    expected = reference_rollout(model, policy, script)
    got = arena_rollout(model, policy, script)
    # float64 but for cosine, sine, merging and renoising, which the runtime rounds to float32
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_the_comparison_would_notice(tools, model):
    """Each of these changes what is generated, so agreement above is no accident."""
    script = tools.Script(11)
    others = [make_policy("rolling", {"window": 12, "sink": 3}), make_policy("memrope"), make_policy("rolling_sink")]
    runs = [arena_rollout(model, policy, script) for policy in (*others, *FAKES)]
    for i, one in enumerate(runs):
        for other in runs[:i]:
            assert (one - other)[:, 24:].abs().max() > 1e-3  # a hundred times the tolerance
