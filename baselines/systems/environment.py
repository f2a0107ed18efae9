"""Where another project lives on the user's machine: its Python, its checkout, its weights. `sys.systems.<name>`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from irope.digests import digest_of_files
from irope.errors import UserError, WeightsError
from irope.settings import hint
from irope.systems import Place

SILENCE_S = 1800.0
"""A text encoder of 20 GB takes minutes to load from a slow disk; half an hour without a word is a hang."""


@dataclass(frozen=True)
class Environment:
    """``sys.systems.<name>``: none of it is part of a video's key.

    Attributes:
        python: the interpreter of the project's own environment.
        repo: a checkout of the project.
        weights: folder of its weights; by default the published repository's below ``sys.weights``.
        offload: keep on the CPU what does not run at the moment: slower, for smaller GPUs.
        silence_s, limit_s: seconds without a sign of life, and seconds for a video, after which it is stopped.
    """

    python: Path
    repo: Path
    weights: Path
    offload: bool = False
    silence_s: float = SILENCE_S
    limit_s: float | None = None


@dataclass(frozen=True)
class Project:
    """What a system needs of another project.

    Attributes:
        key: its name below ``sys.systems``. ``label``: how people call it. ``url``: its repository.
        entry: file or folder that a checkout holds; ``code`` the folders whose code makes the frames.
        hub: the weights, as owner/repository; ``files`` the glob patterns of them there, each of which must match.
    """

    key: str
    label: str
    url: str
    entry: str
    code: tuple[str, ...]
    hub: str
    files: tuple[str, ...]

    def environment(self, place: Place) -> Environment:
        """The environment that a configuration describes, checked except for the weights.

        Raises:
            UserError: a key is missing, or what it names is not there; with the key and what was looked for.
        """
        values, key = dict(place.own), f"sys.systems.{self.key}"
        known = Environment.__dataclass_fields__
        if unknown := sorted(values.keys() - known.keys()):
            raise UserError(f"{key} has no key {unknown[0]!r}{hint(unknown[0], known)}")
        for name, what in (("python", "the Python of that environment"), ("repo", f"your checkout of {self.url}")):
            if not values.get(name):
                variable = f"IROPE_{self.key}_{name}".upper()
                raise UserError(
                    f"{self.label} runs in an environment of its own: set {key}.{name}, or ${variable}, to {what}; "
                    "see docs/systems-subprocess.md"
                )
        # Not resolved: the Python of an environment is a link, and knows by its place where the packages are.
        python, repo = Path(values["python"]).expanduser().absolute(), Path(values["repo"]).expanduser().resolve()
        if not python.is_file() or not os.access(python, os.X_OK):
            wrong = "is not an executable file" if python.exists() else "does not exist"
            raise UserError(
                f"{key}.python={python} {wrong}; expected the bin/python of the environment of {self.label}"
            )
        if not (repo / self.entry).exists():
            raise UserError(f"{key}.repo={repo} holds no {self.entry}; expected a checkout of {self.url}")
        weights = Path(values.get("weights") or place.weights / self.hub).expanduser().resolve()
        silence, limit = values.get("silence_s"), values.get("limit_s")
        return Environment(
            python,
            repo,
            weights,
            bool(values.get("offload")),
            SILENCE_S if silence is None else _seconds(silence, f"{key}.silence_s"),
            None if limit is None else _seconds(limit, f"{key}.limit_s"),
        )

    def weight_files(self, folder: Path) -> list[Path]:
        """The files of the weights below ``folder``, sorted.

        Raises:
            WeightsError: some are missing; with the command that downloads them.
        """
        found: set[Path] = set()
        for pattern in self.files:
            matches = {path for path in folder.glob(pattern) if path.is_file()}
            if not matches:
                include = " ".join(f"--include '{pattern.replace('**/', '')}'" for pattern in self.files)
                raise WeightsError(
                    f"weights of {self.label}: nothing is at {folder / pattern}; "
                    f"to get them run: hf download {self.hub} {include} --local-dir {folder}"
                )
            found |= matches
        return sorted(found)

    def digest(self, environment: Environment) -> dict[str, str]:
        """SHA-256 of the project's Python code and of its weights. WeightsError as `weight_files`."""
        weights = digest_of_files(self.weight_files(environment.weights))
        return {"code": _code_digest(environment.repo, self.code), "weights": weights}


def _code_digest(repo: Path, folders: Sequence[str]) -> str:
    total = sha256()
    for path in sorted(path for folder in folders for path in (repo / folder).rglob("*.py")):
        content = path.read_bytes()
        total.update(f"{path.relative_to(repo).as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()


def _seconds(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UserError(f"{key}={value!r} is not valid; expected seconds above 0")
    return float(value)
