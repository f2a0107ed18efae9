"""The programs that run under other projects' Python, with stand-ins for those projects and for torch.

The stand-ins take the arguments that the published code takes, and no others; what they were given is looked at here.
"""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from baselines.systems.chain import clip_seed
from baselines.systems.magi_1 import Magi1
from baselines.systems.nova import Nova
from baselines.systems.pyramid_flow import PyramidFlow
from baselines.systems.subprocess_system import RUNNERS, SubprocessSystem
from irope.systems import Place, Request, RunInfo, Shot

SIZE = (16, 32)
SEED = 7

TORCH = """
import contextlib, json, types

def note(**facts):
    with open("calls.jsonl", "a") as file:
        file.write(json.dumps(facts) + "\\n")

float16, bfloat16 = "float16", "bfloat16"

class Generator:
    def __init__(self, device): self.device = device
    def manual_seed(self, seed):
        self.seed = seed
        return self

def manual_seed(seed): note(manual_seed=seed)

@contextlib.contextmanager
def no_grad(): yield

@contextlib.contextmanager
def autocast(enabled, dtype):
    note(autocast=dtype)
    yield

cuda = types.SimpleNamespace(
    get_device_name=lambda: "a stand-in", max_memory_allocated=lambda: 123, set_device=lambda n: None,
    amp=types.SimpleNamespace(autocast=autocast))
"""

NOVA = """
import types
import numpy as np
from torch import note

class Transformer:
    def progress_bar(self, iterable, enable=True): return iterable

class NOVAPipeline:
    @classmethod
    def from_pretrained(cls, path, torch_dtype, trust_remote_code, local_files_only):
        note(loaded=path, dtype=torch_dtype, trust=trust_remote_code, local=local_files_only)
        return cls()

    def __init__(self): self.transformer = Transformer()
    def to(self, device): note(device=device)
    def enable_model_cpu_offload(self): note(device="offload")

    def __call__(self, prompt=None, num_inference_steps=64, num_diffusion_steps=25, max_latent_length=1,
                 guidance_scale=5, motion_flow=5, negative_prompt=None, image=None, generator=None, output_type="pil"):
        assert output_type == "np" and generator.device == "cuda"
        print("a bar that is none of our business")
        steps = list(self.transformer.progress_bar(range(max_latent_length), True))
        start = 0 if image is None else int(image[0, 0, 0])
        note(prompt=prompt, seed=generator.seed, latents=len(steps), steps=num_inference_steps,
             diffusion=num_diffusion_steps, guidance=guidance_scale, flow=motion_flow, negative=negative_prompt,
             image=None if image is None else [*image.shape, str(image.dtype), start])
        frames = 1 + 4 * (max_latent_length - 1)
        values = (start + np.arange(frames)).astype(np.uint8)
        return types.SimpleNamespace(frames=np.broadcast_to(values[:, None, None, None], (frames, 16, 32, 3))[None])
"""

PYRAMID = """
import numpy as np
from PIL import Image
from torch import note

class Part:
    def to(self, device): note(part=device)
    def enable_tiling(self): note(tiling=True)

class PyramidDiTForVideoGeneration:
    def __init__(self, model_path, model_dtype="bf16", model_name="pyramid_mmdit", model_variant=""):
        note(loaded=model_path, dtype=model_dtype, name=model_name, variant=model_variant)
        self.vae, self.dit, self.text_encoder = Part(), Part(), Part()

    def generate(self, prompt=None, height=None, width=None, temp=1, num_inference_steps=28,
                 video_num_inference_steps=28, guidance_scale=7.0, video_guidance_scale=7.0, generator=None,
                 output_type="pil", save_memory=True, cpu_offloading=False, callback=None):
        note(call="generate", prompt=prompt, size=[height, width], temp=temp, first=num_inference_steps,
             steps=video_num_inference_steps, guidance=guidance_scale, video=video_guidance_scale,
             seed=generator.seed, offload=cpu_offloading)
        return self.frames(temp, 0, width, height, callback, range(temp))

    def generate_i2v(self, prompt="", input_image=None, temp=1, num_inference_steps=28, video_guidance_scale=4.0,
                     generator=None, output_type="pil", save_memory=True, cpu_offloading=False, callback=None):
        start = input_image.getpixel((0, 0))[0]
        note(call="i2v", prompt=prompt, size=list(input_image.size), temp=temp, steps=num_inference_steps,
             video=video_guidance_scale, seed=generator.seed, start=start, offload=cpu_offloading)
        return self.frames(temp, start, input_image.width, input_image.height, callback, range(1, temp))

    def frames(self, temp, start, width, height, callback, units):
        for unit in units:
            callback(unit, temp)
        return [Image.new("RGB", (width, height), ((start + i) % 256,) * 3) for i in range(1 + 8 * (temp - 1))]
"""

