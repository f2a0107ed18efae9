"""What a video's key, length and prompts depend on of a model, known without loading it (and without torch)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cache
from pathlib import Path

from irope.config import Choice, Settings
from irope.errors import WeightsError
from irope.identity import file_digest
from irope.script import Clock


@dataclass(frozen=True)
class ModelCard:
    """A model, as far as plans need it.

    Attributes:
        check_prompt: raises a `UserError` for a prompt the model cannot read, without encoding it.
        steps, shift: nominal denoising steps and how the timesteps are shifted.
        warp: whether a nominal step stands for the timestep at its place in the shifted table, or for itself.
        horizon: latent frames seen in training, f_limit.
        digest: SHA-256 of the weights, or of all that decides the frames; part of every video's key.
    """

    name: str
    check_prompt: Callable[[str], object]
    steps: tuple[int, ...]
    shift: float
    clock: Clock
    horizon: int
    digest: str
    _: KW_ONLY
    warp: bool = True


def card_from(config: Settings) -> ModelCard:
    """The card of ``video.model``.

    Raises:
        WeightsError: weights missing, truncated, or for another model.
        ConfigError: a value of ``video.model`` is not valid.
    """
    if Choice(config, "video.model.name").one_of("tiny", "wan_1_3b") == "tiny":
        return _tiny(weights_file(config))
    from irope.models.wan.card import wan_card

    return wan_card(config)


def weights_file(config: Settings) -> Path:
    """The file that ``video.model.weights`` or ``.checkpoint`` names.

    Raises:
        WeightsError: there is no such file.
    """
    from irope.models.tiny.info import weights_path

    weights = Choice(config, "video.model.weights").text()
    try:
        path = Path(weights) if weights else weights_path(str(Choice(config, "video.model.checkpoint").text()))
        if not path.is_file():
            raise FileNotFoundError(f"no weights file {path}")
    except FileNotFoundError as error:
        key = "video.model.weights" if weights else "video.model.checkpoint"
        raise WeightsError(f"{key}: {error}; to train a checkpoint run: irope train tiny") from error
    return path


@cache
def _tiny(path: Path) -> ModelCard:
    from irope.models.tiny.info import read_metadata
    from irope.world.scene import parse_prompt

    _, info = read_metadata(path)
    return ModelCard(
        name=f"tiny/{info.checkpoint}",
        check_prompt=cache(parse_prompt),
        steps=info.sampler_steps,
        shift=info.sampler_shift,
        clock=Clock(fps=info.fps, block=info.block),
        horizon=info.horizon,
        digest=file_digest(path),
    )
