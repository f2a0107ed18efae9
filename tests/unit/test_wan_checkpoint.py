"""Published checkpoints: every nesting, naming and sharding gives the same weights; what does not fit is named."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from irope import rope
from irope.errors import WeightsError
from irope.models.wan.checkpoint import Weights, check, load_into, open_weights
from irope.models.wan.layout import weight_files
from irope.models.wan.lora import read_lora
from irope.models.wan.model import empty_transformer
from irope.models.wan.names import unwrapped
from irope.transformer import CausalWanTransformer, attention
from tests.wan_kit import (
    FORMATS,
    GEOMETRY,
    Tensors,
    diffusers_model,
    other,
    random_state,
    save_pt,
    save_safetensors,
    save_shards,
    write_config,
)

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture
def state() -> Tensors:
    return random_state()


@pytest.fixture
def empty(tmp_path: Path) -> CausalWanTransformer:
    return empty_transformer(write_config(tmp_path / "config.json"))


@pytest.fixture
def wanted(empty: CausalWanTransformer) -> Shapes:
    return {name: tuple(parameter.shape) for name, parameter in empty.named_parameters()}


def loaded(weights: Weights, model: CausalWanTransformer, dtype: torch.dtype = torch.float32) -> Tensors:
    check(weights, {name: tuple(parameter.shape) for name, parameter in model.named_parameters()})
    load_into(model, weights.read, "cpu", dtype)
    return model.state_dict()


def assert_same(found: Tensors, state: Tensors) -> None:
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("name", FORMATS)
def test_every_published_format_gives_the_same_weights(name, tmp_path, state, empty):
    assert_same(loaded(open_weights(FORMATS[name](tmp_path / "weights", state)), empty), state)


def test_the_1_3b_model_has_the_published_tensors_and_parameters():
    sizes = [parameter.numel() for parameter in empty_transformer().parameters()]
    assert (len(sizes), sum(sizes)) == (825, 1_418_996_800)  # policies.md 1.1


@pytest.mark.parametrize("shards", [False, True])
def test_a_diffusers_folder_runs_as_diffusers_runs_it(shards, tmp_path, empty):
    """Saved by diffusers itself and loaded here: one call of both gives the same flow."""
    theirs = diffusers_model()
    theirs.save_pretrained(tmp_path / "transformer", max_shard_size="40KB" if shards else "10GB")
    assert shards == (len(weight_files(tmp_path)) > 1)
    weights = open_weights(tmp_path)
    assert weights.naming == "diffusers"
    loaded(weights, empty)

    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, 3, 16, 4, 6, generator=generator)
    text = torch.randn(1, GEOMETRY.text_len, GEOMETRY.text_dim, generator=generator)
    angles = rope.rope_cos_sin([0, 1, 2], (2, 3), GEOMETRY.rope_dims)

    def attend(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(rope.rotate(q, *angles), rope.rotate(k, *angles), v)

    with torch.no_grad():
        ours = empty(x, torch.full((1, 3), 625.0), empty.text_kv(text), attend)
        reference = theirs(x.transpose(1, 2), torch.tensor([625.0]), text, return_dict=False)[0].transpose(1, 2)
    assert reference.std() > 0.3
    torch.testing.assert_close(ours, reference, rtol=0, atol=5e-5)


def test_names_lose_wrappers_and_one_leading_model():
    wrapped = "model._fsdp_wrapped_module.blocks.3._checkpoint_wrapped_module._fsdp_wrapped_module.norm3.weight"
    assert unwrapped(wrapped) == "blocks.3.norm3.weight"
    assert unwrapped("model.model.head.head.bias") == "model.head.head.bias"


def test_which_nested_copy_is_taken(tmp_path, state, empty):
    path = FORMATS["Self-Forcing"](tmp_path, state)
    cases: list[tuple[bool | None, bool, str]] = [
        (None, False, "generator_ema"),
        (True, True, "generator_ema"),
        (False, True, "generator"),
        (False, False, "generator"),
    ]
    for ema, strict, copy in cases:
        weights = open_weights(path, ema, strict)
        assert (weights.copy, "critic" in weights.others) == (copy, True)
        assert_same(loaded(weights, empty), state if copy == "generator_ema" else other(state))


def test_a_copy_that_is_asked_for_must_be_there(tmp_path, state):
    path = FORMATS["generator only"](tmp_path, state)
    assert open_weights(path, ema=True).copy == "generator"  # as the catalogue says it, it is a preference
    with pytest.raises(WeightsError, match=r"video\.model\.ema=true: .*critic, generator and no generator_ema"):
        open_weights(path, ema=True, strict_ema=True)
    with pytest.raises(WeightsError, match="has none"):
        open_weights(save_pt(tmp_path / "flat.pt", state), ema=False, strict_ema=True)


@pytest.mark.parametrize("name", FORMATS)
def test_weights_are_cast_once_and_do_not_live_in_the_file(name, tmp_path, state, empty):
    path = FORMATS[name](tmp_path / "weights", state)
    found = loaded(open_weights(path), empty, torch.bfloat16)
    assert_same(found, {key: tensor.bfloat16() for key, tensor in state.items()})
    same = loaded(open_weights(path), empty, torch.float32)
    before = {key: tensor.clone() for key, tensor in same.items()}
    for file in weight_files(path):  # a file that changes under a running model changes no weight
        with file.open("r+b") as stream:
            stream.write(b"\0" * file.stat().st_size)
    assert_same(same, before)


@pytest.mark.parametrize("name", [".safetensors", "shards"])
def test_one_source_tensor_exists_at_a_time(name, tmp_path, state, empty):
    weights = open_weights(FORMATS[name](tmp_path / "weights", state))
    alive: list[int] = []
    seen: list[Any] = []

    def watched(key: str) -> Tensor:
        alive.append(sum(reference() is not None for reference in seen))
        tensor = weights.read(key)
        seen.append(weakref.ref(tensor))
        return tensor

    load_into(empty, watched, "cpu", torch.bfloat16)
    assert len(alive) == len(state)
    assert max(alive) == 0


def own_bytes() -> int:
    """Memory of this process that is no mapping of a file, which the system may drop at any time."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
