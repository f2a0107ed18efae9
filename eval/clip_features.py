"""The networks of VBench-Long's fast branch: DINOv2 for the subject, DreamSim for the background. Neither downloads."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eval.scorer import Accumulator, Frames, Measurement, Part, Rows, Runtime, Scorer, Take
from eval.scorers.consistency import ConsistencyTerms
from eval.vbench.packages import prepare
from eval.vbench.weights import torch_checkpoints

if TYPE_CHECKING:
    import torch

Network = Literal["dinov2_vitb14", "dreamsim_ensemble"]

NETWORKS: Mapping[str, Network] = {
    "subject_consistency": "dinov2_vitb14",
    "background_consistency": "dreamsim_ensemble",
}


def needed(network: Network) -> dict[Path, str]:
    """Where the files of a network must lie, and who publishes them; the places at which VBench-Long looks, too."""
    if network == "dinov2_vitb14":
        checkpoints = torch_checkpoints()
        return {
            checkpoints.parent / "facebookresearch_dinov2_main" / "hubconf.py": "a clone of facebookresearch/dinov2",
            checkpoints / "dinov2_vitb14_pretrain.pth": "dl.fbaipublicfiles.com/dinov2/dinov2_vitb14, 346 MB",
        }
    archive = "ssundaram21/dreamsim, release v0.2.0-checkpoints, dreamsim_ensemble_checkpoint.zip, unpacked"
    names = ("dino_vitb16_pretrain.pth", "open_clip_vitb16_pretrain.pth.tar", "clip_vitb16_pretrain.pth.tar")
    return {Path.home() / ".cache" / name: archive for name in (*names, "ensemble_lora/adapter_config.json")}


@dataclass(frozen=True)
class ClipFeatures(Scorer):
    """The consistency formula on features of one of `NETWORKS`, always in float32: one frame a clip costs little."""

    network: Network = "dinov2_vitb14"
    family = "vbench"

    def unavailable(self) -> str | None:
        for package in ("torchvision", *(["dreamsim"] if self.network == "dreamsim_ensemble" else [])):
            if importlib.util.find_spec(package) is None:
                return f"{self.network} needs the package {package}: pip install {package}"
        for path, source in needed(self.network).items():
            if not path.is_file():
                return f"{self.network} needs {path} ({source})"
        return None

    def identity(self) -> Mapping[str, Any]:
        return {path.name: _digest(path, path.stat().st_mtime_ns) for path in needed(self.network) if path.is_file()}

    def open(self, take: Take, runtime: Runtime) -> Accumulator:
        return _Features(self.network, take.frames, runtime.device)


class _Features:
    def __init__(self, network: Network, frames: int, device: str) -> None:
        self.key, self.terms = (network, device), ConsistencyTerms(frames)
        self.features = (_dinov2 if network == "dinov2_vitb14" else _dreamsim)(
            next(iter(needed(network))).parent, device
        )

    def push(self, part: Part) -> None:
        self.terms.push(part.rows(self.key, self.features))

    def close(self) -> Measurement:
        return self.terms.close()


@cache
def _dinov2(folder: Path, device: str) -> Callable[[Frames], Rows]:
    """Class features [n, 768]. As in VBench-Long's dinov2_transform: bicubic with torchvision's default antialias."""
    import torch

    prepare()
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    network = torch.hub.load(str(folder), "dinov2_vitb14", source="local", verbose=False).to(device).eval()
    resize = transforms.Compose(
        [transforms.Resize(256, InterpolationMode.BICUBIC), transforms.CenterCrop(224), transforms.Lambda(_unit)]
    )
    normalise = transforms.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return _runner(lambda pictures: network(normalise(resize(pictures))), device)


@cache
def _dreamsim(folder: Path, device: str) -> Callable[[Frames], Rows]:
    """Embeddings [n, D] of the ensemble. As in VBench-Long's dreamsim_transform: 224x224, whatever the aspect ratio."""
    prepare()
    dreamsim = importlib.import_module("dreamsim").dreamsim
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    network, _ = dreamsim(pretrained=True, device=device, cache_dir=str(folder))
    resize = transforms.Compose([transforms.Resize((224, 224), InterpolationMode.BICUBIC), transforms.Lambda(_unit)])
    return _runner(lambda pictures: network.embed(resize(pictures)), device)


def _unit(pictures: torch.Tensor) -> torch.Tensor:
    return pictures / 255


def _runner(features: Callable[[torch.Tensor], torch.Tensor], device: str) -> Callable[[Frames], Rows]:
    import torch

    def run(frames: Frames) -> Rows:
        with torch.inference_mode():
            pictures = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float()
            rows: Rows = features(pictures).reshape(len(frames), -1).float().cpu().numpy()
        return rows

    return run


@cache
def _digest(path: Path, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
