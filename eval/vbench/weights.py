"""The weight files of VBench's networks: where each must lie, how large it is, who needs it, and whether it is there.

Nothing here downloads. Sizes and places were read in vbench 0.1.5; `irope vbench weights` prints the list.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from eval.vbench.packages import cache_dir, missing
from irope import digests

Status = Literal["present", "missing", "too small", "wrong digest"]


@dataclass(frozen=True)
class WeightFile:
    """One file.

    Attributes:
        below: its path below ``root``: vbench's own cache folder, or the checkpoints of torch.hub.
        size: bytes of the published file, to three digits; 0 where it does not matter.
        least: fewer bytes cannot hold the network even in half precision: a broken-off download, or an error page.
        dimensions: which of VBench's dimensions read it.
        source: who publishes it, and under which name.
        sha256: of the published file, or its first digits; empty where none is published.
        stock_only: the stock package needs it, the scorers here do not.
    """

    below: str
    size: int
    least: int
    dimensions: tuple[str, ...]
    source: str
    sha256: str = ""
    root: Literal["vbench", "torch"] = "vbench"
    stock_only: bool = False
    note: str = ""

    @property
    def path(self) -> Path:
        return (cache_dir() if self.root == "vbench" else torch_checkpoints()) / self.below


def torch_checkpoints() -> Path:
    """Where torch.hub keeps checkpoints: $TORCH_HOME/hub/checkpoints, by default ~/.cache/torch/hub/checkpoints."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TORCH_HOME") or Path(caches) / "torch").expanduser() / "hub" / "checkpoints"


HUB = "dino_model/facebookresearch_dino_main"
_DINO = "facebookresearch/dino, dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
_VOCABULARY = "ViCLIP/bpe_simple_vocab_16e6.txt.gz"

WEIGHTS = (
    *(
        WeightFile(f"{HUB}/{name}", 0, 1, ("subject_consistency",), "git clone of facebookresearch/dino")
        for name in ("hubconf.py", "vision_transformer.py", "utils.py")
    ),
    WeightFile("dino_model/dino_vitbase16_pretrain.pth", 343_000_000, 171_000_000, ("subject_consistency",), _DINO),
    WeightFile(
        "dino_vitbase16_pretrain.pth",
        343_000_000,
        171_000_000,
        ("subject_consistency",),
        _DINO,
        root="torch",
        stock_only=True,
        note="the same file again: stock VBench only looks whether the first is there, and reads this one",
    ),
    WeightFile(
        "clip_model/ViT-B-32.pt",
        354_000_000,
        175_000_000,
        ("background_consistency",),
        "openai/CLIP, ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    ),
    WeightFile(
        "clip_model/ViT-L-14.pt",
        933_000_000,
        605_000_000,
        ("aesthetic_quality",),
        "openai/CLIP, ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    ),
    WeightFile(
        "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
        4_000,
        1_500,
        ("aesthetic_quality",),
        "LAION-AI/aesthetic-predictor, sa_0_4_vit_l_14_linear.pth",
    ),
    WeightFile(
        "amt_model/amt-s.pth",
        12_000_000,
        5_900_000,
        ("motion_smoothness",),
        "lalala125/AMT on Hugging Face, amt-s.pth",
    ),
    WeightFile(
        "raft_model/models/raft-things.pth",
        21_000_000,
        10_500_000,
        ("dynamic_degree",),
        "princeton-vl/RAFT, raft-things.pth in its models.zip",
    ),
    WeightFile(
        "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
        109_000_000,
        54_000_000,
        ("imaging_quality",),
        "chaofengc/IQA-PyTorch, release v0.1-weights, musiq_spaq_ckpt-358bb6af.pth",
        "358bb6af",
    ),
    WeightFile(
        "ViCLIP/ViClip-InternVid-10M-FLT.pth",
        1_710_000_000,
        855_000_000,
        ("overall_consistency",),
        "OpenGVLab/VBench_Used_Models on Hugging Face, ViClip-InternVid-10M-FLT.pth",
    ),
    WeightFile(
        _VOCABULARY,
        1_360_000,
        1_300_000,
        ("overall_consistency",),
        "openai/CLIP, clip/bpe_simple_vocab_16e6.txt.gz",
        note="`irope vbench install` copies it out of the openai-clip package",
    ),
)


@dataclass(frozen=True)
class Check:
    """What was found at the place of a file; ``sha256`` is known where it was asked for, or once computed."""

    file: WeightFile
    status: Status
    sha256: str = ""


def check(file: WeightFile, digest: bool = False) -> Check:
    """Look at one file: its size, and with ``digest`` its content (a minute for all of them, remembered afterwards)."""
    try:
        size = file.path.stat().st_size
    except OSError:
        return Check(file, "missing")
    if size < file.least:
        return Check(file, "too small")
    sha256 = digests.digest(file.path) if digest else digests.known_digest(file.path)
    return Check(file, "present" if not sha256 or sha256.startswith(file.sha256) else "wrong digest", sha256)


def needed(dimension: str, stock: bool = False) -> tuple[WeightFile, ...]:
    """The files that a dimension reads, here or (``stock``) in the stock package."""
    return tuple(file for file in WEIGHTS if dimension in file.dimensions and (stock or not file.stock_only))


def find(name: str) -> WeightFile:
    """The file of that name in vbench's own cache folder."""
    return next(file for file in WEIGHTS if file.root == "vbench" and file.below.rpartition("/")[2] == name)


def lacking(dimension: str, stock: bool = False) -> str | None:
    """Why a dimension cannot be scored here, as the end of "skipped, because …", or None. Cheap; imports nothing.

    A file with another digest than the published one is used (it may be the same network, saved again): `identity`
    tells its scores from others.
    """
    if reason := missing():
        return reason
    for file in needed(dimension, stock):
        if (found := check(file)).status in ("missing", "too small"):
            return f"{file.path} is {found.status}: see `irope vbench weights`"
    return None


def identity(dimension: str) -> Mapping[str, str]:
    """What the numbers of a dimension depend on: the version of vbench and the digests of its files that are there."""
    found = {file.below: digests.digest(file.path) for file in needed(dimension) if file.path.is_file()}
    with suppress(PackageNotFoundError):
        found["vbench"] = version("vbench")
    return found


def copy_vocabulary() -> Path | None:
    """Put openai-clip's vocabulary where ViCLIP looks for its own, the same file; where it now is, or None."""
    import importlib.util

    place = cache_dir() / _VOCABULARY
    if place.is_file():
        return place
    spec = importlib.util.find_spec("clip")
    if spec is None or spec.origin is None:
        return None
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.{os.getpid()}.part")
    shutil.copyfile(Path(spec.origin).parent / place.name, part)
    return part.replace(place)
