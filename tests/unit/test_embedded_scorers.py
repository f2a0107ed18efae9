"""The scorers that need no download, held to a published network, known motion and properties of the formulas."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eval.flow import between, flow, top_motion, working
from eval.lite0 import FEATURES, Lite0, Lite0Error, features, lite0, weights_path
from eval.one_pass import one_pass
from eval.picture import clipped, colourful, noise, sharpness
from eval.registry import make_scorer, scorers
from eval.scorer import Measurement, Runtime, Skip, Take, VideoFacts
from eval.vbench import packages
from irope.world import render, sample_staging
from irope.world.render import Staging, positions
from irope.world.scene import Scene, parse_prompt

Frames = NDArray[np.uint8]
VBENCH = {
    *("subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "dynamic_degree"),
    *("aesthetic_quality", "imaging_quality", "overall_consistency"),
}
LEFT = "a red circle moving left over a navy plain background"


def clip(prompt: str, frames: int, seed: int = 1) -> Frames:
    return render(parse_prompt(prompt), sample_staging(np.random.default_rng(seed)), frames)[0]


def score(
    frames: Frames, *names: str, fps: float = 16, chunk: int = 16, start: int = 0
) -> dict[str, Measurement | Skip]:
    facts = VideoFacts("a video", len(frames), fps, *frames.shape[1:3])
    chunks = ((at, frames[at : at + chunk]) for at in range(0, len(frames), chunk))
    chosen = {name: make_scorer(name) for name in names}
    (scored,) = one_pass(chunks, [Take(facts, start, len(frames))], chosen, Runtime())
    return dict(scored.outcomes)


def value(frames: Frames, name: str, **how: float) -> float:
    found = score(frames, name, **how)[name]  # type: ignore[arg-type]
    assert isinstance(found, Measurement)
    return found.value


def embedded() -> list[str]:
    return [name for name, kind in scorers().items() if kind.family == "embedded"]


def texture(high: int, wide: int, seed: int = 0) -> Frames:
    picture = np.random.default_rng(seed).integers(0, 256, (high, wide, 3)).astype(np.float32)
    picture = cv2.GaussianBlur(picture, (0, 0), 3)
    return np.clip(128 + (picture - picture.mean()) * 60 / picture.std(), 0, 255).astype(np.uint8)


# --- the network ------------------------------------------------------------------------------------------------------


def test_the_network_is_the_published_one():
    """timm's network holds the same weights under other names, in the same order, with batch norms of its own."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    packages.prepare()  # torchvision beside a CPU build of torch
    timm = importlib.import_module("timm")
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    published = torch.load(weights_path(), weights_only=True)
    names = zip(reference.state_dict(), published, strict=True)
    reference.load_state_dict({ours: published[theirs] for ours, theirs in names})
    generator = torch.Generator().manual_seed(0)
    for size in ((224, 224), (112, 194), (97, 65)):
        x = torch.rand(2, 3, *size, generator=generator) * 2 - 1
        with torch.inference_mode():
            pooled = reference.forward_head(reference.forward_features(x), pre_logits=True)
            torch.testing.assert_close(lite0()(x).pooled, pooled, atol=1e-4, rtol=1e-4)


def test_weights_of_another_network_are_refused_by_name():
    published = torch.load(weights_path(), weights_only=True)
    with pytest.raises(Lite0Error, match=r"'_conv_head\.weight'"):
        Lite0().load({key: tensor for key, tensor in published.items() if key != "_conv_head.weight"})
    with pytest.raises(Lite0Error, match="extra"):
        Lite0().load({**published, "extra": torch.zeros(1)})
    with pytest.raises(Lite0Error, match="shape"):
        Lite0().load({**published, "_conv_stem.weight": torch.zeros(32, 3, 5, 5)})


def test_features_tell_subjects_apart_and_the_border_tells_backgrounds_apart():
    def seen(scene: Scene, x: float, y: float) -> Frames:
        return render(scene, Staging(start=(x, y)), 1)[0][0]

    scene = parse_prompt("a red circle standing still over a navy plain background")
    square = parse_prompt("a red square standing still over a navy plain background")
    brown = parse_prompt("a red circle standing still over a brown striped background")
    pictures = [seen(scene, 32, 32), seen(scene, 24, 40), seen(square, 24, 40), seen(brown, 24, 40)]
    rows = features(np.stack(pictures), 112, Runtime())
    assert rows.shape == (4, FEATURES + 40)

    def cosines(part: NDArray[np.floating]) -> list[float]:
        unit = part / np.linalg.norm(part, axis=1, keepdims=True)
        return (unit[1:] @ unit[0]).tolist()

    moved, other, elsewhere = cosines(rows[:, :FEATURES])
    assert moved > 0.9
    assert max(other, elsewhere) < 0.75
    moved, other, elsewhere = cosines(rows[:, FEATURES:])
    assert min(moved, other) > 0.98
    assert elsewhere < 0.75


