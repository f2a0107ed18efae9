"""The machine: Python, torch, GPU and its memory, attention kernels, video codecs, disk."""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from contextlib import suppress
from pathlib import Path

from irope.config import Settings
from irope.doctor.finding import IN_PROCESS, Finding, State, imported, installed, public, uses_system, uses_wan
from irope.doctor.needs import lacking_parts
from irope.models.wan.card import GEOMETRY, STRIDE, TEXT_LEN, size_of
from irope.policy import CachePolicy

GIB = 2**30


def python(_: Settings) -> list[Finding]:
    """Versions of Python and of this package."""
    from irope.provenance import git_state

    git = git_state()
    commit = f" at {git['commit'][:10]}{', changed' if git['dirty'] else ''}" if git else ""
    return [
        Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Finding("irope", "ok", f"{installed('irope') or 'not installed as a package'}{commit}"),
    ]


def torch_build(config: Settings) -> list[Finding]:
    """Version, what it was built for, and threads."""
    torch = imported("torch")
    if torch is None:
        return [Finding("torch", "bad", "cannot be imported", "pip install -c constraints.txt -e .")]
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    threads = f"sys.threads={config['sys']['threads']} of {os.cpu_count()} cores"
    return [Finding("torch", "ok", f"{torch.__version__}, {built}; {threads}")]