@pytest.mark.parametrize("name", ["Self-Forcing", "shards"])
def test_loading_takes_the_memory_of_one_copy_in_the_target_dtype(name, tmp_path):
    state = {f"layer{i}.weight": torch.ones(1024, 1024) for i in range(16)}  # 64 MB in float32
    path = FORMATS[name](tmp_path / "weights", state)
    with torch.device("meta"):
        model = torch.nn.ModuleDict({name.partition(".")[0]: torch.nn.Linear(1024, 1024, bias=False) for name in state})
    del state
    gc.collect()
    start, most = own_bytes(), 0
    weights = open_weights(path)

    def watched(key: str) -> Tensor:
        nonlocal most
        tensor = weights.read(key)
        most = max(most, own_bytes() - start)
        return tensor

    load_into(model, watched, "cpu", torch.bfloat16)
    assert most < 32e6 + 2 * 4.2e6 + 4e6  # the copy in bfloat16, the tensor being read, the one being cast; some slack


# --- what does not fit ------------------------------------------------------------------------------------------------


def _without(pairs: Tensors, text: str) -> Tensors:
    return {key: tensor for key, tensor in pairs.items() if text not in key}


def reshaped(state: Tensors, **shapes: tuple[int, ...]) -> Tensors:
    """With other shapes; ``__`` stands for a dot. The tensors take no room."""
    return state | {key.replace("__", "."): torch.zeros(1).expand(shape) for key, shape in shapes.items()}