def test_the_border_is_blind_to_what_fills_the_middle():
    around, within = texture(64, 64), np.full((64, 64, 3), (40, 90, 10), np.uint8)
    middle = around.copy()
    middle[10:54, 10:54] = within[10:54, 10:54]
    rim = within.copy()
    rim[10:54, 10:54] = around[10:54, 10:54]
    rows = features(np.stack([around, middle, rim]), 112, Runtime())[:, FEATURES:]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert unit[1] @ unit[0] > 0.9
    assert unit[2] @ unit[0] < 0.8


# --- flow -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("high", "wide", "size"), [(64, 64, (128, 128)), (480, 832, (256, 444)), (200, 150, (200, 150))]
)
def test_flow_sees_pictures_at_a_working_size(high, wide, size):
    assert working(np.zeros((high, wide, 3), np.uint8)).shape[:2] == size


def test_flow_finds_a_known_shift_and_the_frame_in_between():
    world = texture(220, 260)
    first, middle, second = (world[20 + 2 * k : 180 + 2 * k, 20 + 3 * k : 220 + 3 * k] for k in range(3))
    moved = flow(first, second)
    inner = moved[20:-20, 20:-20]
    assert np.abs(inner - [-6, -4]).mean() < 0.2
    assert top_motion(moved) == pytest.approx(np.hypot(6, 4), rel=0.15)
    guess = between(first, second, moved)[20:-20, 20:-20].astype(int)
    blend = (first.astype(int) + second)[20:-20, 20:-20] // 2
    truth = middle[20:-20, 20:-20]
    assert np.abs(guess - truth).mean() < 0.2 * np.abs(blend - truth).mean()


def test_motion_is_the_speed_of_the_subject():
    """The tracked world: the true speed in short sides (64 pixels) per second."""
    for seed, action in enumerate(("moving left", "moving up", "circling")):
        scene = parse_prompt(f"a red circle {action} over a navy plain background")
        staging = sample_staging(np.random.default_rng(seed))
        path = positions(scene, staging, 64)[::2]
        true = np.linalg.norm(np.diff(path, axis=0), axis=1).mean() * 8 / 64
        assert value(render(scene, staging, 64)[0], "flow_motion") == pytest.approx(true, rel=0.2)


def test_a_still_video_does_not_move_and_a_jerky_one_is_not_smooth():
    moving = clip(LEFT, 48)
    still = np.repeat(moving[:1], 48, axis=0)
    jerky = moving[np.arange(48) // 4 * 4]
    assert (value(still, "flow_dynamic"), value(moving, "flow_dynamic")) == (0, 1)
    assert value(still, "flow_motion") < 0.01
    assert value(still, "flow_smoothness") == 1
    assert value(jerky, "flow_smoothness") < value(moving, "flow_smoothness") - 0.003


def test_slow_motion_is_none_by_the_rule_of_the_dynamic_degree():
    """The threshold is 6/256 of the short side a pair: 3 pixels of 128."""
    world = texture(260, 400)
    for pixels, verdict in ((2.0, 0), (5.0, 1)):
        film = np.stack([world[:128, round(pixels * k) : round(pixels * k) + 128] for k in range(24)])
        assert value(film, "flow_dynamic", fps=8) == verdict


# --- single pictures --------------------------------------------------------------------------------------------------


def grey(picture: Frames) -> NDArray[np.float32]:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)


def slow_sharpness(picture: NDArray[np.float32]) -> float:
    """Crété-Roffet et al. 2007, equations 1 to 9, with scipy's filter."""
    from scipy.ndimage import uniform_filter1d

    found = []
    for axis in (0, 1):
        blurred = uniform_filter1d(picture.astype(np.float64), 9, axis=axis, mode="mirror")
        before, after = (np.abs(np.diff(p, axis=axis)) for p in (picture.astype(np.float64), blurred))
        found.append((before.sum() - np.maximum(0, before - after).sum()) / before.sum())
    return 1 - max(found)


