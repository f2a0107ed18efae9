"""Weight files of the right shapes with random numbers: to test, and to measure speed, where no weights are.

Scores made with them mean nothing. Features of different pictures differ (weights are drawn so that signals keep their
size from layer to layer), the same numbers come out everywhere, and half-precision storage halves the disk space where
the network's loader rounds to it anyway. CLIP's text towers, which no dimension here uses, are shrunk to one layer.
"""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.vbench.packages import load
from eval.vbench.weights import HUB, WEIGHTS, WeightFile

if TYPE_CHECKING:
    from torch import Tensor, nn


def write_random_weights(root: Path, dimensions: Iterable[str]) -> Mapping[str, str]:
    """Write what is missing for these dimensions below ``root``; several processes may do so at once.

    Returns:
        The environment variables under which vbench and torch find them.
    """
    from filelock import FileLock

    places = {"vbench": root / "vbench", "torch": root / "torch" / "hub" / "checkpoints"}
    wanted = set(dimensions)
    for file in WEIGHTS:
        place = places[file.root] / file.below
        if wanted.isdisjoint(file.dimensions) or place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(place.name + ".lock")):
            if not place.exists():
                part = place.with_name(place.name + ".part")
                _write(file, part, places["vbench"])
                part.replace(place)
    return {"VBENCH_CACHE_DIR": str(root / "vbench"), "TORCH_HOME": str(root / "torch")}


def _write(file: WeightFile, part: Path, vbench: Path) -> None:
    import torch

    name = file.below.rpartition("/")[2]
    if file.below.startswith(HUB):
        shutil.copyfile(Path(__file__).parent / "dino_stand_in" / name, part)
    elif file.root == "torch":
        os.link(vbench / "dino_model" / name, part)
    elif name == "bpe_simple_vocab_16e6.txt.gz":
        shutil.copyfile(Path(str(load("clip").__file__)).parent / name, part)
    elif name.endswith(".pt"):
        _archive(_MAKERS[name](), part)
    else:
        torch.save(_MAKERS[name](), part)


def _archive(state: Mapping[str, Tensor], path: Path) -> None:
    """A TorchScript archive with this state dict and no use, the form in which OpenAI publishes CLIP.

    The loader of openai-clip would also take a plain state dict, but cannot read one with current torch.
    """
    import torch
    from torch import nn

    top = nn.Module()
    for name, value in state.items():
        *folders, leaf = name.split(".")
        module = top
        for folder in folders:
            if folder not in module._modules:
                module.add_module(folder, nn.Module())
            module = module.get_submodule(folder)
        module.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(top), path)


def random_state(shapes: Mapping[str, Tensor], seed: int, gain: float = 1.0, half: bool = False) -> dict[str, Tensor]:
    """Random numbers for a state dict of these shapes.

    Weights have the standard deviation gain / sqrt(number of inputs), those of normalisations lie around 1, biases and
    embeddings are small; counters and running statistics of batch normalisation are 0 and 1.

    Args:
        half: store as float16.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, like in shapes.items():
        leaf = name.rpartition(".")[2]
        if not like.is_floating_point() or leaf == "running_mean":
            state[name] = torch.zeros(like.shape, dtype=like.dtype)
            continue
        if leaf == "running_var":
            state[name] = torch.ones(like.shape)
            continue
        normal = torch.randn(like.shape, generator=generator)
        if like.ndim >= 2 and "embed" not in leaf and "token" not in leaf:
            inputs = math.prod(like.shape[1:]) if leaf != "proj" else like.shape[0]
            normal *= gain / math.sqrt(inputs)
        else:
            normal *= 0.1
            if like.ndim == 1 and leaf == "weight":
                normal += 1
        state[name] = normal.half() if half else normal
    return state


def _dino() -> Any:
    from eval.vbench.dino_stand_in.hubconf import VisionTransformer

    return random_state(_shapes(VisionTransformer), seed=1, gain=1.5, half=True)


def _clip(seed: int, embed: int, layers: int, width: int, patch: int) -> Any:
    def build() -> nn.Module:
        model: nn.Module = load("clip.model").CLIP(embed, 224, layers, width, patch, 8, 64, 64, 1, 1)
        return model

    return random_state(_shapes(build), seed, gain=1.5, half=True)


def _aesthetic_head() -> Any:
    from torch import nn

    return random_state(_shapes(lambda: nn.Linear(768, 1)), seed=4, gain=5.0)


def _amt() -> Any:
    from omegaconf import OmegaConf

    folder = Path(str(load("vbench").__file__)).parent
    network = OmegaConf.load(folder / "third_party" / "amt" / "cfgs" / "AMT-S.yaml").network
    build = load("vbench.third_party.amt.utils.build_utils").build_from_cfg
    return {"state_dict": random_state(_shapes(lambda: build(network)), seed=5)}


def _raft() -> Any:
    settings = load("easydict").EasyDict(small=False, mixed_precision=False, alternate_corr=False)
    raft = load("vbench.third_party.RAFT.core.raft").RAFT
    return {f"module.{name}": value for name, value in random_state(_shapes(lambda: raft(settings)), seed=6).items()}


def _musiq() -> Any:
    musiq = load("pyiqa.archs.musiq_arch").MUSIQ
    return random_state(_shapes(lambda: musiq(pretrained=False)), seed=7)


def _viclip() -> Any:
    from eval.vbench.weights import copy_vocabulary

    copy_vocabulary()
    viclip = load("vbench.third_party.ViCLIP.viclip").ViCLIP
    return {"model": random_state(_shapes(lambda: viclip(pretrain=None), meta=False), seed=8, half=True)}


_MAKERS: Mapping[str, Callable[[], Any]] = {
    "dino_vitbase16_pretrain.pth": _dino,
    "ViT-B-32.pt": lambda: _clip(2, 512, 12, 768, 32),
    "ViT-L-14.pt": lambda: _clip(3, 768, 24, 1024, 14),
    "sa_0_4_vit_l_14_linear.pth": _aesthetic_head,
    "amt-s.pth": _amt,
    "raft-things.pth": _raft,
    "musiq_spaq_ckpt-358bb6af.pth": _musiq,
    "ViClip-InternVid-10M-FLT.pth": _viclip,
}


def _shapes(build: Callable[[], nn.Module], meta: bool = True) -> Mapping[str, Tensor]:
    """The state dict of a network whose initial values, drawn from the global generator, nobody sees."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("meta" if meta else "cpu"):
        return dict(build().state_dict())