MAGI = {
    "inference/pipeline/entry.py": "",
    "inference/pipeline/__init__.py": """
import json, os, types
from torch import note

class MagiPipeline:
    def __init__(self, config_path):
        values = json.load(open(config_path))
        names = ("MASTER_ADDR", "WORLD_SIZE", "RANK", "PAD_HQ", "PAD_DURATION", "OFFLOAD_VAE_CACHE")
        note(runtime=values["runtime_config"], engine=values["engine_config"], env={n: os.environ[n] for n in names})
        self.config = types.SimpleNamespace(**values["runtime_config"])
""",
    "inference/pipeline/prompt_process.py": "def get_txt_embeddings(prompt, config): return prompt + '!', 'mask'",
    "inference/model/dit.py": "def get_dit(config): return 'dit'",
    "inference/pipeline/video_generate.py": """
from torch import note

def generate_per_chunk(model, PROMPT prefix_video, caption_embs, emb_masks):
    note(model=model, prefix=prefix_video, text=caption_embs, masks=emb_masks)
    yield from range(COUNT)
""",
    "inference/pipeline/video_process.py": """
import numpy as np

class Tensor:
    def __init__(self, values): self.values = values
    def permute(self, *axes): return Tensor(self.values.transpose(axes))
    def contiguous(self): return self
    def cpu(self): return self
    def numpy(self): return np.ascontiguousarray(self.values)

def post_chunk_process(chunk, config):
    values = (24 * chunk + np.arange(24)).astype(np.uint8)
    return Tensor(np.broadcast_to(values[:, None, None, None], (24, 3, config.video_size_h, config.video_size_w)))
""",
}


@dataclass(frozen=True)
class TinyNova(Nova):
    size: ClassVar[tuple[int, int]] = SIZE


@dataclass(frozen=True)
class TinyPyramid(PyramidFlow):
    def picture(self) -> tuple[int, int]:
        return SIZE


class Stand:
    """A checkout with a stand-in, and a video made with it."""

    def __init__(self, folder: Path) -> None:
        self.repo, self.work = folder / "repo", folder / "work"
        self.work.mkdir()
        self.frames: list[int] = []
        self.add("torch.py", TORCH)

    def add(self, name: str, text: str) -> None:
        (self.repo / name).parent.mkdir(parents=True, exist_ok=True)
        (self.repo / name).write_text(text)

    def make(self, system: SubprocessSystem, frames: int, *shots: Shot, **own: Any) -> RunInfo:
        place = Place(Path("/weights"), own={"python": sys.executable, "repo": str(self.repo), **own})
        shots = shots or (Shot("a cat", 0, frames),)
        request = Request(shots, frames / system.rate(), frames, SEED, self.work, place)
        info = system.generate(request, self.out, lambda: None, lambda: False)
        assert self.frames[:frames] == [i % 256 for i in range(frames)]
        return info

    def out(self, frames: np.ndarray) -> None:
        assert frames.shape[1:] == (*SIZE, 3)
        self.frames += frames[:, 0, 0, 0].tolist()

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.repo / "calls.jsonl").read_text().splitlines()]


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def test_nova(stand: Stand) -> None:
    stand.add("diffnext/__init__.py", "")
    stand.add("diffnext/pipelines/__init__.py", NOVA)
    info = stand.make(TinyNova(latents=3, guidance=7.0), 20, Shot("a cat", 0, 9), Shot("a dog", 9, 20))
    assert info.calls == 3
    assert info.peak_bytes == 123
    assert info.notes == ("made on a stand-in",)
    loaded, device, *clips = stand.calls
    assert loaded["loaded"] == "/weights/BAAI/nova-d48w1024-osp480"
    assert loaded["local"] is True
    assert device == {"device": "cuda"}
    common = {"latents": 3, "steps": 64, "diffusion": 25, "guidance": 7.0, "flow": 5, "negative": None}
    seeds = [SEED, clip_seed(SEED, 1), clip_seed(SEED, 2)]
    images = [None, [*SIZE, 3, "uint8", 8], [*SIZE, 3, "uint8", 16]]
    assert clips == [
        {"prompt": prompt, "seed": seed, "image": image} | common
        for prompt, seed, image in zip(("a cat", "a dog", "a dog"), seeds, images, strict=True)
    ]


