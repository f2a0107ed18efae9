"""Systems that diffusers runs: what a video takes, and whole videos of tiny random pipelines in published layout."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.systems.ltx_video import LTXVideo
from baselines.systems.pipeline import _hidden_seed, hidden_seed
from baselines.systems.skyreels_v2 import SkyReelsV2
from baselines.systems.wan_2_1 import Wan21
from irope.config import load
from irope.errors import UserError
from irope.experiment import experiment_from
from irope.generate import generate
from irope.jobs import jobs_from
from irope.settings import defaults
from irope.systems import (
    ImpossibleError,
    Interrupted,
    Place,
    Request,
    Shot,
    SystemSettingsError,
    make_system,
    systems,
)
from irope.video import frame_hash, read_frames
from tests.diffusers_kit import import_diffusers

SIDE = 32


@pytest.mark.parametrize(
    ("seconds", "made", "windows", "kept"),
    [
        (1, 25, 1, 25),
        (4, 97, 1, 97),
        (5, 121, 2, 121),
        (10, 257, 3, 240),
        (30, 737, 9, 720),
        (60, 1457, 18, 1440),
        (120, 2897, 36, 2880),
        (240, 5777, 72, 5760),
    ],
)
def test_what_a_skyreels_video_takes(seconds: float, made: int, windows: int, kept: int):
    plan = SkyReelsV2().plan(seconds)
    assert (plan.frames_made, plan.calls, plan.frames_kept) == (made, windows, kept)


@pytest.mark.parametrize("frames", range(1, 90, 4))
def test_windows_are_counted_as_the_pipeline_does(frames: int):
    system = SkyReelsV2(window=17, overlap=5)
    latents, window, overlap = (frames - 1) // 4 + 1, 5, 2
    counted = 1 if latents <= window else 1 + (latents - window - 1) // (window - overlap) + 1
    assert len(system.windows(frames)) == counted


@pytest.mark.parametrize(("system", "frames"), [(Wan21(), 81), (LTXVideo(), 121)])
def test_five_seconds_are_native_and_more_is_impossible(system: Any, frames: int):
    plan = system.plan(5)
    assert (plan.calls, plan.frames_made, plan.frames_kept) == (1, frames, frames)
    with pytest.raises(ImpossibleError, match=f"up to {frames} frames"):
        system.plan(6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 540}, "nearest valid: 528 or 544"),
        ({"window": 96}, "nearest valid: 97"),
        ({"overlap": 97}, "leaves nothing new"),
        ({"dtype": "int8"}, "bfloat16, float16 or float32"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str):
    with pytest.raises(SystemSettingsError, match=message):
        make_system({"name": "skyreels_v2", **settings})


@pytest.mark.parametrize("name", sorted(systems()))
def test_a_method_file_has_every_setting_with_its_default(name: str):
    method = load([f"method={name}"])["video"]["method"]
    assert method["system"] == {"name": name, **defaults(systems()[name])}
    assert method["description"]
    system = systems()[name]
    assert system.title
    assert system.licence or name == "folder"


def test_missing_weights_are_one_line_with_the_command(tmp_path: Path):
    with pytest.raises(UserError, match=r"hf download Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers --local-dir") as error:
        jobs_from(load(["method=skyreels_v2", "prompt=a cat", f"sys.weights={tmp_path}", f"sys.out={tmp_path}/out"]))
    assert "\n" not in str(error.value)
    assert "--include model_index.json 'transformer/*'" in str(error.value)


def text_parts(encoder: str, width: int) -> dict[str, Any]:
    """A tokenizer of three words, and an encoder with random weights."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "cat": 3}, "<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)
    config = getattr(transformers, f"{encoder}Config")(
        vocab_size=8, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    return {"tokenizer": tokenizer, "text_encoder": getattr(transformers, f"{encoder}EncoderModel")(config)}


def wan_parts() -> dict[str, Any]:
    diffusers = import_diffusers()
    schedule = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    return {
        "vae": diffusers.AutoencoderKLWan(base_dim=8),
        "scheduler": diffusers.UniPCMultistepScheduler(**schedule),
        **text_parts("UMT5", 16),
    }


def transformer(kind: str, **more: Any) -> Any:
    return getattr(import_diffusers(), kind)(
        num_attention_heads=2, attention_head_dim=12, text_dim=16, freq_dim=16, ffn_dim=16, num_layers=1, **more
    )


def save(root: Path, system: Any, **parts: Any) -> None:
    pipeline = getattr(import_diffusers(), system.pipeline)(**parts)
    pipeline.save_pretrained(root / system.needs[0])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("accelerate")
    root = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sky = transformer("SkyReelsV2Transformer3DModel", inject_sample_info=True)
        save(root, SkyReelsV2(), transformer=sky, **wan_parts())
        save(root, Wan21(), transformer=transformer("WanTransformer3DModel"), **wan_parts())
        diffusers = import_diffusers()
        save(
            root,
            LTXVideo(),
            transformer=diffusers.LTXVideoTransformer3DModel(
                in_channels=8,
                out_channels=8,
                num_attention_heads=2,
                attention_head_dim=8,
                cross_attention_dim=16,
                num_layers=1,
                caption_channels=16,
            ),
            vae=diffusers.AutoencoderKLLTXVideo(
                latent_channels=8,
                block_out_channels=(8, 8, 8, 8),
                decoder_block_out_channels=(8, 8, 8, 8),
                layers_per_block=(1, 1, 1, 1, 1),
                decoder_layers_per_block=(1, 1, 1, 1, 1),
            ),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            **text_parts("T5", 16),
        )
    return root


def config_of(method: str, weights: Path, out: Path, *more: str) -> Any:
    small = [f"video.method.system.{name}" for name in ("height=32", "width=32", "steps=2", "dtype=float32")]
    places = [f"sys.weights={weights}", f"sys.out={out}", "sys.device=cpu"]
    return load([f"method={method}", "prompt=cat", *small, *places, *more])


WINDOWS = ("video.method.system.window=9", "video.method.system.overlap=5")


def test_skyreels_from_a_published_folder(weights: Path, tmp_path: Path):
    """Long mode with overlap and noise on it; the stream's frames are those of the pipeline's own decoding."""
    torch.rand(1)  # the hidden generator stands anywhere
    (job,) = jobs_from(config_of("skyreels_v2", weights, tmp_path, *WINDOWS, "duration=1"))
    sidecar = generate(job, None)
    assert (sidecar["fps"], sidecar["pixel_frames"], sidecar["size"]) == (24, 25, [SIDE, SIDE])
    assert sidecar["run"]["calls"] == 5
    assert sidecar["record"]["model"]["weights"].keys() == {SkyReelsV2.needs[0], "diffusers"}
    assert json.dumps(sidecar["config"])
    pipe = import_diffusers().SkyReelsV2DiffusionForcingPipeline.from_pretrained(weights / SkyReelsV2.needs[0])
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, flow_shift=8.0)
    pipe.set_progress_bar_config(disable=True)
    with torch.random.fork_rng():
        torch.manual_seed(hidden_seed(job.seed))
        theirs = pipe(
            prompt="cat", height=SIDE, width=SIDE, num_frames=25, num_inference_steps=2, guidance_scale=6.0,
            base_num_frames=9, overlap_history=5, addnoise_condition=20, fps=24, negative_prompt="",
            generator=torch.Generator().manual_seed(job.seed), output_type="np",
        ).frames[0]  # fmt: skip
    shown: list[Any] = []
    place = Place(weights, "cpu")
    assert job.system is not None
    job.system.generate(
        Request((Shot("cat", 0, 25),), 1.0, 25, job.seed, tmp_path, place), shown.append, lambda: None, lambda: False
    )
    ours = np.concatenate(shown)
    assert ours.shape == theirs.shape
    assert ours.std() > 5
    assert np.abs(ours / 255 - theirs).max() <= 0.51 / 255  # nothing but the rounding to bytes
    assert frame_hash(ours) == sidecar["frames_sha256_chain"]
    again = generate(jobs_from(config_of("skyreels_v2", weights, tmp_path / "b", *WINDOWS, "duration=1"))[0], None)
    assert again["frames_sha256_chain"] == sidecar["frames_sha256_chain"]
    other = config_of("skyreels_v2", weights, tmp_path / "c", *WINDOWS, "duration=1", "seed=1")
    assert generate(jobs_from(other)[0], None)["frames_sha256_chain"] != sidecar["frames_sha256_chain"]


