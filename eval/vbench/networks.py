"""VBench's picture networks: loaded once a process from the files that the stock package reads, and run in batches.

Numbers agree with the stock package because everything that decides them is its own: the transforms come from
`vbench.utils`, the networks from the user's hub folder and from openai-clip, with the same rounding of their weights.

Shapes: n frames, B pictures of a batch, T tokens, D features, 3 = RGB.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from eval.scorer import Frames, Part, Rows, Runtime
from eval.vbench.packages import VBenchError, cache_dir, load
from eval.vbench.running import autocast, batches
from eval.vbench.weights import HUB, find

if TYPE_CHECKING:
    from torch import Tensor, nn

SIDE = 224
"""Pixels of the short side that all of these networks see."""

CPU_BATCH = 4
"""Pictures at a time on a CPU: what a layer computes of more of them leaves the caches, and nothing is gained."""


def dino_features(part: Part, runtime: Runtime) -> Rows:
    """DINO ViT-B/16 class features of the frames of a part, float32 [n, 768], not normalised.

    The picture keeps its aspect: short side 224 (bilinear, no antialiasing), no crop.
    """
    network = functools.partial(dino, str(cache_dir()), runtime.device)
    return _rows("dino_transform", "dino", network, part, runtime)


def clip_features(name: str, part: Part, runtime: Runtime) -> Rows:
    """Image features of CLIP (``ViT-B-32``: 512, ``ViT-L-14``: 768), float32 [n, D], not normalised.

    Short side 224 (bicubic, no antialiasing), centre crop. The stock package runs CLIP in half precision on CUDA, in
    float32 on a CPU; here the runtime's precision decides.
    """
    network = functools.partial(clip_image_tower, name, str(cache_dir()), runtime.device)
    return _rows("clip_transform", name, network, part, runtime)


def _rows(transform: str, key: str, network: Callable[[], nn.Module], part: Part, runtime: Runtime) -> Rows:
    def make(frames: Frames) -> Rows:
        model, prepare = network(), getattr(load("vbench.utils"), transform)(SIDE)
        return in_batches(lambda pictures: model(prepare(pictures)), frames, runtime)

    return cast("Rows", part.rows((key, runtime.device, runtime.precision, runtime.batch), make))


def in_batches(run: Callable[[Tensor], Tensor], frames: Frames, runtime: Runtime) -> Rows:
    """``run`` on float32 [B, 3, H, W] of values 0..255, at most ``runtime.batch`` frames at a time; float32 rows.

    On a CPU every core takes small batches of its own with one thread: cores that share each product wait for one
    another after every layer, which cost up to a third of the CPU time on a busy machine with two cores.
    """
    import torch

    def rows(batch: slice) -> Rows:
        with inference(runtime):
            # The memory layout of the stock package, channels last, so that the same kernels run.
            pictures = torch.from_numpy(frames[batch]).to(runtime.device)
            return cast("Rows", run(pictures.float().permute(0, 3, 1, 2)).float().cpu().numpy())

    on_cpu = torch.device(runtime.device).type == "cpu"
    workers, size = (torch.get_num_threads(), min(CPU_BATCH, runtime.batch)) if on_cpu else (1, runtime.batch)
    with _one_thread_each(workers) as each:
        return np.concatenate(list(each(rows, batches(len(frames), size))))


@contextmanager
def _one_thread_each(workers: int) -> Iterator[Callable[..., Iterator[Rows]]]:
    """A `map` over that many threads of Python's, each of which computes with one thread of torch's."""
    import torch

    if workers == 1:
        yield map
        return
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(workers)  # some of what a worker sets counts for the whole process


@contextmanager
def inference(runtime: Runtime) -> Iterator[None]:
    """No gradients and true float32 (no TF32); with ``runtime.precision == "half"`` half precision where it is safe.

    Half (bfloat16 on a CPU) changed subject consistency by 2e-5 to 1.3e-4 and background consistency by 3e-5 to 3.3e-4
    on moving clips with random weights; real weights may differ.
    """
    import torch

    half = autocast(torch.device(runtime.device), runtime.precision == "half")
    if torch.device(runtime.device).type == "cpu":
        with torch.inference_mode(), half:
            yield
        return
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = False
    try:
        with torch.inference_mode(), half:
            yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


@functools.cache
def dino(cache: str, device: str) -> nn.Module:
    """DINO's ViT-B/16 from the hub folder, float32; maps normalised pictures [B, 3, H, W] to [B, 768].

    Reads the copy of the weights below the cache; the one that stock VBench reads, in torch.hub's folder, is the same.
    """
    import torch

    load("torchvision.models")  # which the hub folder imports
    with _hub_modules(), torch.random.fork_rng(devices=[]):
        network = torch.hub.load(f"{cache}/{HUB}", "dino_vitb16", source="local", pretrained=False)
    network.load_state_dict(read_state("dino_vitbase16_pretrain.pth"))
    network = network.to(device).eval().requires_grad_(False)
    return _FastDino(network) if _agrees(network, device) else network


@functools.cache
def clip_image_tower(name: str, cache: str, device: str) -> nn.Module:
    """The image side of an OpenAI CLIP model, float32; maps normalised pictures [B, 3, 224, 224] to [B, D].

    Most weights go through float16 on the way, as they do in `clip.load`.
    """
    import torch

    model = load("clip.model")
    state = {
        key.removeprefix("visual."): value
        for key, value in read_state(f"{name}.pt").items()
        if key.startswith("visual.")
    }
    width, layers = state["class_embedding"].shape[0], 1 + max(int(k.split(".")[2]) for k in state if "resblocks" in k)
    patch, outputs = state["conv1.weight"].shape[-1], state["proj"].shape[1]
    with torch.device("meta"):
        tower = model.VisionTransformer(SIDE, patch, width, layers, width // 64, outputs)
    tower.load_state_dict(state, assign=True)
    model.convert_weights(tower)
    return cast("nn.Module", tower.float().to(device).eval().requires_grad_(False))


@functools.cache
def aesthetic_head(cache: str, device: str) -> nn.Module:
    """LAION's linear head on normalised CLIP ViT-L/14 features: [B, 768] to [B, 1], about 0 to 10."""
    from torch import nn

    head = nn.Linear(768, 1)
    head.load_state_dict(read_state("sa_0_4_vit_l_14_linear.pth"))
    return head.to(device).eval().requires_grad_(False)