def test_nova_on_a_small_gpu(stand: Stand) -> None:
    stand.add("diffnext/__init__.py", "")
    stand.add("diffnext/pipelines/__init__.py", NOVA)
    stand.make(TinyNova(latents=3), 5, offload=True, weights="/elsewhere")
    assert stand.calls[0]["loaded"] == "/elsewhere"
    assert stand.calls[1] == {"device": "offload"}


@pytest.mark.parametrize(("model", "name"), [("miniflux", "pyramid_flux"), ("sd3", "pyramid_mmdit")])
def test_pyramid_flow(stand: Stand, model: Any, name: str) -> None:
    stand.add("pyramid_dit/__init__.py", PYRAMID)
    offload = model == "sd3"
    info = stand.make(TinyPyramid(model=model, variant="384p", guidance=9.0), 130, offload=offload)
    assert info.calls == 2
    loaded, *rest = stand.calls
    weights = f"/weights/rain1011/pyramid-flow-{model}"
    assert loaded == {"loaded": weights, "dtype": "bf16", "name": name, "variant": "diffusion_transformer_384p"}
    assert rest[:-6] == [{"tiling": True}, *([] if offload else [{"part": "cuda"}] * 3)]
    seeds = [SEED, clip_seed(SEED, 1)]
    first = {"call": "generate", "size": list(SIZE), "first": [20] * 3, "guidance": 9.0, "video": 5.0}
    second = {"call": "i2v", "size": [*reversed(SIZE)], "video": 4.0, "start": 120}
    common = {"prompt": "a cat", "temp": 16, "steps": [10] * 3, "offload": offload}
    for seed, made, call in zip(seeds, (rest[-6:-3], rest[-3:]), (first, second), strict=True):
        assert made == [{"manual_seed": seed}, {"autocast": "bfloat16"}, call | common | {"seed": seed}]


@pytest.mark.parametrize("prompt", ["", "prompt,"])
def test_magi_1(stand: Stand, prompt: str) -> None:
    for path, text in MAGI.items():
        stand.add(path, text.replace("PROMPT", prompt).replace("COUNT", "3"))
    stand.add("inference/model/__init__.py", "")
    shipped = {"runtime_config": {"seed": 1234, "window_size": 4, "num_steps": 32}, "engine_config": {"distill": True}}
    stand.add("example/4.5B/4.5B_distill_config.json", json.dumps(shipped))
    info = stand.make(Magi1(height=SIZE[0], width=SIZE[1], special_tokens=False), 60)
    assert info.calls == 1
    config, generated = stand.calls
    ckpt = "/weights/sand-ai/MAGI-1/ckpt"
    assert config["runtime"] == {
        "seed": SEED,
        "num_frames": 72,
        "fps": 24,
        "video_size_h": SIZE[0],
        "video_size_w": SIZE[1],
        "num_steps": 64,
        "window_size": 4,
        "load": f"{ckpt}/magi/4.5B_distill",
        "vae_pretrained": f"{ckpt}/vae",
        "t5_pretrained": f"{ckpt}/t5",
    }
    assert config["engine"] == {"distill": True}
    assert config["env"]["PAD_HQ"] == config["env"]["PAD_DURATION"] == "0"
    assert config["env"]["OFFLOAD_VAE_CACHE"] == "false"
    assert generated == {"model": "dit", "prefix": None, "text": "a cat!", "masks": "mask"}


@pytest.mark.parametrize("path", sorted(RUNNERS.glob("*.py")), ids=lambda path: path.stem)
def test_a_runner_needs_python_3_8_and_nothing_of_ours(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    found |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in found} <= sys.stdlib_module_names | {"protocol"}
    everything = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in everything if name.partition(".")[0] in ("irope", "eval", "baselines")}
    assert "annotations" in {alias.name for node in top if isinstance(node, ast.ImportFrom) for alias in node.names}
