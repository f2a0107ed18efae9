"""Text features of the 1.3B model against diffusers' pipeline and a plain umT5 written for the original keys.

On a small random encoder and a tokenizer of a few words, in every published file format.
"""

import math
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from irope.errors import WeightsError
from irope.models.wan import text as text_module
from irope.models.wan.parts import import_extra, open_part
from irope.models.wan.prompt_cleaning import clean
from irope.models.wan.t5_names import from_original
from irope.models.wan.text import PromptEmbeddings
from tests.diffusers_kit import import_diffusers

CPU = torch.device("cpu")
SENTENCE = "a cat dog walks runs on the beach at night with two red balls"
WORDS = ["<pad>", "</s>", "<unk>", *SENTENCE.split()]
ROWS, WIDTH, HEADS, LAYERS, TEXT_LEN = 24, 32, 4, 2, 12
PROMPTS = ["a cat walks on the beach", "two red balls"]
LONG = " ".join(["the dog runs"] * 10)
ROOT = Path(__file__).parents[2]
WORKER = """
import sys
from pathlib import Path
import torch
from irope.models.wan.text import PromptEmbeddings
encoder, tokenizer, own, shared, length, *prompts = sys.argv[1:]
for cache in (own, shared):
    texts = PromptEmbeddings(
        Path(encoder), Path(tokenizer), Path(cache), torch.device("cpu"), torch.float32, int(length)
    )
    if cache == shared:  # all is loaded: from here on both are as fast
        print("ready", flush=True)
        input()
    texts.prepare(prompts)
"""


