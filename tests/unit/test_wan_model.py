"""``model=wan_1_3b`` put together from small published files: what is loaded, in which order, and videos made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from irope.config import load
from irope.errors import WeightsError
from irope.generate import generate
from irope.generator import Generator, load_generator
from irope.jobs import jobs_from
from irope.models.wan import model as wan_model
from irope.models.wan import text as wan_text
from irope.video import read_frames
from tests.wan_folder import OVERRIDES, write_text_encoder, write_weights
from tests.wan_kit import random_state, save_pt, save_shards

PROMPT = 'prompt="a red fox walks in snow | a blue fox runs"'


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Overrides that use a folder of small weights."""
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def given(published: tuple[str, ...], tmp_path: Path) -> tuple[str, ...]:
    return (*published, "sys.device=cpu", f"sys.out={tmp_path / 'out'}", "video.latents=6", "method=rolling_w6", PROMPT)


def test_the_parts_fit_each_other(given):
    generator = load_generator(load(given))
    assert generator.name == "wan_test/self_forcing_dmd"
    assert generator.frame_shape == (16, 8, 8)
    assert (generator.steps, generator.shift, generator.warp, generator.horizon) == ((1000, 750, 500, 250), 5, True, 21)
    assert (generator.clock.fps, generator.clock.block) == (16, 3)
    text = generator.encode_text("a red fox")
    assert text.shape == (1, 12, 20)
    assert text[0, 4:].abs().max() == 0  # three words and the end token
    state = random_state()
    assert all(torch.equal(value, state[name]) for name, value in generator.transformer.state_dict().items())


def test_two_switched_prompts_become_a_video_that_depends_on_them(given, tmp_path):
    config = load(given)
    generator = load_generator(config)
    job = jobs_from(config)[0]
    sidecar = generate(job, generator)
    assert (sidecar["pixel_frames"], sidecar["fps"], sidecar["model"]) == (21, 16, "wan_test/self_forcing_dmd")
    assert sidecar["size"] == [64, 64]
    frames = next(read_frames(job.video, 21))
    assert frames.shape == (21, 64, 64, 3)
    assert frames.std() > 5
    other = load([*given, "prompt=a red fox walks in snow", f"sys.out={tmp_path / 'other'}"])
    assert generate(jobs_from(other)[0], generator)["frames_sha256_chain"] != sidecar["frames_sha256_chain"]


def test_prompts_are_encoded_and_the_encoder_is_gone_before_the_weights_are_read(given, monkeypatch):
    happened: list[str] = []
    load_encoder, load_into, release = wan_text.load_encoder, wan_model.load_into, wan_text.PromptEmbeddings.release

    def noted(name, real):
        return lambda *args, **more: (happened.append(name), real(*args, **more))[1]

    monkeypatch.setattr(wan_text, "load_encoder", noted("encoder", load_encoder))
    monkeypatch.setattr(wan_text.PromptEmbeddings, "release", noted("released", release))
    monkeypatch.setattr(wan_model, "load_into", noted("transformer", load_into))
    generator = load_generator(load(given))
    assert happened[0] == "encoder"
    assert happened.count("encoder") == 1
    assert happened[-2:] == ["released", "transformer"]
    happened.clear()
    generator.prepare(["a red fox walks in snow", "a blue fox runs"])  # what generate() asks for is there
    assert "encoder" not in happened
    generator.prepare(["a fox"])
    assert happened.count("encoder") == 1


def test_a_lora_changes_the_weights_it_names(given, tmp_path):
    shape = random_state()["blocks.1.ffn.0.weight"].shape
    a, b = torch.randn(2, shape[1]), torch.randn(shape[0], 2)
    name = "base_model.model.blocks.1.ffn.0.lora_"
    lora = save_pt(tmp_path / "style.pt", {"generator_lora": {f"{name}A.weight": a, f"{name}B.weight": b}})
    generator = load_generator(load([*given, f"video.model.lora={lora}", "video.model.lora_alpha=1"]))
    assert generator.name == "wan_test/self_forcing_dmd+style"
    state = random_state()
    for key, value in generator.transformer.state_dict().items():
        wanted = state[key] + 0.5 * b @ a if key == "blocks.1.ffn.0.weight" else state[key]
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-5)


def test_a_folder_of_shards_by_path(given, tmp_path):
    folder = save_shards(tmp_path / "mine" / "transformer", random_state(seed=1)).parent
    generator: Generator = load_generator(load([*given, f"video.model.generator={folder}"]))
    assert generator.name == "wan_test/mine"
    head = generator.transformer.state_dict()["head.head.weight"]
    assert torch.equal(head, random_state(seed=1)["head.head.weight"])


def test_a_text_encoder_of_another_width_is_named(given, tmp_path):
    other = write_text_encoder(tmp_path / "text_encoder", width=24)
    with pytest.raises(WeightsError, match=r"width 24, the generator self_forcing_dmd needs 20.*text_encoder"):
        load_generator(load([*given, f"video.model.text_encoder={other}"]))


def test_a_wrong_vae_is_named_before_a_prompt_is_encoded(given, tmp_path):
    encoder = Path(next(one for one in given if one.startswith("sys.weights=")).partition("=")[2])
    wrong = encoder / "Wan-AI/Wan2.1-T2V-1.3B-Diffusers/text_encoder"
    with pytest.raises(WeightsError, match="is not the VAE of Wan2"):
        load_generator(load([*given, f"video.model.vae={wrong}"]))
    assert not (tmp_path / "cache" / "irope" / "prompts").exists()


def test_a_small_generator_is_refused_as_the_1_3b_model(published, tmp_path):
    overrides = [one for one in published if not one.startswith("video.model.config=")]
    with pytest.raises(
        WeightsError, match=r"'patch_embedding\.weight' has shape \[48, 16, 1, 2, 2\], this model needs"
    ):
        load_generator(load([*overrides, "sys.device=cpu", "method=rolling_w6", PROMPT]))


def test_a_geometry_that_cannot_be(given, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text('{"dim": 50, "ffn_dim": 8, "num_heads": 3, "num_layers": 1, "in_dim": 16, "out_dim": 16}')
    with pytest.raises(WeightsError, match="50 is not divisible by num_heads 3"):
        load_generator(load([*given, f"video.model.config={bad}"]))
    bad.write_text("{}")
    with pytest.raises(WeightsError, match=r"is no config\.json"):
        load_generator(load([*given, f"video.model.config={bad}"]))


def test_the_small_model_is_never_called_the_1_3b_model(given):
    assert jobs_from(load(given))[0].record["model"]["name"].startswith("wan_test/")
    assert OVERRIDES[0] == "model=wan_1_3b"
