"""What a check answers with, and the questions that several checks ask."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from irope.config import Settings
from irope.errors import UserError

State = Literal["ok", "warn", "bad"]

IN_PROCESS = ("skyreels_v2", "ltx_video", "wan_2_1")
"""Systems that run here through diffusers; the others have an environment of their own."""


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        state: ok; warn, other configurations need it; bad, this configuration needs it.
        mend: the command or the setting that mends it, or that says more.
    """

    name: str
    state: State
    what: str
    mend: str = ""


def told(name: str, error: UserError) -> Finding:
    """An error of the user as a finding; they end in the command to run, if there is one."""
    what, _, command = str(error).rpartition("run: ")
    return Finding(name, "bad", f"{what}run:", command) if what else Finding(name, "bad", command)


def uses_wan(config: Settings) -> bool:
    """Whether the configuration makes videos with the 1.3B model."""
    video = config["video"]
    return bool(video["model"]["name"] == "wan_1_3b" and "policy" in video["method"])


def uses_system(config: Settings) -> str | None:
    """Name of the system that the configuration makes videos with, if any."""
    return (config["video"]["method"].get("system") or {}).get("name")


def installed(package: str) -> str | None:
    """Version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def imported(name: str) -> Any:
    """The module; None if it cannot be imported, whatever the reason."""
    try:
        return importlib.import_module(name)
    except Exception:
        return None


def public(number: str) -> str:
    """A version without what the build added: 2.13.0 of 2.13.0+cpu."""
    return number.partition("+")[0]