def read_state(name: str, trusted: bool = False) -> dict[str, Any]:
    """A checkpoint of vbench's cache folder on the CPU: a state dict, or what holds it, or a TorchScript archive.

    Args:
        trusted: let the file name classes besides tensors, as AMT's does.

    Raises:
        VBenchError: the file is damaged, or no such checkpoint.
    """
    import pickle
    import warnings
    import zipfile

    import torch

    path = find(name).path
    try:
        if name.endswith(".pt") and "constants.pkl" in "".join(zipfile.ZipFile(path).namelist()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                return dict(torch.jit.load(path, map_location="cpu").state_dict())
        return cast("dict[str, Any]", torch.load(path, map_location="cpu", weights_only=not trusted))
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        first = str(error).strip().partition("\n")[0]
        raise VBenchError(
            f"{path} cannot be read ({first}): run `irope vbench weights --digest` and get the file again"
        ) from error


@contextmanager
def _hub_modules() -> Iterator[None]:
    """The hub folder has modules with plain names; they are its own while it loads, and forgotten afterwards."""
    names = ("hubconf", "vision_transformer", "utils")
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _FastDino(network: nn.Module) -> nn.Module:  # noqa: N802 - a class that can only be made once torch is imported
    """DINO's forward pass with fused attention, and the last block only for the class token, which alone is read."""
    import torch.nn.functional as F
    from torch import nn

    class Fast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pictures: Tensor) -> Tensor:
            x_BTD: Tensor = network.prepare_tokens(pictures)  # type: ignore[operator]
            blocks = list(network.blocks)  # type: ignore[arg-type]
            for block in blocks:
                asking = 1 if block is blocks[-1] else None
                x_BTD = x_BTD[:, :asking] + attention(block.attn, block.norm1(x_BTD), asking)
                x_BTD = x_BTD + block.mlp(block.norm2(x_BTD))
            return cast("Tensor", network.norm(x_BTD[:, 0]))  # type: ignore[operator]

    def attention(layer: Any, x_BTD: Tensor, asking: int | None) -> Tensor:
        q, k, v = layer.qkv(x_BTD).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q[:, :, :asking], k, v)
        return cast("Tensor", layer.proj(mixed.transpose(1, 2).flatten(2)))

    return Fast()


def _agrees(network: nn.Module, device: str) -> bool:
    """Whether the fast forward pass is that of this hub folder: tried on two small pictures."""
    import torch

    pictures = torch.linspace(-2, 2, 2 * 3 * 64 * 96, device=device).sin().reshape(2, 3, 64, 96)
    with inference(Runtime(device)):
        try:
            fast, slow = _FastDino(network)(pictures), network(pictures)
        except (AttributeError, RuntimeError, TypeError):
            return False
        return bool(torch.linalg.norm(fast - slow) <= 1e-5 * torch.linalg.norm(slow))
