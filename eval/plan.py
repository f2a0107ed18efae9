"""From a configuration (score.*, sys.*) to the protocol, its scorers and where they run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.protocol import Protocol, Whole
from eval.registry import AnyScorer, ScorerError, make_scorer
from eval.score import Plan
from eval.scorer import Runtime
from eval.vbench_long import Clips
from irope.config import Choice, ConfigError, Settings
from irope.settings import check_settings

PROTOCOLS: dict[str, type[Protocol]] = {kind.kind: kind for kind in (Whole, Clips)}


def plan_from(config: Settings, folder: Path, device: str) -> Plan:
    """How the configuration wants videos scored; ``folder`` takes the score files.

    Raises:
        ConfigError, ScorerError: naming the key at fault and the nearest valid value.
    """
    kind = Choice(config, "score.protocol.kind").one_of(*PROTOCOLS)
    settings = _mapping(config, "score.protocol.settings")
    check_settings(PROTOCOLS[kind], settings, "score.protocol.settings", ConfigError)
    precision = Choice(config, "score.precision").one_of("float32", "half")
    return Plan(
        name=str(Choice(config, "score.protocol.name").text()),
        protocol=PROTOCOLS[kind](**settings),
        scorers=_scorers(config),
        folder=folder,
        windows=_windows(config),
        runtime=Runtime(device, precision, Choice(config, "sys.pictures").integer(1)),  # type: ignore[arg-type]
        backend=Choice(config, "sys.decoder").one_of("auto", "decord", "pyav"),
        truncated=Choice(config, "score.truncated").flag(),
    )


def _mapping(config: Settings, key: str) -> dict[str, Any]:
    value = Choice(config, key).value()
    if not isinstance(value, dict):
        raise ConfigError(f"{key}={value}: expected a mapping")
    return {str(name): setting for name, setting in value.items()}


def _scorers(config: Settings) -> Mapping[str, AnyScorer]:
    """The protocol's scorers, or those of them, or others, that ``score.scorers`` names."""
    offered = _mapping(config, "score.protocol.scorers")
    wanted = Choice(config, "score.scorers").value()
    if wanted is not None and not isinstance(wanted, list):
        raise ConfigError(f"score.scorers={wanted}: expected a list, for example [imaging,flicker], or null")
    try:
        return {str(name): make_scorer(str(name), offered.get(str(name)) or {}) for name in wanted or offered}
    except ScorerError as error:
        raise ScorerError(f"score.scorers: {error}") from error


def _windows(config: Settings) -> tuple[float, ...]:
    value = Choice(config, "score.windows").value()
    seconds = value if isinstance(value, list) else [] if value is None else [value]
    for number in seconds:
        if not isinstance(number, (int, float)) or isinstance(number, bool) or number <= 0:
            raise ConfigError(f"score.windows={value}: expected seconds, for example [5,60], or null")
    return tuple(sorted({float(number) for number in seconds}))
