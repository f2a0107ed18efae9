"""What ``irope list`` shows, and that showing it loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from irope import catalog
from irope.catalog import Entry, entries, file_entries
from irope.errors import UserError
from irope.registry import policies


def test_policies():
    found = {entry.name: entry for entry in entries("policies")}
    assert list(found) == sorted(policies())
    assert all(entry.summary and "\n" not in entry.summary and entry.source for entry in found.values())
    rolling = found["rolling_forcing"]
    assert rolling.schedule == "rolling_window"
    assert rolling.settings == {"window": 21, "sink": 3}
    assert rolling.summary == policies()["rolling_forcing"].__doc__.splitlines()[0]


def test_every_policy_is_a_method_and_files_add_to_them():
    names = [entry.name for entry in entries("methods")]
    assert names == sorted(names)
    assert set(policies()) <= set(names)
    assert {path.stem for path in (catalog.CONF / "method").glob("*.yaml")} <= set(names)


@pytest.mark.parametrize("kind", ["methods", "models", "prompts"])
def test_everything_that_ships_says_what_it_is(kind):
    assert entries(kind)
    assert not [entry.name for entry in entries(kind) if not entry.summary]


def test_files(tmp_path):
    (tmp_path / "b.yaml").write_text(
        "# @package video.model\n# ignored\nname: other\ndescription: two: colons\n".replace(
            "two: colons", "'two: colons'"
        )
    )
    (tmp_path / "a.yaml").write_text("# @package video.model\n\n#  From a comment. \n# second line\nsize: 3\n")
    (tmp_path / "c.yaml").write_text("")
    (tmp_path / "notes.txt").write_text("no YAML")
    assert file_entries(tmp_path) == [Entry("a", "From a comment."), Entry("b", "two: colons"), Entry("c", "")]


@pytest.mark.parametrize(("text", "message"), [("a: [1", "is not valid YAML: .*line 1"), ("- 1\n- 2", "holds a list")])
def test_a_broken_file_is_named(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"bad\.yaml {message}"):
        file_entries(tmp_path)


def test_unknown_kind():
    with pytest.raises(UserError, match=r"did you mean 'policies'.*choices: methods, models, policies, prompts"):
        entries("policy")


def test_nothing_heavy_is_imported():
    code = "import sys; from irope.catalog import *; [entries(kind) for kind in KINDS]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "hydra", "omegaconf"} & set(done.stdout.split())
