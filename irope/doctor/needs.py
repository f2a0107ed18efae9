"""What a configuration needs besides the machine: weights, packages, other systems, W&B, Slurm."""

from __future__ import annotations

import netrc
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from irope.config import Settings
from irope.doctor.finding import IN_PROCESS, Finding, State, installed, told, uses_system, uses_wan
from irope.errors import UserError

if TYPE_CHECKING:
    from irope.models.wan.catalogue import Published

INSTALL_WAN = "pip install -e '.[wan]'"  # without our pins: the torch that is here stays


def weights(config: Settings) -> list[Finding]:
    """The published weights of the 1.3B model: how many are here, and which of those that are needed are not."""
    from irope.models.wan.catalogue import catalogue
    from irope.models.wan.presence import look

    root = Path(str(config["sys"]["weights"]))
    there = [one for one in catalogue().values() if one.path(root).exists()]
    what = f"{len(there)} of {len(catalogue())} published files of the 1.3B model below {root}/"
    if not uses_wan(config):
        return [Finding("weights", "ok", f"{what}; this configuration needs none")]
    found = [
        Finding("weights", "bad", f"{one.name}: {look(one, root).problem or 'missing'}", one.command(root))
        for one in lacking_parts(config)
    ]
    return found or [Finding("weights", "ok", f"{what}, with all that {config['video']['method']['name']} needs")]


def lacking_parts(config: Settings) -> list[Published]:
    """Entries of the catalogue that ``video.model`` needs and that are not whole below ``sys.weights``.

    Raises:
        WeightsError: ``video.model.generator`` is neither a name nor a file, or another path is not there.
    """
    from irope.errors import WeightsError
    from irope.models.wan.catalogue import DEFAULT, catalogue, entry, of_kind, parts_of
    from irope.models.wan.presence import look

    root, model = Path(str(config["sys"]["weights"])), config["video"]["model"]
    needed: list[Published] = []
    generator = str(model["generator"] or DEFAULT)
    if generator in catalogue():
        parts = parts_of(generator)
        needed += parts[:1] if model["lora"] else parts
    elif not Path(generator).exists():
        entry(generator)  # says which names there are
    for kind in ("text_encoder", "tokenizer", "vae"):
        if given := model[kind]:
            if not Path(given).exists():
                raise WeightsError(f"video.model.{kind}={given}: no such file; run: irope weights")
            continue
        choices = list(of_kind(kind))
        needed.append(next((one for one in choices if one.path(root).exists()), choices[0]))
    return [one for one in needed if look(one, root).status != "present"]


def packages(config: Settings) -> list[Finding]:
    """What text encoder and VAE are made of, and the diffusers systems."""
    found = {name: installed(name) for name in ("diffusers", "transformers", "tokenizers", "ftfy", "accelerate")}
    missing = [name for name, number in found.items() if number is None]
    what = ", ".join(f"{name} {number or 'missing'}" for name, number in found.items())
    needed = uses_wan(config) or uses_system(config) in IN_PROCESS
    state: State = "ok" if not missing else "bad" if needed else "warn"
    return [Finding("text and VAE", state, what, INSTALL_WAN if missing else "")]


def systems(config: Settings) -> list[Finding]:
    """Which of the other systems could run."""
    from irope.systems import make_system, place_from
    from irope.systems import systems as known

    used = uses_system(config)
    lacking: dict[str, UserError] = {}
    for name, system in known().items():
        try:
            made = make_system(config["video"]["method"]["system"]) if name == used else system()
            made.check(place_from(config["sys"], name))
        except UserError as error:
            lacking[name] = error
    if used in lacking:
        return [told("systems", lacking[used])]
    ready = [name for name in known() if name not in lacking]
    what = f"ready: {', '.join(ready)}; not set up: {', '.join(lacking) or 'none'}"
    return [Finding("systems", "warn" if lacking else "ok", what, "irope doctor method=NAME" if lacking else "")]


MODES = ("offline", "online", "disabled")


def wandb(config: Settings) -> list[Finding]:
    """Mode, package, and whether there is a key; the key itself is not looked at."""
    mode = os.environ.get("WANDB_MODE") or str(config["report"]["wandb"]["mode"])
    number = installed("wandb")
    if mode not in MODES:
        return [Finding("W&B", "bad", f"mode {mode}: expected {', '.join(MODES)}", "export WANDB_MODE=offline")]
    if mode == "disabled":
        return [Finding("W&B", "ok", "disabled")]
    if number is None:
        mend = "pip install -e '.[wandb]'"
        return [Finding("W&B", "bad" if mode == "online" else "warn", f"{mode}; wandb is not installed", mend)]
    key = _has_wandb_key()
    what = f"wandb {number}, {mode}, {'a key is there' if key else 'no key'}"
    return [Finding("W&B", *(("bad", what, "wandb login") if mode == "online" and not key else ("ok", what)))]


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    with suppress(OSError, netrc.NetrcParseError, RuntimeError):
        return any("wandb" in host for host in netrc.netrc(os.environ.get("NETRC")).hosts)
    return False


def slurm(config: Settings) -> list[Finding]:
    """Whether jobs can be submitted here."""
    lacking = [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]
    if not lacking:
        return [Finding("Slurm", "ok", "sbatch is here: irope run NAME launcher=slurm")]
    needed = (config["sys"].get("launcher") or {}).get("kind") == "slurm"
    what = f"{', '.join(lacking)} not found; launcher=slurm works on a login node only"
    return [Finding("Slurm", *(("bad", what, "launcher=local") if needed else ("ok", "not here")))]
