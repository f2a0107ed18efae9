"""Whether a system's environment, checkout and weights are there, and what of them decides its frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from irope.errors import UserError, WeightsError
from irope.systems import Place
from tests.subprocess_kit import Fake, Run

Change = Callable[[Run], dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda run: {"python": None},
            r"set sys.systems.fake.python, or \$IROPE_FAKE_PYTHON, to the Python of that environment",
        ),
        (
            lambda run: {"repo": ""},
            r"set sys.systems.fake.repo, or \$IROPE_FAKE_REPO, to your checkout of example.org/fake",
        ),
        (lambda run: {"pyton": "x"}, "sys.systems.fake has no key 'pyton'; did you mean 'python'"),
        (
            lambda run: {"python": "/no/python"},
            "sys.systems.fake.python=/no/python does not exist; expected the bin/python",
        ),
        (lambda run: {"python": str(run.repo / "entry.py")}, "entry.py is not an executable file"),
        (lambda run: {"python": str(run.repo)}, "repo is not an executable file"),
        (lambda run: {"repo": str(run.work)}, "work holds no entry.py; expected a checkout of example.org/fake"),
        (lambda run: {"silence_s": 0}, "sys.systems.fake.silence_s=0 is not valid; expected seconds above 0"),
        (lambda run: {"limit_s": "9"}, "sys.systems.fake.limit_s='9' is not valid"),
    ],
)
def test_an_environment_that_is_not_there(run: Run, change: Change, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Fake().digest(Place(own=run.own | change(run)))


def test_the_digest_is_of_code_and_weights(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = Place(weights=tmp_path / "weights", own=run.own)
    folder = tmp_path / "weights" / "owner" / "fake"
    with pytest.raises(WeightsError, match=rf"hf download owner/fake --include '\*.bin' --local-dir {folder}"):
        Fake().digest(place)
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"weights")
    first = Fake().digest(place)
    assert Fake().digest(replace(place, device="cuda")) == first
    (run.repo / "entry.py").write_text("x = 1")
    second = Fake().digest(place)
    assert second["weights"] == first["weights"]
    assert second["code"] != first["code"]
    (folder / "b.bin").write_bytes(b"more")
    assert Fake().digest(place)["weights"] != first["weights"]
    moved = replace(place, own=run.own | {"weights": str(folder)}, weights=Path("elsewhere"))
    assert Fake().digest(moved) == Fake().digest(place)