def test_skyreels_takes_another_prompt_from_a_window_on(weights: Path, tmp_path: Path):
    """Windows begin at frames 0, 9, 13, 17 and 21; nothing changes before the switch, nor if the text is the same."""

    def made(prompt: str) -> tuple[Any, tuple[str, ...]]:
        (job,) = jobs_from(config_of("skyreels_v2", weights, tmp_path, *WINDOWS, f"prompt={prompt}"))
        assert job.system is not None
        shots = tuple(Shot(s.prompt, s.start_block, s.stop_block, s.cut) for s in job.timeline.segments)
        request, shown = Request(shots, 25 / 24, 25, job.seed, tmp_path, Place(weights, "cpu")), list[Any]()
        info = job.system.generate(request, shown.append, lambda: None, lambda: False)
        return np.concatenate(shown), info.notes

    one, _ = made("cat[1.0417s]")
    same, _ = made("cat[0.6667s] | cat[0.375s]")
    other, notes = made("cat[0.6667s] | dog[0.375s]")
    assert np.array_equal(same, one)
    assert np.array_equal(other[:17], one[:17])
    assert all((other[at] != one[at]).any() for at in range(17, 25))
    assert notes == ("the prompt of frame 16 begins at frame 17, where a clip begins",)


def test_the_hidden_generator_is_the_seeds_own_and_put_back():
    """SkyReels' noise on the overlap comes from it, too little to show in frames of random weights."""

    def drawn(seed: int, before: int) -> float:
        torch.rand(before)
        with _hidden_seed(seed, "cpu"):
            return float(torch.rand(1))

    state = torch.get_rng_state()
    with _hidden_seed(3, "cpu"):
        torch.rand(5)
    assert torch.equal(torch.get_rng_state(), state)
    assert drawn(3, 1) == drawn(3, 2) != drawn(4, 1)
    assert drawn(3, 1) != float(torch.rand(1, generator=torch.Generator().manual_seed(3))), "not the latents' noise"