@pytest.fixture(scope="module")
def umt5() -> Any:
    """A random encoder; weights as large as those of a trained one, so that no term vanishes."""
    import_diffusers()
    pytest.importorskip("transformers")
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=ROWS,
        d_model=WIDTH,
        d_kv=8,
        d_ff=64,
        num_layers=LAYERS,
        num_heads=HEADS,
        feed_forward_proj="gated-gelu",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = UMT5EncoderModel(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.normal_(std=0.3) if parameter.ndim > 1 else parameter.normal_(1.0, 0.2)
    return model


@pytest.fixture(scope="module")
def files(umt5: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<files>/text_encoder in shards, <files>/tokenizer, and <files>/models_t5_umt5-xxl-enc-bf16.pth."""
    root = tmp_path_factory.mktemp("wan")
    umt5.save_pretrained(root / "text_encoder", max_shard_size="30KB")
    assert len(list((root / "text_encoder").glob("*-of-*.safetensors"))) > 2
    write_tokenizer(root / "tokenizer", WORDS)
    torch.save(original_state(umt5), root / "models_t5_umt5-xxl-enc-bf16.pth")
    return root


def write_tokenizer(folder: Path, words: Sequence[str], end: bool = True) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if end:
        tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.enable_padding(length=40)  # a setting of the file that is not ours
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def original_state(model: Any) -> dict[str, Tensor]:
    """The weights under the published keys of Wan2.1's own T5 (policies.md 1.8), written out one by one."""
    found = {"token_embedding.weight": model.shared.weight, "norm.weight": model.encoder.final_layer_norm.weight}
    for number, block in enumerate(model.encoder.block):
        attention, dense, at = block.layer[0], block.layer[1], f"blocks.{number}."
        found |= {f"{at}attn.{name}.weight": getattr(attention.SelfAttention, name).weight for name in "qkvo"}
        found |= {
            f"{at}norm1.weight": attention.layer_norm.weight,
            f"{at}pos_embedding.embedding.weight": attention.SelfAttention.relative_attention_bias.weight,
            f"{at}norm2.weight": dense.layer_norm.weight,
            f"{at}ffn.gate.0.weight": dense.DenseReluDense.wi_0.weight,
            f"{at}ffn.fc1.weight": dense.DenseReluDense.wi_1.weight,
            f"{at}ffn.fc2.weight": dense.DenseReluDense.wo.weight,
        }
    return {name: tensor.clone() for name, tensor in found.items()}


def plain_umt5(w: dict[str, Tensor], ids: list[int]) -> Tensor:
    """The published architecture on the published keys, without padding: [T, E]."""

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight

    def bucket(distance: int) -> int:  # 32 buckets, half of them forward; exact below 8, logarithmic up to 128
        side, far = 16 * (distance > 0), abs(distance)
        return side + (far if far < 8 else min(15, 8 + int(math.log(far / 8) / math.log(128 / 8) * 8)))

    x = w["token_embedding.weight"][ids]
    place = torch.tensor([[bucket(key - query) for key in range(len(ids))] for query in range(len(ids))])
    for number in range(LAYERS):
        b = {k.removeprefix(f"blocks.{number}."): t for k, t in w.items() if k.startswith(f"blocks.{number}.")}
        y = norm(x, b["norm1.weight"])
        q, k, v = ((y @ b[f"attn.{name}.weight"].T).unflatten(1, (HEADS, -1)).transpose(0, 1) for name in "qkv")
        bias = b["pos_embedding.embedding.weight"][place].permute(2, 0, 1)
        mixed = (q @ k.transpose(1, 2) + bias).softmax(-1) @ v  # not scaled
        x = x + mixed.transpose(0, 1).flatten(1) @ b["attn.o.weight"].T
        y = norm(x, b["norm2.weight"])
        gate = F.gelu(y @ b["ffn.gate.0.weight"].T, approximate="tanh")
        x = x + ((y @ b["ffn.fc1.weight"].T) * gate) @ b["ffn.fc2.weight"].T
    return norm(x, w["norm.weight"])


def embeddings(files: Path, cache: Path, **changes: Any) -> PromptEmbeddings:
    given = {"text_encoder": files / "text_encoder", "tokenizer": files / "tokenizer", "dtype": torch.float32}
    return PromptEmbeddings(**{"cache": cache, "device": CPU, "text_len": TEXT_LEN, **given, **changes})


@pytest.fixture(autouse=True)
def _own_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


# --- features --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [*PROMPTS, LONG, "", "  a&amp;amp;b \n cat\t walks "])
def test_features_are_those_of_the_diffusers_pipeline(umt5: Any, files: Path, tmp_path: Path, prompt: str) -> None:
    pipeline = import_diffusers("diffusers.pipelines.wan.pipeline_wan").WanPipeline
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(files / "tokenizer" / "tokenizer.json"), pad_token="<pad>", eos_token="</s>"
    )
    parts = SimpleNamespace(tokenizer=tokenizer, text_encoder=umt5, _execution_device=CPU)
    expected = pipeline._get_t5_prompt_embeds(parts, prompt, max_sequence_length=TEXT_LEN)
    found = embeddings(files, tmp_path)(prompt)
    assert found.shape == (1, TEXT_LEN, WIDTH)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_features_are_those_of_the_published_architecture(umt5: Any, files: Path, tmp_path: Path) -> None:
    found = embeddings(files, tmp_path, text_encoder=files / "models_t5_umt5-xxl-enc-bf16.pth")
    for prompt in PROMPTS:
        ids = [*[WORDS.index(word) for word in prompt.split()], 1]
        expected = plain_umt5(original_state(umt5), ids)
        assert expected.std() > 0.5
        torch.testing.assert_close(found(prompt)[0, : len(ids)], expected, rtol=0, atol=2e-5)
        assert not found(prompt)[0, len(ids) :].any()


def test_a_long_prompt_is_cut_and_still_ends(umt5: Any, files: Path, tmp_path: Path) -> None:
    ids = [*[WORDS.index(word) for word in LONG.split()][: TEXT_LEN - 1], 1]
    found = embeddings(files, tmp_path)(LONG)[0]
    torch.testing.assert_close(found, plain_umt5(original_state(umt5), ids), rtol=0, atol=2e-5)


def test_every_layout_gives_the_same_features(umt5: Any, files: Path, tmp_path: Path) -> None:
    save_file(original_state(umt5), tmp_path / "original.safetensors")
    twice = {**umt5.state_dict(), "encoder.embed_tokens.weight": umt5.shared.weight.clone()}
    torch.save(twice, tmp_path / "transformers.pth")  # the embedding under both of its names
    paths = [
        files,  # a repository with a folder text_encoder
        files / "models_t5_umt5-xxl-enc-bf16.pth",
        tmp_path / "original.safetensors",
        tmp_path / "transformers.pth",
    ]
    expected = embeddings(files, tmp_path / "cache")(PROMPTS[0])
    for path in paths:
        found = embeddings(files, tmp_path / "cache", text_encoder=path)(PROMPTS[0])
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_the_encoder_is_loaded_in_the_dtype_it_runs_in(umt5: Any, files: Path, tmp_path: Path) -> None:
    part = open_part(files / "text_encoder", "text_encoder", from_original)
    model = text_module.load_encoder(part, CPU, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.encoder.embed_tokens.weight is model.shared.weight
    assert not any(parameter.is_meta or parameter.requires_grad for parameter in model.parameters())
    rough = embeddings(files, tmp_path, dtype=torch.bfloat16)(PROMPTS[0])
    assert rough.dtype == torch.bfloat16
    exact = embeddings(files, tmp_path)(PROMPTS[0])
    assert (rough.float() - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()


# --- cleaning --------------------------------------------------------------------------------------------------------


def test_prompts_are_cleaned_as_published() -> None:
    published = import_diffusers("diffusers.pipelines.wan.pipeline_wan").prompt_clean
    cases = {
        "  a cat \n\n walks\t": "a cat walks",
        "salt &amp;amp; pepper &lt;b&gt;": "salt & pepper <b>",
        "<i> salt &amp;amp; pepper": "<i> salt & pepper",  # ftfy leaves entities beside a tag alone
        "schÃ¶ner Tag": "schöner Tag",
        "\u201cquoted\u201d\u00a0text": '"quoted" text',
        "∞ \U0001f600": "∞ \U0001f600",
        "": "",
    }
    for prompt, cleaned in cases.items():
        assert clean(prompt) == cleaned == published(prompt)


def test_without_ftfy_a_prompt_is_refused_and_not_cleaned_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(WeightsError, match=r"needs the package ftfy.*pip install"):
        clean("a cat")


def test_an_import_that_fails_deep_down_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        try:
            raise RuntimeError("operator torchvision::nms does not exist\nand more")
        except RuntimeError as error:
            raise ModuleNotFoundError("Could not import module 'UMT5EncoderModel'") from error

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(WeightsError, match=r"package transformers, .*torchvision::nms does not exist\); run: pip"):
        import_extra("transformers.models.umt5")


# --- on disk ---------------------------------------------------------------------------------------------------------


def test_what_is_on_disk_needs_no_encoder(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = embeddings(files, tmp_path / "cache")
    first.prepare(PROMPTS)
    expected = [first(prompt) for prompt in PROMPTS]
    monkeypatch.setattr(text_module, "load_encoder", never)
    monkeypatch.setattr(text_module, "_read_tokenizer", never)
    again = embeddings(files, tmp_path / "cache")
    again.prepare(PROMPTS)
    for prompt, before in zip(PROMPTS, expected, strict=True):
        torch.testing.assert_close(again(f"  {prompt}\n"), before, rtol=0, atol=0)  # the same once cleaned
    stored = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert [load_file(path)["rows"].shape[0] for path in stored] in ([7, 4], [4, 7])  # words and the end, no padding
    with safe_open(str(stored[0]), "pt") as file:
        assert file.metadata()["prompt"] in PROMPTS
    for changes in (
        {"dtype": torch.bfloat16},
        {"text_len": 13},
        {"text_encoder": files / "models_t5_umt5-xxl-enc-bf16.pth"},
    ):
        with pytest.raises(AssertionError, match="loaded"):
            embeddings(files, tmp_path / "cache", **changes)(PROMPTS[0])


def never(*_: Any) -> None:
    raise AssertionError("loaded")


def test_one_load_for_all_prompts_and_then_it_is_gone(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[Any]] = []
    real = text_module.load_encoder

    def load(*given: Any) -> Any:
        model = real(*given)
        seen.append(weakref.ref(model))
        return model

    monkeypatch.setattr(text_module, "load_encoder", load)
    texts = embeddings(files, tmp_path)
    texts.prepare([*PROMPTS, LONG, PROMPTS[0]])
    assert len(seen) == 1
    assert seen[0]() is None
    texts("a dog")  # not prepared: encoded when it is asked for
    assert len(seen) == 2
    assert seen[1]() is None


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "other rows"])
def test_a_damaged_file_is_made_again(files: Path, tmp_path: Path, damage: str) -> None:
    texts = embeddings(files, tmp_path)
    expected = texts(PROMPTS[0])
    (stored,) = tmp_path.rglob("*.safetensors")
    whole = stored.read_bytes()
    if damage == "other rows":
        save_file({"rows": torch.zeros(TEXT_LEN + 1, WIDTH)}, stored)
    else:
        stored.write_bytes({"cut": whole[:-1], "empty": b"", "noise": b"\xff" * len(whole)}[damage])
    torch.testing.assert_close(texts(PROMPTS[0]), expected, rtol=0, atol=0)
    assert stored.read_bytes() == whole


def test_workers_that_encode_the_same_prompt_do_each_other_no_harm(files: Path, tmp_path: Path) -> None:
    own, shared = tmp_path / "own", tmp_path / "shared"
    words = [files / "text_encoder", files / "tokenizer", own, shared, TEXT_LEN, *PROMPTS]
    command = [sys.executable, "-c", WORKER, *map(str, words)]
    texts = embeddings(files, shared)
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdin is not None
        assert worker.stdout.readline() == "ready\n"
        worker.stdin.write("\n")
        worker.stdin.flush()
        texts.prepare(PROMPTS)
        assert worker.wait(120) == 0
    assert len([path for path in shared.rglob("*") if path.is_file()]) == len(PROMPTS)
    torch.testing.assert_close(texts(PROMPTS[1]), embeddings(files, own)(PROMPTS[1]), rtol=0, atol=0)


# --- files that do not fit -------------------------------------------------------------------------------------------


def refused(texts: PromptEmbeddings, *words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        texts.prepare(["a cat"])
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_tokenizer_that_does_not_fit(files: Path, tmp_path: Path) -> None:
    def given(name: str, words: Sequence[str], end: bool = True) -> PromptEmbeddings:
        write_tokenizer(tmp_path / name, words, end)
        return embeddings(files, tmp_path / "cache", tokenizer=tmp_path / name)

    more = [*WORDS, *(f"w{n}" for n in range(10))]
    refused(given("large", more), f"{len(more)} tokens", f"for {ROWS}", "tokenizer.json", "irope weights")
    refused(given("small", WORDS[:9]), "9 tokens", f"for {ROWS}")
    refused(given("unpadded", ["<blank>", *WORDS[1:]]), "no token <pad>")
    refused(given("endless", WORDS, end=False), "does not end a prompt with </s>")
    (tmp_path / "broken").mkdir()
    refused(
        embeddings(files, tmp_path / "cache", tokenizer=tmp_path / "broken"),
        "holds no tokenizer.json; run: irope weights",
    )
    (tmp_path / "broken" / "tokenizer.json").write_text('{"model": ')
    refused(embeddings(files, tmp_path / "cache", tokenizer=tmp_path / "broken"), "download it again")


def test_an_encoder_that_is_none(umt5: Any, files: Path, tmp_path: Path) -> None:
    def given(name: str, tensors: dict[str, Tensor]) -> PromptEmbeddings:
        save_file(tensors, tmp_path / name)
        return embeddings(files, tmp_path / "cache", text_encoder=tmp_path / name)

    state = original_state(umt5)
    refused(given("vae.safetensors", {"conv2.weight": torch.zeros(1)}), "vae.safetensors is not a umT5 encoder")
    fewer = {key: tensor for key, tensor in state.items() if key != "blocks.1.ffn.fc2.weight"}
    refused(given("fewer.safetensors", fewer), "layer.1.DenseReluDense.wo.weight' is missing")
    refused(given("more.safetensors", {**state, "head.weight": torch.zeros(1)}), "unexpected key 'head.weight'")
    other = {**state, "blocks.1.attn.k.weight": torch.zeros(8, WIDTH)}
    refused(given("other.safetensors", other), f"has shape [8, {WIDTH}]", "needed is")
    whole = (files / "models_t5_umt5-xxl-enc-bf16.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    refused(embeddings(files, tmp_path / "cache", text_encoder=tmp_path / "cut.pth"), "truncated", "download it again")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_gpu_without_room_for_the_encoder(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(text_module, "load_encoder", full)
    refused(embeddings(files, tmp_path), "does not fit into the free memory", "video.model.text_encoder_device=cpu")