def test_sharpness_is_the_published_measure():
    for seed in range(3):
        picture = grey(texture(70, 90, seed))
        assert sharpness(picture) == pytest.approx(slow_sharpness(picture), abs=1e-5)
        assert sharpness(picture * 0.5 + 20) == pytest.approx(sharpness(picture), abs=1e-5)
    blurred = [sharpness(cv2.GaussianBlur(picture, (0, 0), width)) for width in (0.5, 1, 2, 4)]
    assert blurred == sorted(blurred, reverse=True)
    assert sharpness(np.full((20, 20), 7, np.float32)) == 0


@pytest.mark.parametrize("sigma", [2.0, 8.0, 20.0])
def test_the_noise_estimate_is_the_deviation_of_added_noise(sigma):
    clean = np.full((128, 128), 120, np.float32)
    clean = cv2.circle(clean, (64, 64), 30, 60, -1)  # an edge is no noise
    noisy = clean + np.random.default_rng(0).normal(0, sigma, clean.shape).astype(np.float32)
    assert noise(clean) == 0
    assert noise(noisy) == pytest.approx(sigma, rel=0.08)


def test_clipping_and_colourfulness_of_worked_pictures():
    picture = np.full((10, 10, 3), 128, np.uint8)
    picture[:2, :, 0], picture[2:3, :, 2] = 255, 0
    assert clipped(picture) == pytest.approx(0.3)
    assert colourful(np.full((8, 8, 3), 90, np.uint8)) == 0
    # One colour: no spread, mean opponent values r - g = 100 and (r + g) / 2 - b = 50.
    assert colourful(np.full((8, 8, 3), (100, 0, 0), np.uint8)) == pytest.approx(0.3 * np.hypot(100, 50))


def test_imaging_falls_with_every_fault():
    clean = clip("a pink cross circling over a teal striped background", 8)
    rng = np.random.default_rng(0)
    faulty = {
        "noise": np.clip(clean + rng.normal(0, 12, clean.shape), 0, 255).astype(np.uint8),
        "blur": np.stack([cv2.GaussianBlur(frame, (0, 0), 1) for frame in clean]),
        "bright": np.clip(clean * 3.0, 0, 255).astype(np.uint8),
    }
    assert all(value(frames, "imaging") < value(clean, "imaging") - 0.05 for frames in faulty.values())


# --- all of them ------------------------------------------------------------------------------------------------------


def test_none_of_them_is_called_as_a_dimension_of_vbench():
    assert len(embedded()) >= 10
    assert not VBENCH & set(embedded())
    assert all("VBench" not in scorers()[name].title for name in embedded())


def test_consistency_is_lowered_by_a_cut_and_is_1_for_a_frozen_video():
    video, other = clip(LEFT, 32), clip("a green square bouncing over a plum gradient background", 32)
    cut = np.concatenate([video[:16], other[16:]])
    frozen = np.repeat(video[:1], 32, axis=0)
    for name in ("feature_consistency", "border_consistency"):
        assert value(frozen, name) == pytest.approx(1, abs=1e-6)
        assert value(cut, name) < value(video, name) - 0.05
        curve = score(cut, name)[name].curve  # type: ignore[union-attr]
        assert curve is not None
        assert np.nanargmin(np.diff(curve)) == 15  # the largest fall is at the cut


def test_chunks_and_the_place_of_a_take_do_not_matter():
    video = clip(LEFT, 41)
    names = embedded()
    whole = score(video[5:], *names, chunk=64)
    parts = score(video, *names, chunk=7, start=5)
    for name in names:
        one, other = whole[name], parts[name]
        assert isinstance(one, Measurement)
        assert isinstance(other, Measurement)
        assert one.value == pytest.approx(other.value, abs=1e-6), name
        assert one.curve is not None
        assert other.curve is not None
        np.testing.assert_allclose(one.curve, other.curve, atol=1e-5)
        assert len(one.curve) == 36


@pytest.mark.parametrize("shape", [(33, 47), (200, 64)])
def test_any_size_and_any_short_length_has_a_number_or_a_reason(shape):
    for frames in (1, 2, 3):
        video = np.stack([texture(*shape, seed) for seed in range(frames)])
        for name, found in score(video, *embedded()).items():
            assert isinstance(found, Skip) or np.isfinite(found.value), name
    assert isinstance(score(video[:1], "feature_consistency")["feature_consistency"], Skip)
    assert isinstance(score(video[:2], "flow_smoothness")["flow_smoothness"], Skip)


def test_listing_them_loads_nothing_heavy():
    heavy = "{'torch', 'cv2', 'matplotlib', 'scipy'}"
    code = f"import sys; from eval.registry import scorers; scorers(); print(sorted({heavy} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