WRONG: list[tuple[str, Any, list[str]]] = [
    ("14B", lambda s: reshaped(s, patch_embedding__weight=(5120, 16, 1, 2, 2)), ["a 14B model", "A14B"]),
    ("I2V", lambda s: reshaped(s, patch_embedding__weight=(5120, 36, 1, 2, 2)), ["image-to-video model", "I2V"]),
    ("I2V 1.3B", lambda s: reshaped(s, img_emb__proj__0__weight=(1280,)), ["image-to-video model", "I2V"]),
    ("5B", lambda s: reshaped(s, patch_embedding__weight=(3072, 48, 1, 2, 2)), ["Wan2.2-TI2V-5B"]),
    ("VAE", lambda _: {"encoder.conv1.weight": torch.zeros(3)}, ["a VAE, not a generator", "video.model.vae"]),
    ("T5", lambda _: {"token_embedding.weight": torch.zeros(3, 2)}, ["a text encoder", "video.model.text_encoder"]),
    ("LoRA", lambda _: {"base_model.model.a.lora_A.weight": torch.zeros(2, 3)}, ["a LoRA", "video.model.lora"]),
    ("nested LoRA", lambda _: {"generator_lora": {"a.lora_A.weight": torch.zeros(2, 3)}}, ["video.model.lora"]),
    ("critic", lambda s: {"critic": s, "step": 3}, ["holds critic and no generator_ema or generator"]),
    ("shape", lambda s: reshaped(s, head__head__bias=(7,)), ["'head.head.bias' has shape [7]", "needs [64]"]),
    ("missing", lambda s: _without(s, "head.head.bias"), ["'head.head.bias' is missing", "68 of 69"]),
    ("extra", lambda s: reshaped(s, freqs=(3,)), ["unexpected key 'freqs' (1 in all)"]),
    ("twice", lambda s: s | {"model.head.head.bias": torch.zeros(64)}, ["both stand for 'head.head.bias'"]),
    ("a number", lambda _: 3, ["holds no weights", "found a int"]),
    ("nothing", lambda _: {}, ["holds no weights"]),
    ("optimizer", lambda _: {"lr": 0.1, "betas": [0.9]}, ["holds no weights"]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_another_file_is_named_for_what_it_is(content, words, tmp_path, state, wanted):
    path = save_pt(tmp_path / "given.pt", content(state))
    with pytest.raises(WeightsError) as error:
        check(open_weights(path), wanted)
    for word in [*words, str(path)]:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


class Anything:
    """What a pickle may hold besides tensors."""


def test_a_file_that_would_run_code_is_refused(tmp_path):
    path = save_pt(tmp_path / "model.pt", {"generator": Anything()})
    with pytest.raises(WeightsError, match=r"holds more than tensors \(.*Anything\)") as error:
        open_weights(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["Self-Forcing", ".safetensors", "shards"])
@pytest.mark.parametrize("left", [0.5, 0.999])
def test_a_truncated_file_says_so(name, left, tmp_path, state):
    path = FORMATS[name](tmp_path / "weights", state)
    file = weight_files(path)[-1]
    with file.open("r+b") as stream:
        stream.truncate(int(file.stat().st_size * left))
    with pytest.raises(WeightsError, match=r"truncated.*download it again") as error:
        open_weights(path)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".txt"])
def test_what_is_no_weights_at_all(content, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"download it again|holds no weights") as error:
        open_weights(path)
    assert str(path) in str(error.value)


def test_a_missing_shard_is_named(tmp_path, state):
    folder = save_shards(tmp_path / "repo" / "transformer", state)
    lost = folder / "diffusion_pytorch_model-00002-of-00002.safetensors"
    lost.unlink()
    for path in (folder, folder.parent, folder / "diffusion_pytorch_model-00001-of-00002.safetensors"):
        with pytest.raises(WeightsError, match="1 of 2 shards are missing") as error:
            open_weights(path)
        assert lost.name in str(error.value)


def test_one_shard_without_its_index(tmp_path, state):
    folder = save_shards(tmp_path, state)
    next(folder.glob("*.json")).unlink()
    with pytest.raises(WeightsError, match="one shard of several"):
        open_weights(folder / "diffusion_pytorch_model-00001-of-00002.safetensors")
    with pytest.raises(WeightsError, match="holds 2 files of weights"):
        open_weights(folder)


def test_places_with_nothing(tmp_path):
    with pytest.raises(WeightsError, match=r"no weights at .*irope weights"):
        open_weights(tmp_path / "nowhere.pt")
    with pytest.raises(WeightsError, match="holds no weights"):
        open_weights(tmp_path)


# --- LoRA -------------------------------------------------------------------------------------------------------------

MODULES = [
    f"blocks.{i}.{name}"
    for i in range(2)
    for name in (*(f"{a}_attn.{x}" for a in ("self", "cross") for x in "qkvo"), "ffn.0", "ffn.2")
]


def factors(wanted: Shapes, rank: int = 4) -> dict[str, tuple[Tensor, Tensor]]:
    """Module -> (A [rank, in], B [out, rank]) on the ten linear layers of each block, as LongLive has them."""
    generator = torch.Generator().manual_seed(5)
    made = {}
    for module in MODULES:
        out, into = wanted[f"{module}.weight"]
        made[module] = (torch.randn(rank, into, generator=generator), torch.randn(out, rank, generator=generator))
    return made


def named(pairs: dict[str, tuple[Tensor, Tensor]], between: str = "") -> Tensors:
    return {
        f"base_model.model.{module}.lora_{which}.{between}weight": tensor
        for module, pair in pairs.items()
        for which, tensor in zip("AB", pair, strict=True)
    }