def test_skyreels_stops_between_steps(weights: Path, tmp_path: Path):
    (job,) = jobs_from(config_of("skyreels_v2", weights, tmp_path, *WINDOWS, "duration=1"))
    with pytest.raises(Interrupted, match="starts over"):
        generate(job, None, stop=lambda: True)
    assert not job.video.exists()


@pytest.mark.parametrize(("method", "fps", "frames"), [("wan_2_1", 16, 9), ("ltx_video", 24, 9)])
def test_five_second_systems_from_a_published_folder(weights: Path, tmp_path: Path, method: str, fps: int, frames: int):
    published = "video.method.system.dtype=bfloat16"
    (job,) = jobs_from(config_of(method, weights, tmp_path, f"duration={8.1 / fps}", published))
    sidecar = generate(job, None)
    assert (sidecar["fps"], sidecar["pixel_frames"], sidecar["size"]) == (fps, frames, [SIDE, SIDE])
    assert sum(len(chunk) for chunk in read_frames(job.video)) == frames


def test_a_part_that_is_missing_or_cut_off_is_one_line(weights: Path, tmp_path: Path):
    repo = tmp_path / "weights" / Wan21.needs[0]
    shutil.copytree(weights / Wan21.needs[0], repo)
    file = repo / "transformer" / "diffusion_pytorch_model.safetensors"
    (job,) = jobs_from(config_of("wan_2_1", tmp_path / "weights", tmp_path, "duration=0.5"))
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(UserError, match="WanPipeline cannot be loaded from it") as error:
        generate(job, None)
    assert "\n" not in str(error.value)
    assert jobs_from(config_of("wan_2_1", tmp_path / "weights", tmp_path, "duration=0.5"))[0].key != job.key
    shutil.rmtree(file.parent)
    with pytest.raises(UserError, match=r"only a part is there, without transformer/\*; .*hf download") as error:
        generate(job, None)
    assert "\n" not in str(error.value)


def test_an_experiment_leaves_out_a_system_that_cannot_make_its_videos():
    words = ["method=infinity_rope,wan_2_1", "prompts=basic", "video.prompts.limit=1", "duration=60"]
    experiment = experiment_from(words, multirun=True)
    made = {cell.label: len(list(experiment.jobs(cell))) for cell in experiment.cells}
    assert made == {"infinity_rope": 1, "wan_2_1": 0}
    assert "up to 81 frames" in experiment.left_out["wan_2_1"]
