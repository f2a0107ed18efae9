"""The shipped weights do what their card says (relaxed floors), and a file that is not theirs is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from irope.models.tiny.evaluate import generate, summarize, unseen_scenes, verify_tiny
from irope.models.tiny.info import WEIGHTS, read_metadata, weights_path
from irope.models.tiny.model import TinyModel, load_tiny
from irope.models.tiny.sample import roll_out
from irope.world import Agreement, Scene, agreement, track


@pytest.fixture(scope="module")
def model() -> TinyModel:
    return load_tiny()


def test_the_shipped_weights_draw_unseen_prompts(model: TinyModel) -> None:
    table = verify_tiny(n_prompts=8, model=model)
    assert {name: score.n for name, score in table.items()} == {
        **dict.fromkeys(("color", "background", "pattern", "shape", "visible", "iou", "action"), 8),
        "straight motion": 4,
        "standing still": 1,
        "circling": 1,
        "bouncing": 1,
        "pulsing": 1,
    }
    for name, floor in {"color": 0.9, "background": 0.9, "visible": 0.9, "iou": 0.6, "straight motion": 0.6}.items():
        assert table[name].mean >= floor, name


def test_a_rolling_window_goes_beyond_the_horizon(model: TinyModel) -> None:
    scenes = unseen_scenes(4, seed=3)
    videos = generate(model, [scene.prompt for scene in scenes], 42, seed=0, window=6, sink=1)
    assert all(video.shape == (165, 64, 64, 3) for video in videos)
    late = [agreement(track(video), scene, 101) for video, scene in zip(videos, scenes, strict=True)]
    assert sum(found.color for found in late) / 4 >= 0.75


def test_a_video_depends_on_its_prompt_and_seed_alone(model: TinyModel) -> None:
    prompts = [scene.prompt for scene in unseen_scenes(3, seed=1)]
    together, alone = roll_out(model, prompts, 6), roll_out(model, prompts[1:2], 6)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(alone, roll_out(model, prompts[1:2], 6, seed=1), atol=0.1)


def test_the_weights_are_small_and_say_what_they_are() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) <= 16_000_000
    info = load_tiny().info
    assert info.checkpoint == weights_path().stem
    assert info.sampler_steps == (1000, 750, 500, 250)
    assert (info.fps, info.horizon, info.block) == (16, 21, 3)
    stages = info.recipe["stages"]
    assert isinstance(stages, list)
    assert info.trained_steps == sum(stage["steps"] for stage in stages)


def test_both_checkpoints_are_of_one_run_and_share_their_codec() -> None:
    """Else their scores would differ by their codecs as well, and latents of one would be noise to the other."""
    base, stable = weights_path("base"), weights_path("stable")
    codecs = [{k: w for k, w in load_file(path).items() if k.startswith("codec.")} for path in (base, stable)]
    assert codecs[0].keys() == codecs[1].keys() > {"codec.mean", "codec.basis", "codec.scale"}
    assert not [name for name, tensor in codecs[0].items() if not torch.equal(tensor, codecs[1][name])]
    first, second = (read_metadata(path)[1] for path in (base, stable))
    assert first.recipe == second.recipe
    assert first.recipe["decoder"]
    assert first.recipe_hash == second.recipe_hash


def test_what_is_not_a_weights_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no weights file"):
        load_tiny(tmp_path / "missing.safetensors")
    with pytest.raises(FileNotFoundError, match=r"there are: .*stable"):
        weights_path("stabel")
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, str(other))
    with pytest.raises(ValueError, match="does not hold an embedded model"):
        load_tiny(other)
    other.write_bytes(weights_path().read_bytes()[:1000])
    with pytest.raises(ValueError, match="no readable safetensors"):
        load_tiny(other)


def test_a_rollout_says_what_it_cannot_do(model: TinyModel) -> None:
    with pytest.raises(ValueError, match="whole blocks"):
        roll_out(model, ["a red circle bouncing"], 20)
    with pytest.raises(ValueError, match="at least one prompt"):
        roll_out(model, [], 21)


def test_the_table_counts_what_it_means() -> None:
    def found(action: float, background: float | None) -> Agreement:
        return Agreement(1.0, 1.0, 0.5, 0.8, action, background, background)

    scenes = [Scene("red", "circle", action) for action in ("moving left", "moving up", "circling")]
    table = summarize(scenes, [found(1, None), found(0, 0.5), found(1, 1.0)])
    assert (table["straight motion"].mean, table["straight motion"].n) == (0.5, 2)
    assert (table["background"].mean, table["background"].n) == (0.75, 2)
    assert table["action"].mean == pytest.approx(2 / 3)
    assert table["action"].error == pytest.approx((2 / 9 * 3 / 2 / 3) ** 0.5)  # sample variance over n
    assert table["bouncing"].n == 0
