"""docs/real-weights.md does what it says: its commands can be read, its sizes and memory are those of the code."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from irope.cli.main import VERBS
from irope.cli.weights import needed
from irope.config import load
from irope.doctor.machine import PARAMETERS, cache_frames, device_bytes
from irope.experiment import experiment_from
from irope.jobs import jobs_from
from irope.methods import method_values
from irope.models.wan.catalogue import catalogue, entry
from irope.registry import make_policy
from tests.cli.conftest import ROOT
from tests.wan_folder import write_placeholders

GUIDE = (ROOT / "docs" / "real-weights.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.S) for line in block.splitlines()]
COMMANDS = [shlex.split(line.removeprefix(".venv/bin/"), comments=True) for line in LINES]
INLINE = re.findall(r"`irope (\w+)", GUIDE)


def test_there_are_commands_of_every_step():
    assert {command[0] for command in COMMANDS} == {"make", "pip", "irope", "hf"}
    verbs = [command[1] for command in COMMANDS if command[0] == "irope"]
    assert {*verbs, *INLINE} <= set(VERBS)
    assert {"doctor", "weights", "vbench", "plan", "run", "table", "generate"} <= set(verbs)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "irope"], ids=" ".join)
def test_every_command_is_understood(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    verb, *words = command[1:]
    options = [word for word in words if word.startswith("-")]
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    names = [word for word in words if word not in (*options, *overrides)]
    if verb == "vbench":
        assert names in (["install"], ["weights"])
        return
    if verb in ("doctor", "weights"):
        assert not names
        assert set(options) <= {"--check"}
        assert load(overrides)
        return
    root = tmp_path / "weights"
    write_placeholders(root, *(f"{one.repo}/{one.file}" for one in catalogue().values() if not one.file.endswith("/")))
    overrides.append(f"sys.weights={root}")
    if verb == "generate":
        assert len(jobs_from(load(overrides))) == 1
        return
    experiment = experiment_from([*(f"experiment={name}" for name in names), *overrides], multirun="-m" in options)
    assert all(list(experiment.jobs(cell)) or cell.beside for cell in experiment.cells)
    assert experiment.left_out.keys() <= {cell.label for cell in experiment.cells if cell.beside}


def test_downloads_are_those_that_irope_prints():
    told = [shlex.join(command) for command in COMMANDS if command[0] == "hf"]
    parts = needed("infinity_rope", Path("nowhere"))
    assert told == [part.command(Path("weights")) for part in parts]
    total = sum(part.size or 0 for part in parts) / 1e9
    assert f"these are {total:.1f} GB" in GUIDE
    assert f"| generator `infinite_forcing` | {(entry('infinite_forcing').size or 0) / 1e9:g} |" in GUIDE


def test_what_is_installed_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for command in COMMANDS:
        if command[0] == "pip":
            (extra,) = re.findall(r"^\.\[(\w+)\]$", command[-1])
            assert extra in extras
        if command[0] == "make":
            assert re.search(rf"^{command[1]}:", (ROOT / "Makefile").read_text(), re.M)


def test_memory_is_what_doctor_computes():
    rows = re.findall(r"^\| (`.*?) \| (\d+), (\d+) \| ([\d.]+) \|$", GUIDE, re.M)
    assert len(rows) == 6
    for methods, frames, copies, size in rows:
        assert device_bytes(int(frames), int(copies))["generation"] / 1e9 == pytest.approx(float(size), abs=0.05)
        for name in re.findall(r"`(\w+)`", methods):
            settings = dict(method_values(name)["policy"])
            policy = make_policy(settings.pop("name"), settings)
            assert cache_frames(policy) == (int(frames), int(copies)), name
    assert device_bytes(6, 0)["text encoder"] / 1e9 == pytest.approx(11.4, abs=0.05)
    per_frame = device_bytes(7, 0)["generation"] - device_bytes(6, 0)["generation"]
    assert f"{per_frame / 1e9:.2g} GB a latent frame" in GUIDE


def test_what_offloading_saves_is_computed():
    weights = 2 * (PARAMETERS["transformer"] + PARAMETERS["vae"])
    assert f"{weights / 1e9:.1f} GB, all of generator and VAE" in GUIDE
    for method, held, copies in (("infinity_rope", 6, 1), ("self_forcing_w21", 21, 0)):
        left = device_bytes(held, copies, offload=True)["generation"] / 1e9
        assert re.search(rf"`{method}`( keeps)? {left:.1f} GB", GUIDE)
    features = 1.9e9  # see irope.models.wan.vae.WanCodec
    moved = 5 * 2 * PARAMETERS["transformer"] + 2 * features  # five calls a block; the VAE's weights are 3 % of that
    assert f"{moved / 1e9:.0f} GB over the bus" in GUIDE
    assert f"{moved / 25e9:.1f} s at 25 GB/s" in GUIDE


def test_every_page_that_is_linked_exists():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", GUIDE):
        assert (ROOT / "docs" / target).is_file(), target
