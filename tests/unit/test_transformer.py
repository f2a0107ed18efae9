"""The causal transformer against diffusers' WanTransformer3DModel, on tiny random weights renamed key by key."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor

from irope import rope
from irope.projections import AttentionProjections, RMSNorm
from irope.transformer import CausalWanTransformer, Store, WanConfig, attention
from tests.diffusers_kit import import_diffusers

CONFIG = WanConfig(dim=48, ffn_dim=80, num_heads=2, num_layers=3, in_dim=4, out_dim=4, text_dim=20, freq_dim=32)
ROWS, COLUMNS = 2, 3
TOLERANCE = 5e-5  # float32; half of a difference of 1e-5 comes from diffusers' float32 time sinusoid at t = 1000

RENAMED = [  # published name -> diffusers name; the two swap the numbers of the second and third norm
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^head\.head\.", "proj_out."),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"\.modulation$", ".scale_shift_table"),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.(attn\d)\.([qkv])\.", r".\1.to_\2."),
    (r"\.(attn\d)\.o\.", r".\1.to_out.0."),
    (r"\.norm3\.", ".norm2."),
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
]


def diffusers_name(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def randomise(model: torch.nn.Module) -> None:
    """Weights large enough that every part of the model matters."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.3 * noise)
            elif parameter.dim() > 1 and "modulation" not in name:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.3 * noise)


@pytest.fixture(scope="module")
def ours() -> CausalWanTransformer:
    model = CausalWanTransformer(CONFIG).eval()
    randomise(model)
    return model


@pytest.fixture(scope="module")
def theirs(ours):
    diffusers = import_diffusers()
    model = diffusers.WanTransformer3DModel(
        patch_size=CONFIG.patch_size,
        num_attention_heads=CONFIG.num_heads,
        attention_head_dim=CONFIG.head_dim,
        in_channels=CONFIG.in_dim,
        out_channels=CONFIG.out_dim,
        text_dim=CONFIG.text_dim,
        freq_dim=CONFIG.freq_dim,
        ffn_dim=CONFIG.ffn_dim,
        num_layers=CONFIG.num_layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        eps=CONFIG.eps,
    ).eval()
    model.load_state_dict({diffusers_name(name): value for name, value in ours.state_dict().items()}, strict=True)
    return model


class Cache:
    """The plainest self-attention with a memory: rotate at the given indices, put the stored keys in front."""

    def __init__(self, index: list[int], config: WanConfig = CONFIG) -> None:
        self.angles = rope.rope_cos_sin(index, (ROWS, COLUMNS), config.rope_dims)
        self.stored: dict[int, tuple[Tensor, Tensor]] = {}
        self.past: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = rope.rotate(q, *self.angles), rope.rotate(k, *self.angles)
        if layer in self.past:
            k, v = torch.cat([self.past[layer][0], k], 1), torch.cat([self.past[layer][1], v], 1)
        self.stored[layer] = (k, v)
        return attention(q, k, v)


