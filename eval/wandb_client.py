"""One run through the W&B client. This is the only module that imports it.

Whatever the client does (it may hang, exit, or leave a thread behind) is kept from the caller by running this in a
process of its own, `eval.wandb_sink`. Nothing of the machine is recorded: no host, user, folder, package list or code.
"""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eval.wandb_content import Content
from eval.wandb_file import is_whole

NEEDS = "pip install -c constraints.txt -e '.[wandb]'"
CONNECT_SECONDS = 30.0
FINISH_SECONDS = 300.0
"""For what is still to be uploaded when all is said."""
FLUSH_SECONDS = 5.0


class ClientError(Exception):
    """The client could not send a run; one line that says why."""


def installed() -> bool:
    return find_spec("wandb") is not None


def data_name(run: str, digest: str) -> str:
    """Folder of the files that an offline run refers to."""
    return f"data-{run}-{digest[:8]}"


def send_run(content: Content, folder: Path, online: bool, connect: float = CONNECT_SECONDS) -> Path | None:
    """Send one run whole; a run with its id that is there already is overwritten.

    Args:
        folder: gets ``wandb/offline-run-*`` and, in `data_name`, copies of what that run refers to.
        connect: seconds to reach the server.

    Returns:
        The folder of an offline run, None online.

    Raises:
        ClientError: it was not sent, or not all of it was written.
    """
    data = folder / data_name(content.id, content.digest)
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    os.environ["WANDB_DATA_DIR"] = str(data)  # else in the home folder, which a later sync may not have
    try:
        import wandb

        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "irope"),
            id=content.id,
            name=content.name,
            group=content.group,
            job_type=content.job_type,
            tags=list(content.tags),
            notes=content.description,
            config=dict(content.config),
            dir=str(folder),
            settings=_settings(wandb.Settings, online, connect),
        )
        _log(wandb, run, content, data)
        place = None if online else Path(run.dir).parent
        run.finish()
    except Exception as error:  # whatever the client raises, the results are on disk and the reason is one line
        raise ClientError(" ".join(str(error).split()) or type(error).__name__) from error
    if place is not None and not _becomes_whole(place / f"run-{content.id}.wandb"):
        raise ClientError(f"{place.name} was cut short; is the disk full?")
    return place


def _becomes_whole(path: Path) -> bool:
    """The client's service writes the end of the file a moment after it has said that it is done."""
    end = time.monotonic() + FLUSH_SECONDS
    while not (whole := is_whole(path)) and time.monotonic() < end:
        time.sleep(0.02)
    return whole


def _settings(kind: Any, online: bool, connect: float) -> Any:
    wanted: dict[str, Any] = {
        "mode": "online" if online else "offline",
        "silent": True,
        "console": "off",
        "host": "-",
        "program": "irope",
        "init_timeout": connect,
        "finish_timeout": FINISH_SECONDS,
        "finish_timeout_raises": True,
        "disable_git": True,
        "disable_code": True,
        "x_disable_meta": True,
        "x_disable_stats": True,
        "x_disable_machine_info": True,
        "x_save_requirements": False,
    }
    return kind(**{name: value for name, value in wanted.items() if name in kind.model_fields})


def _log(wandb: Any, run: Any, content: Content, data: Path) -> None:
    run.define_metric("second")
    run.define_metric("curve/*", step_metric="second", summary="none")
    for name, best in content.best.items():
        run.define_metric(name, summary=best)
    for step, row in enumerate(content.history):
        run.log(dict(row), step=step)
    media: dict[str, Any] = {f"plots/{name}": wandb.Image(str(path)) for name, path in content.images.items()}
    if content.grid.rows:
        rows = [
            [wandb.Video(str(value), format="mp4") if isinstance(value, Path) else value for value in row]
            for row in content.grid.rows
        ]
        # Columns may hold None and numbers of both kinds, so their types are not checked.
        media[content.grid.name] = wandb.Table(columns=list(content.grid.columns), data=rows, allow_mixed_types=True)
    if media:
        run.log(media, step=len(content.history))
    run.summary.update(dict(content.summary))
    if content.files or content.archive:
        artifact = wandb.Artifact(content.group, type="results", description=content.description)
        for name, path in content.files.items():
            artifact.add_file(str(path), name=name)
        if content.archive:
            write_zip(data / "scores.zip", content.archive)
            artifact.add_file(str(data / "scores.zip"), name="scores.zip")
        run.log_artifact(artifact)


def write_zip(path: Path, members: Mapping[str, Path]) -> None:
    """The same bytes for the same files, whenever and in whatever order they were written."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in sorted(members):
            file.writestr(zipfile.ZipInfo(name), members[name].read_bytes(), zipfile.ZIP_DEFLATED)
