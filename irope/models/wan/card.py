"""What plans need of the 1.3B model: which files, how it is sampled, and a digest of all that decides the frames."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from irope.config import Choice, ConfigError, Settings
from irope.digests import digest_of_files
from irope.errors import UserError, WeightsError
from irope.identity import canonical_json
from irope.model_card import ModelCard
from irope.models.wan.catalogue import DEFAULT, Published, entry, entry_of_file, of_kind
from irope.models.wan.layout import tokenizer_file, weight_files
from irope.script import Clock
from irope.settings import hint

HORIZON = 21
"""f_limit: the latent frames of all published causal generators in training."""

STRIDE = 8 * 2
"""Pixels per token, each way: the VAE's stride and the patches of the transformer."""

GEOMETRY = {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30, "in_dim": 16, "out_dim": 16}
"""Of the 1.3B model, by the names of a ``config.json``."""

TEXT_LEN = 512
"""Rows of a prompt's embedding."""


@dataclass(frozen=True)
class WanFiles:
    """What ``video.model`` asks for, found on this disk.

    Attributes:
        name: of the generator in records.
        published: how it is sampled and which nested copy is meant.
        ema: the copy that must be there, True ``generator_ema`` or False ``generator``; None: see `Published`.
        strict_ema: ``ema`` was asked for by the user, so there is no falling back.
        lora_rank: that the LoRA must have; None: any.
        geometry: a config.json, or None for the 1.3B model's.
    """

    name: str
    generator: Path
    published: Published
    ema: bool | None
    strict_ema: bool
    lora: Path | None
    lora_alpha: float | None
    lora_rank: int | None
    text_encoder: Path
    tokenizer: Path
    vae: Path
    geometry: Path | None

    @property
    def is_1_3b(self) -> bool:
        return self.geometry is None or geometry_of(self.geometry) == GEOMETRY


def wan_files(config: Settings) -> WanFiles:
    """Find the files of ``video.model``.

    Raises:
        WeightsError: one is missing; names the key, the place and the command that downloads it.
        ConfigError: a value of ``video.model`` is not valid.
    """
    root = Path(str(Choice(config, "sys.weights").value()))
    name, generator, published = _generator(config, root)
    ema = Choice(config, "video.model.ema").value()
    if ema not in ("auto", True, False):
        raise ConfigError(f"video.model.ema={ema}: expected auto, true or false")
    lora, rank = Choice(config, "video.model.lora").text(), None
    if lora is not None:
        found: Path | None = _existing("video.model.lora", Path(lora))
        name += f"+{Path(lora).stem}"
    else:
        # It belongs to the name: a file given as a path is taken as it is.
        belonging = entry(published.lora) if published.lora and name == published.name else None
        found = _published("video.model.lora", belonging, root) if belonging else None
        rank = belonging.rank if belonging else None
    alpha = Choice(config, "video.model.lora_alpha").value()
    if alpha is not None and (isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or alpha <= 0):
        raise ConfigError(f"video.model.lora_alpha={alpha}: expected a positive number, or null")
    geometry = Choice(config, "video.model.config").text()
    return WanFiles(
        name=name,
        generator=generator,
        published=published,
        ema=published.ema if ema == "auto" else ema,
        strict_ema=ema != "auto",
        lora=found,
        lora_alpha=alpha,
        lora_rank=rank,
        text_encoder=_one_of(config, "text_encoder", root),
        tokenizer=_one_of(config, "tokenizer", root),
        vae=_one_of(config, "vae", root),
        geometry=_existing("video.model.config", Path(geometry)) if geometry else None,
    )