def inputs(frames: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Latents [B, F, C, H, W] and text [B, 7, 20], the last rows of it zero as behind a short prompt."""
    generator = torch.Generator().manual_seed(frames)
    text = torch.randn(batch, 7, CONFIG.text_dim, generator=generator)
    text[:, 5:] = 0
    return torch.randn(batch, frames, CONFIG.in_dim, 2 * ROWS, 2 * COLUMNS, generator=generator), text


@torch.no_grad()
def run_theirs(model, x: Tensor, t_BF: Tensor, text: Tensor) -> Tensor:
    per_token = t_BF.repeat_interleave(ROWS * COLUMNS, dim=1)
    return model(x.transpose(1, 2), per_token, text, return_dict=False)[0].transpose(1, 2)


@torch.no_grad()
@pytest.mark.parametrize("t", [0.0, 625.0, 1000.0])
def test_one_block(ours, theirs, t):
    x, text = inputs(3)
    t_BF = torch.full((2, 3), t)
    result = ours(x, t_BF, ours.text_kv(text), Cache([0, 1, 2]))
    assert 0.3 < result.std() < 3
    torch.testing.assert_close(result, run_theirs(theirs, x, t_BF, text), rtol=0, atol=TOLERANCE)
    # and against the ordinary call with one timestep per video
    plain = theirs(x.transpose(1, 2), t_BF[:, 0], text, return_dict=False)[0].transpose(1, 2)
    torch.testing.assert_close(result, plain, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_mixed_timesteps_in_one_call(ours, theirs):
    """Rolling Forcing: every frame at its own noise level."""
    x, text = inputs(5)
    t_BF = torch.tensor([[555.556, 769.231, 882.353, 952.381, 1000.0], [0.0, 250.0, 500.0, 750.0, 999.0]])
    result = ours(x, t_BF, ours.text_kv(text), Cache([0, 1, 2, 3, 4]))
    torch.testing.assert_close(result, run_theirs(theirs, x, t_BF, text), rtol=0, atol=TOLERANCE)
    level = t_BF[:, :1].expand(2, 5)
    assert (result - ours(x, level, ours.text_kv(text), Cache([0, 1, 2, 3, 4]))).abs().max() > 0.05


@torch.no_grad()
def test_two_blocks_with_a_cache_equal_one_call_with_a_block_causal_mask(ours, theirs):
    from diffusers.models.transformers.transformer_wan import WanAttnProcessor

    class BlockCausal(WanAttnProcessor):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
            if encoder_hidden_states is None:
                block = torch.arange(6).repeat_interleave(ROWS * COLUMNS) // 3
                attention_mask = block[:, None] >= block[None, :]
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)

    x, text = inputs(6)
    t_BF = torch.tensor([[0.0] * 3 + [833.333] * 3] * 2)
    before = theirs.attn_processors
    theirs.set_attn_processor(BlockCausal())
    reference = run_theirs(theirs, x, t_BF, text)
    theirs.set_attn_processor(before)

    cross = ours.text_kv(text)
    context, block = Cache([0, 1, 2]), Cache([3, 4, 5])
    first = ours(x[:, :3], t_BF[:, :3], cross, context)
    block.past = context.stored
    second = ours(x[:, 3:], t_BF[:, 3:], cross, block)
    torch.testing.assert_close(torch.cat([first, second], 1), reference, rtol=0, atol=TOLERANCE)
    assert (reference - run_theirs(theirs, x, t_BF, text)).abs().max() > 0.05  # the mask matters


@torch.no_grad()
def test_videos_of_a_batch_do_not_meet(ours):
    x, text = inputs(3)
    t = torch.tensor([[0.0, 0.0, 0.0], [1000.0, 500.0, 0.0]])
    both = ours(x, t, ours.text_kv(text), Cache([0, 1, 2]))
    for i in (slice(0, 1), slice(1, 2)):
        alone = ours(x[i], t[i], ours.text_kv(text[i]), Cache([0, 1, 2]))
        torch.testing.assert_close(both[i], alone, rtol=0, atol=TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("modulation_float32", [False, True])
def test_bfloat16_stays_near_float32(ours, modulation_float32):
    values = {**vars(CONFIG), "modulation_float32": modulation_float32}
    half = CausalWanTransformer(WanConfig(**values)).eval()
    half.load_state_dict(ours.state_dict())
    half = half.to(torch.bfloat16)
    x, text = inputs(3)
    t = torch.tensor([[1000.0, 625.0, 0.0]] * 2)
    wide = ours(x, t, ours.text_kv(text), Cache([0, 1, 2]))
    narrow = half(x, t, half.text_kv(text), Cache([0, 1, 2]))
    assert narrow.dtype == torch.bfloat16
    assert narrow.isfinite().all()
    assert (narrow - wide).pow(2).mean().sqrt() / wide.pow(2).mean().sqrt() < 0.03


@torch.no_grad()
def test_fused_weights_are_the_same_model(ours):
    """Names, values and bytes stay; it can be trained, moved and copied like any other."""
    x, text = inputs(3)
    t = torch.tensor([[1000.0, 625.0, 0.0]] * 2)
    wanted = ours(x, t, ours.text_kv(text), Cache([0, 1, 2]))
    model = copy.deepcopy(ours)
    names = list(model.state_dict())
    model.fuse()
    attention = model.blocks[1].self_attn
    assert len({getattr(attention, part).weight.untyped_storage().data_ptr() for part in "qkv"}) == 1
    assert list(model.state_dict()) == names
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(model(x, t, model.text_kv(text), Cache([0, 1, 2])), wanted, rtol=0, atol=1e-5)

    def follows(changed: CausalWanTransformer) -> bool:
        """A change of one parameter by its name shows in what is made."""
        before = changed(x, t, changed.text_kv(text), Cache([0, 1, 2]))
        changed.blocks[1].self_attn.k.weight.mul_(1.5)
        return not torch.equal(changed(x, t, changed.text_kv(text), Cache([0, 1, 2])), before)

    assert follows(copy.deepcopy(model))
    assert follows(model)
    moved = model.double().float()
    assert follows(moved)
    moved.fuse()
    assert follows(moved)
    moved.load_state_dict(ours.state_dict())
    torch.testing.assert_close(moved(x, t, moved.text_kv(text), Cache([0, 1, 2])), wanted, rtol=0, atol=1e-5)
    with torch.enable_grad():
        moved(x, t, moved.text_kv(text), Cache([0, 1, 2])).sum().backward()
    assert moved.blocks[0].self_attn.v.weight.grad.abs().max() > 0


@torch.no_grad()
def test_timesteps_are_prepared_once(ours):
    x, text = inputs(3)
    cross = ours.text_kv(text)
    wanted = ours(x, torch.full((2, 3), 625.0), cross, Cache([0, 1, 2]))
    shared = ours.times(torch.tensor([[625.0]]))
    assert shared.layers[0][0].shape == (1, 1, 1, CONFIG.dim)
    torch.testing.assert_close(ours(x, shared, cross, Cache([0, 1, 2])), wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_storing_ends_at_the_last_keys_and_values(ours):
    class Keep(Cache, Store):
        def attend_projected(self, layer: int, y: Tensor, projections: AttentionProjections) -> Tensor:
            return self(layer, *projections.split(y))

        def store_projected(self, layer: int, y: Tensor, projections: AttentionProjections) -> None:
            self.last = layer
            self.attend_projected(layer, y, projections)

    x, text = inputs(3)
    t, cross = torch.zeros(2, 3), ours.text_kv(text)
    whole, kept = Keep([0, 1, 2]), Keep([0, 1, 2])
    ours(x, t, cross, whole)
    ours.store(x, t, cross, kept)
    assert kept.last == CONFIG.num_layers - 1
    for layer in range(CONFIG.num_layers):
        assert all(torch.equal(a, b) for a, b in zip(whole.stored[layer], kept.stored[layer], strict=True))


def test_rmsnorm_rounds_twice():
    """Normalise in float32, round to bfloat16, then multiply: not the same as rounding once at the end."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 96, generator=generator).bfloat16()
    weight = (1 + 0.3 * torch.randn(96, generator=generator)).bfloat16()
    norm = RMSNorm(96, 1e-6).bfloat16()
    with torch.no_grad():
        norm.weight.copy_(weight)
    wide = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    twice = wide.bfloat16() * weight
    once = (wide * weight.double()).bfloat16()
    got = norm(x)
    assert got.dtype == torch.bfloat16
    assert (got != twice).float().mean() < 1e-3  # float32 against float64 at a tie
    assert (got != once).float().mean() > 0.1


def test_published_state_dict():
    with torch.device("meta"):
        state = CausalWanTransformer(WanConfig()).state_dict()
    assert len(state) == 825
    assert sum(value.numel() for value in state.values()) == 1_418_996_800

    linear = {"weight": (1536, 1536), "bias": (1536,)}
    expected = {
        "patch_embedding.weight": (1536, 16, 1, 2, 2),
        "patch_embedding.bias": (1536,),
        "text_embedding.0.weight": (1536, 4096),
        "text_embedding.0.bias": (1536,),
        "time_embedding.0.weight": (1536, 256),
        "time_embedding.0.bias": (1536,),
        "time_projection.1.weight": (9216, 1536),
        "time_projection.1.bias": (9216,),
        "head.head.weight": (64, 1536),
        "head.head.bias": (64,),
        "head.modulation": (1, 2, 1536),
    }
    expected |= {f"{part}.2.{end}": linear[end] for part in ("text_embedding", "time_embedding") for end in linear}
    for i in range(30):
        block = f"blocks.{i}"
        for part in ("self_attn", "cross_attn"):
            expected |= {f"{block}.{part}.{x}.{end}": linear[end] for x in "qkvo" for end in linear}
            expected |= {f"{block}.{part}.norm_{x}.weight": (1536,) for x in "qk"}
        expected |= {f"{block}.norm3.{end}": (1536,) for end in ("weight", "bias")}
        expected |= {f"{block}.ffn.0.weight": (8960, 1536), f"{block}.ffn.0.bias": (8960,)}
        expected |= {f"{block}.ffn.2.weight": (1536, 8960), f"{block}.ffn.2.bias": (1536,)}
        expected[f"{block}.modulation"] = (1, 6, 1536)
    assert {name: tuple(value.shape) for name, value in state.items()} == expected


def test_configuration():
    published = {"_class_name": "WanModel", "dim": 1536, "num_heads": 12, "model_type": "t2v", "patch_size": [1, 2, 2]}
    assert WanConfig.from_dict(published) == WanConfig()
    assert WanConfig().head_dim == 128
    assert WanConfig().grid(60, 104) == (30, 52)
    with pytest.raises(ValueError, match="61x104 is not a whole number of 2x2 patches"):
        WanConfig().grid(61, 104)
    with pytest.raises(ValueError, match="dim 100 is not divisible by num_heads 12"):
        WanConfig(dim=100)