def gpu(config: Settings) -> list[Finding]:
    """Name and free memory, and whether the model fits; or whether the lack of one matters."""
    torch = imported("torch")
    if torch is None:
        return []
    asked = config["sys"]["device"]
    if not torch.cuda.is_available():
        needed = asked == "cuda" or (asked == "auto" and (uses_wan(config) or uses_system(config) in IN_PROCESS))
        if not needed:
            return [Finding("GPU", "ok", "none; this configuration needs none here")]
        mend = (
            "nvidia-smi" if torch.version.cuda else f"pip install --force-reinstall torch=={public(torch.__version__)}"
        )
        why = "torch sees none" if torch.version.cuda else "this torch is built for CPUs only"
        return [Finding("GPU", "bad", f"{why}; this model is not for CPUs (sys.device=cpu insists)", mend)]
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    found = [Finding("GPU", "ok", f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")]
    return found + (fits(config, free) if uses_wan(config) and asked != "cpu" else [])


def fits(config: Settings, free: int) -> list[Finding]:
    """Hold what the 1.3B model is computed to keep on the device to the bytes that are free there."""
    from irope.config import policy_from

    model = config["video"]["model"]
    if model["config"]:
        return []
    policy = policy_from(config)
    item = 2 if model["dtype"] == "bfloat16" else 4

    def needed(offload: bool) -> dict[str, int]:
        return device_bytes(*cache_frames(policy), item, *size_of(config), offload=offload)

    need = needed(model["offload"])
    encoder = model["text_encoder_device"] == "auto"
    most = max(need["generation"], need["text encoder"] if encoder else 0)
    model_size, encoder_size = (f"{need[part] / 1e9:.1f} GB" for part in ("generation", "text encoder"))
    kept = "the cache" if model["offload"] else "model and cache"
    what = (
        f"computed: {model_size} for {kept}, before that {encoder_size} for the text encoder"
        f"{'' if encoder else ' (on the CPU)'}; attention and decoder come on top"
    )
    if most <= free:
        return [Finding("memory", "ok", what)]
    if need["generation"] <= free:
        return [Finding("memory", "bad", what, "video.model.text_encoder_device=cpu")]
    enough = needed(offload=True)["generation"] <= free
    return [Finding("memory", "bad", what, f"video.{'model.offload=true' if enough else 'method.policy.window=6'}")]


PARAMETERS = {"transformer": 1_418_996_800, "vae": 126_892_531, "text encoder": 5_680_910_336}
"""Of the published models; the text encoder's are those of umT5-xxl's encoder."""
TOKEN_VALUES = 2 * GEOMETRY["dim"] * GEOMETRY["num_layers"]
"""Keys and values of one token in all layers; a prompt has `TEXT_LEN` of them."""


def frame_values(height: int, width: int) -> int:
    """Keys and values of one latent frame of a video of that size in pixels."""
    return (height // STRIDE) * (width // STRIDE) * TOKEN_VALUES


def cache_frames(policy: CachePolicy, block: int = 3) -> tuple[int, int]:
    """Latent frames that the cache has room for, and those whose un-rotated keys it keeps as well, those of the sink.

    Where several blocks are denoised together there is room for them beside what is held.
    """
    together = len(policy.steps or ()) * block if policy.schedule == "rolling_window" else 0
    return policy.capacity(block) + together, policy.sink


def device_bytes(
    frames: int, copies: int, item: int = 2, height: int = 480, width: int = 832, offload: bool = False
) -> dict[str, int]:
    """What the 1.3B model keeps on the device, by arithmetic.

    Args:
        frames, copies: see `cache_frames`.
        item: bytes of a number.
        height, width: of the video in pixels.
        offload: the weights of generator and VAE are not among it.
    """
    frame = frame_values(height, width)
    cache = TEXT_LEN * TOKEN_VALUES + frames * frame + copies * frame // 2
    weights = 0 if offload else PARAMETERS["transformer"] + PARAMETERS["vae"]
    return {"generation": (weights + cache) * item, "text encoder": PARAMETERS["text encoder"] * item}


def attention(config: Settings) -> list[Finding]:
    """Which kernels of scaled_dot_product_attention take bfloat16 on this device, tried with one small call each."""
    torch = imported("torch")
    if torch is None:
        return []
    from torch.nn.attention import SDPBackend, sdpa_kernel

    cuda = torch.cuda.is_available() and config["sys"]["device"] != "cpu"
    names = {"flash": "FLASH_ATTENTION", "cuDNN": "CUDNN_ATTENTION", "memory-efficient": "EFFICIENT_ATTENTION"}
    q = torch.ones(1, 2, 64, 128, dtype=torch.bfloat16, device="cuda" if cuda else "cpu")
    works = []
    for name, backend in {**names, "math": "MATH"}.items():
        with warnings.catch_warnings(), suppress(RuntimeError):
            warnings.simplefilter("ignore")
            with sdpa_kernel(getattr(SDPBackend, backend)):
                torch.nn.functional.scaled_dot_product_attention(q, q, q)
            works.append(name)
    what = f"{', '.join(works)} (bfloat16 on {'the GPU' if cuda else 'the CPU'}; flash-attn is not needed)"
    slow = cuda and set(works) <= {"math"}
    return [Finding("attention", "warn" if slow else "ok", what, "pip install --upgrade torch" if slow else "")]


def video_files(config: Settings) -> list[Finding]:
    """What decodes videos, and what writes them."""
    av = imported("av")
    if av is None:
        mend = "pip install av"
        return [Finding("video", "bad", "PyAV cannot be imported; videos are neither written nor read", mend)]
    lacking = []
    for codec in ("libx264", "ffv1"):
        try:
            av.codec.Codec(codec, "w")
        except Exception:
            lacking.append(codec)
    decord = installed("decord")
    wanted = config["sys"]["decoder"] == "decord"
    found = [
        Finding(
            "decoders",
            "bad" if wanted and not decord else "ok",
            f"PyAV {av.__version__}, decord {decord or 'not installed (optional)'}",
            "pip install decord" if wanted and not decord else "",
        )
    ]
    mend = f"pip install --force-reinstall av=={av.__version__}"
    if lacking:
        return [*found, Finding("encoders", "bad", f"this PyAV has no {' and no '.join(lacking)}", mend)]
    return [*found, Finding("encoders", "ok", "libx264 for mp4, ffv1 for lossless mkv")]


def disk(config: Settings) -> list[Finding]:
    """Room where videos and weights lie."""
    found = []
    for key, least in (("sys.out", 1e9), ("sys.weights", 0.0)):
        folder = Path(str(config["sys"][key.partition(".")[2]]))
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(place).free
        if key == "sys.weights" and uses_wan(config):
            least = sum(part.size or 5.7e9 for part in lacking_parts(config))
        state: State = "bad" if free < least else "ok"
        what = f"{free / 1e9:.0f} GB free at {folder}/"
        if state == "bad":
            what += f", {least / 1e9:.0f} GB are needed"
        elif key == "sys.out" and not os.access(place, os.W_OK):
            state, what = "bad", f"{folder}/ cannot be written"
        found.append(Finding(key, state, what, f"{key}=FOLDER on another disk" if state == "bad" else ""))
    return found