def wan_card(config: Settings) -> ModelCard:
    """The card of ``model=wan_1_3b``. Raises as `wan_files`."""
    files = wan_files(config)
    height, width = size_of(config)
    # Everything that decides a pixel besides policy, prompt, noise and dtype. Embeddings are as much part of a video
    # as the generator, so text encoder and tokenizer count; where they are computed does not.
    deciding = {
        "generator": digest_of_files(weight_files(files.generator)),
        "ema": files.ema,
        "lora": digest_of_files([files.lora]) if files.lora else None,
        "lora_alpha": files.lora_alpha,
        "text_encoder": digest_of_files(weight_files(files.text_encoder, "text_encoder")),
        "tokenizer": digest_of_files([tokenizer_file(files.tokenizer)]),
        "vae": digest_of_files(weight_files(files.vae, "vae")),
        "vae_tiling": Choice(config, "video.model.vae_tiling").flag(),
        "size": [height, width],
        "geometry": geometry_of(files.geometry) if files.geometry else None,
    }
    if (together := Choice(config, "video.model.latents_per_call").integer(1)) > 1:  # one: the key it always had
        deciding["latents_per_call"] = together
    published = files.published
    return ModelCard(
        name=f"{'wan_1_3b' if files.is_1_3b else 'wan_test'}/{files.name}",
        check_prompt=_check_prompt,
        steps=published.steps,
        shift=published.shift,
        warp=published.warp,
        clock=Clock(fps=16, block=published.block),
        horizon=HORIZON,
        digest=sha256(canonical_json(deciding).encode()).hexdigest(),
    )


def size_of(config: Settings) -> tuple[int, int]:
    """Height and width in pixels. ConfigError if they are not whole tokens, with the nearest size that is."""
    sizes = []
    for key in ("video.model.height", "video.model.width"):
        value = Choice(config, key).integer(STRIDE)
        if value % STRIDE:
            raise ConfigError(
                f"{key}={value}: not a multiple of {STRIDE}; nearest valid: {value // STRIDE * STRIDE} or "
                f"{(value // STRIDE + 1) * STRIDE}"
            )
        sizes.append(value)
    return sizes[0], sizes[1]


def geometry_of(path: Path) -> dict[str, Any]:
    """The fields of a ``config.json`` that name a geometry. WeightsError if it is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {key: int(values[key]) for key in GEOMETRY}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"video.model.config={path} is no config.json of a Wan transformer with the keys {', '.join(GEOMETRY)} "
            f"({error!r})"
        ) from error


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise UserError("an empty prompt: write what the video shows")


def _generator(config: Settings, root: Path) -> tuple[str, Path, Published]:
    """Name, place and catalogue entry of ``video.model.generator``."""
    key = "video.model.generator"
    given, like = Choice(config, key).text() or DEFAULT, Choice(config, "video.model.sampled_as")
    names = [found.name for found in of_kind("generator")]
    sampled_as = entry(like.one_of(*names)) if like.text() else None
    if given in names:
        known = entry(given)
        return given, _published(key, known, root), sampled_as or known
    path = Path(given)
    if not path.exists():
        raise WeightsError(
            f"{key}={given}: neither a file or folder nor one of the published generators{hint(given, names)}"
        )
    # A file nobody published is sampled as Self-Forcing is, and nothing is known of what is nested in it.
    unknown = Published(path.stem, "generator", repo="", file="", licence="not known")
    return path.stem, path, sampled_as or entry_of_file(path) or unknown


def _published(key: str, found: Published, root: Path) -> Path:
    path = found.path(root)
    if not path.exists():
        raise WeightsError(f"{key}: {found.name} is not at {path}; to download it run: {found.command(root)}")
    return path


def _existing(key: str, path: Path) -> Path:
    if not path.exists():
        raise WeightsError(f"{key}={path}: no such file; run: irope weights")
    return path


def _one_of(config: Settings, kind: str, root: Path) -> Path:
    """The path that ``video.model.<kind>`` gives, else the first published one that is there."""
    key = f"video.model.{kind}"
    if given := Choice(config, key).text():
        return _existing(key, Path(given))
    candidates = list(of_kind(kind))
    for found in candidates:
        if found.path(root).exists():
            return found.path(root)
    first = candidates[0]
    raise WeightsError(f"{key}: none is below {root}; to download {first.name} run: {first.command(root)}")
