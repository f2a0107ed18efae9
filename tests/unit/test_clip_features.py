"""The networks of VBench-Long's fast branch, which no package brings: stand-ins lie where they would."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest

from eval.clip_features import ClipFeatures
from eval.scorer import Measurement
from eval.vbench_long import Clips
from tests.vbench_long_kit import FLICKER, Consistency, Video, consistency, cut, noise, score

needs_torchvision = pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@needs_torchvision
def test_missing_networks_are_named_and_cost_the_fast_dimensions_only(home):
    video = Video(noise(70))
    scorers = {"subject_consistency": Consistency(), "background_consistency": Consistency(), **FLICKER}
    (outcomes,) = score(video, Clips(), scorers)
    assert isinstance(outcomes["temporal_flickering"], Measurement)
    assert "facebookresearch_dinov2_main" in str(outcomes["subject_consistency"])
    assert "dreamsim" in str(outcomes["background_consistency"])
    assert "features=same" in str(outcomes["background_consistency"])
    (plain,) = score(video, Clips(clip_to_clip=0.0), scorers)
    value = np.mean([consistency(piece) for piece in cut(video.pixels, 32)])
    assert plain["subject_consistency"].value == pytest.approx(value, abs=1e-12)
    assert "clip2clip" not in plain["subject_consistency"].extra
    assert Clips().unavailable("subject_consistency") == str(outcomes["subject_consistency"])
    assert Clips().unavailable("imaging_quality") is None


@needs_torchvision
def test_dinov2_is_read_from_the_local_hub_with_its_own_pictures(home):
    hub = home / "torch" / "hub"
    (hub / "facebookresearch_dinov2_main").mkdir(parents=True)
    (hub / "checkpoints").mkdir()
    (hub / "facebookresearch_dinov2_main" / "hubconf.py").write_text(
        "import torch\ndef dinov2_vitb14():\n    return torch.nn.Flatten()\n"
    )
    scorer = ClipFeatures("dinov2_vitb14")
    assert "dinov2_vitb14_pretrain.pth" in str(scorer.unavailable())
    (hub / "checkpoints" / "dinov2_vitb14_pretrain.pth").write_bytes(b"weights")
    assert scorer.unavailable() is None
    assert len(scorer.identity()["dinov2_vitb14_pretrain.pth"]) == 64
    frames = noise(3, 256, 300)  # the short side is 256 already: nothing is resized, the middle 224x224 is taken
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    rows = ((frames[:, 16:240, 38:262] / 255 - mean) / std).reshape(3, -1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = np.mean([max(0, rows[i] @ rows[j]) for i, j in ((0, 1), (0, 1), (1, 2), (0, 2))])
    video = Video(np.repeat(frames, 2, 0), fps=2.0)
    protocol = Clips(seconds=1.0, clip_to_clip=1.0, mapping=False)
    (outcomes,) = score(video, protocol, {"subject_consistency": Consistency()})
    assert outcomes["subject_consistency"].value == pytest.approx(expected, abs=1e-5)
    assert protocol.identity("subject_consistency") == scorer.identity()


@needs_torchvision
def test_dreamsim_is_never_asked_to_download(home, monkeypatch):
    asked = {}

    class Network:
        def embed(self, pictures):
            assert pictures.shape[1:] == (3, 224, 224)
            assert (float(pictures.min()), float(pictures.max())) == pytest.approx((0, 1), abs=1e-3)
            return pictures.mean((2, 3)).squeeze()  # squeezes, as the package does

    fake = ModuleType("dreamsim")
    fake.__spec__ = ModuleSpec("dreamsim", None)
    fake.dreamsim = lambda **given: (asked.update(given) or Network(), None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dreamsim", fake)
    scorer = ClipFeatures("dreamsim_ensemble")
    assert "dino_vitb16_pretrain.pth" in str(scorer.unavailable())
    (home / ".cache" / "ensemble_lora").mkdir(parents=True)
    for name in ("dino_vitb16_pretrain.pth", "open_clip_vitb16_pretrain.pth.tar", "clip_vitb16_pretrain.pth.tar"):
        (home / ".cache" / name).touch()
    (home / ".cache" / "ensemble_lora" / "adapter_config.json").touch()
    assert scorer.unavailable() is None
    frames = np.zeros((4, 30, 40, 3), np.uint8)
    frames[:2, ..., 0], frames[2:, ..., 1] = 255, 255  # red, then green
    (outcomes,) = score(
        Video(frames, fps=2.0), Clips(seconds=1.0, mapping=False), {"background_consistency": Consistency()}
    )
    assert outcomes["background_consistency"].extra["clip2clip"] == pytest.approx(0, abs=1e-6)
    assert asked == {"pretrained": True, "device": "cpu", "cache_dir": str(home / ".cache")}
