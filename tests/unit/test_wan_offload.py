"""``video.model.offload``: weights wait on the CPU, come for the call that needs them, and change no frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from irope.config import load
from irope.generate import generate
from irope.generator import load_generator
from irope.jobs import jobs_from
from irope.models.wan.vae import load_vae
from irope.transformer import CausalWanTransformer, attention
from tests.wan_folder import write_vae, write_weights

PROMPT = "prompt=a red fox walks in snow"
META = torch.device("meta")
"""Stands for a GPU: a call that meets a tensor of the CPU there fails."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return (*write_weights(tmp_path_factory.mktemp("weights")), "sys.device=cpu", "method=rolling_w6", PROMPT)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def places(module: Any) -> set[str]:
    return {parameter.device.type for parameter in module.parameters()}


def test_the_same_video_under_the_same_key(published, tmp_path):
    made = []
    for offload in (False, True):
        choice = (f"video.model.offload={str(offload).lower()}", f"sys.out={tmp_path / str(offload)}")
        config = load([*published, "video.latents=6", *choice])
        generator, (job,) = load_generator(config), jobs_from(config)
        sidecar = generate(job, generator)
        assert generator.transformer.offloaded == offload
        assert places(generator.codec.vae) == ({"meta"} if offload else {"cpu"})
        made.append((job.key, sidecar["frames_sha256_chain"]))
    assert made[0] == made[1]


def on_meta(transformer: CausalWanTransformer) -> CausalWanTransformer:
    """Offloaded, with ``meta`` as the device that calls run on."""
    transformer.offload()
    for name, parameter in list(transformer.named_parameters()):
        owner, _, last = name.rpartition(".")
        if not owner.startswith("blocks") or last == "modulation":
            setattr(transformer.get_submodule(owner), last, torch.nn.Parameter(parameter.to(META)))
    return transformer


def test_calls_run_on_the_device_and_find_there_the_weights_of_one_layer(published):
    transformer = on_meta(load_generator(load([*published])).transformer)
    waiting = {name: parameter.device.type for name, parameter in transformer.named_parameters()}
    assert set(waiting.values()) == {"cpu", "meta"}
    seen: list[set[str]] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        present = {name for name, one in transformer.named_parameters() if one.device == META}
        seen.append({".".join(name.split(".")[:2]) for name in present if waiting[name] == "cpu"})
        return attention(q, k, v)

    text, latents = torch.empty(1, 12, 20, device=META), torch.empty(1, 3, 16, 8, 8, device=META)
    cross = transformer.text_kv(text)
    out = transformer(latents, torch.empty(1, 3, device=META), cross, attend)
    assert (out.device, out.shape) == (META, latents.shape)
    assert seen == [{"blocks.0"}, {"blocks.1"}]
    assert {name: parameter.device.type for name, parameter in transformer.named_parameters()} == waiting


def test_the_decoder_runs_on_the_device(tmp_path):
    latents = torch.empty(1, 3, 16, 8, 8, device=META)
    codec = load_vae(write_vae(tmp_path / "vae"), META, torch.float32, offloaded=True)
    assert codec.device == META
    assert codec.encode(torch.empty(1, 1, 3, 64, 64)).device == META
    features: list[Any] = [None] * 33
    assert codec.decode_chunk(codec.denormalised(latents[:, :1]), features, first=True).device == META


def test_a_stream_gives_the_same_bits_and_its_features_wait_on_the_cpu(tmp_path):
    vae = write_vae(tmp_path / "vae")
    kept, moved = (load_vae(vae, torch.device("cpu"), torch.float32, offloaded=offload) for offload in (False, True))
    assert (kept.offloaded, moved.offloaded) == (False, True)
    latents = torch.randn(1, 3, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    streams = kept.decoder(), moved.decoder()
    assert torch.equal(*(stream(latents) for stream in streams))
    picture = torch.rand(1, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(*(codec.encode(picture) for codec in (kept, moved)))  # a schedule that begins anew encodes
    assert streams[0].state().keys() == streams[1].state().keys()