LORA_FORMATS = {
    "flat": lambda path, pairs: save_pt(path / "lora.pt", named(pairs)),
    "default": lambda path, pairs: save_pt(path / "lora.pt", named(pairs, "default.")),
    "nested": lambda path, pairs: save_pt(
        path / "l.pt", {"generator_lora": named(pairs), "critic_lora": {}, "step": 3}
    ),
    "safetensors": lambda path, pairs: save_safetensors(path / "adapter_model.safetensors", named(pairs)),
}


@pytest.mark.parametrize("name", LORA_FORMATS)
@pytest.mark.parametrize("alpha", [None, 8.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lora_is_added_in_float32_and_rounded_once(name, alpha, dtype, tmp_path, state, empty, wanted):
    pairs = factors(wanted)
    lora = read_lora(LORA_FORMATS[name](tmp_path, pairs), alpha)
    assert (lora.rank, lora.scale, len(lora.factors)) == (4, 1 if alpha is None else 2, 20)
    lora.check(wanted)
    weights = open_weights(save_pt(tmp_path / "base.pt", state))
    load_into(empty, lora.merged(weights.read), "cpu", dtype)
    for key, found in empty.state_dict().items():
        reference = state[key].double()
        if key.removesuffix(".weight") in pairs and key.endswith(".weight"):
            a, b = pairs[key.removesuffix(".weight")]
            reference = reference + lora.scale * (b.double() @ a.double())
        error = (found.double() - reference).abs().max()
        assert error <= (1e-5 if dtype == torch.float32 else reference.abs().max() / 250), key
        if key == "head.head.weight":
            assert torch.equal(found, state[key].to(dtype))


def test_the_scale_is_read_from_the_file_of_peft(tmp_path, wanted):
    path = LORA_FORMATS["safetensors"](tmp_path, factors(wanted))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 12, "peft_type": "LORA"}))
    assert read_lora(path).scale == 3
    assert read_lora(path, alpha=2).scale == 0.5
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 16, "lora_alpha": 12}))
    with pytest.raises(WeightsError, match="says rank 16, the weights beside it have 4"):
        read_lora(path)


def _without(pairs: Tensors, text: str) -> Tensors:
    return {key: tensor for key, tensor in pairs.items() if text not in key}


WRONG_LORAS: list[tuple[str, Any, list[str]]] = [
    ("no B", lambda p: _without(p, "blocks.1.ffn.2.lora_B"), ["'blocks.1.ffn.2' has no lora_B"]),
    ("ranks", lambda p: p | {"base_model.model.blocks.0.ffn.2.lora_A.weight": torch.zeros(3, 64)},
     ["do not agree", "[3, 64]"]),
    ("unlike ranks", lambda p: {k: v[:, :2] if "1.ffn.0.lora_B" in k else v[:2] if "1.ffn.0.lora_A" in k else v
                                for k, v in p.items()}, ["rank 2 and 4", "must have the same"]),
    ("module", lambda p: p | {"base_model.model.blocks.7.ffn.0.lora_A.weight": torch.zeros(4, 48),
                              "base_model.model.blocks.7.ffn.0.lora_B.weight": torch.zeros(64, 4)},
     ["'blocks.7.ffn.0', which is no linear layer"]),
    ("size", lambda p: p | {"base_model.model.blocks.0.ffn.0.lora_A.weight": torch.zeros(4, 1536)},
     ["changed by [64, 1536]", "its weight is [64, 48]"]),
    ("a generator", lambda _: random_state(), ["is no lora_A or lora_B"]),
    ("nothing", lambda _: {"step": 3}, ["holds no LoRA"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"), [case[1:] for case in WRONG_LORAS], ids=[case[0] for case in WRONG_LORAS]
)
def test_a_lora_that_does_not_fit(content, words, tmp_path, wanted):
    path = save_pt(tmp_path / "lora.pt", content(named(factors(wanted))))
    with pytest.raises(WeightsError) as error:
        read_lora(path).check(wanted)
    for word in [*words, str(path)]:
        assert word in str(error.value)


def test_the_published_rank_is_asked_for(tmp_path, wanted):
    path = LORA_FORMATS["flat"](tmp_path, factors(wanted))
    with pytest.raises(WeightsError, match="have rank 4, as published it is 256"):
        read_lora(path, rank=256)
