"""Finding policies by name and building them from plain values, with hints for everything misspelt."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

from irope import registry
from irope.policy import CachePlan, CachePolicy, CacheView, PolicyError
from irope.registry import make_policy, policies, policy_class, policy_fields, register_policy


@pytest.fixture
def scratch(monkeypatch):
    """A registry to write in."""
    monkeypatch.setattr(registry._POLICIES, "known", dict(policies()))


def test_every_policy_says_what_it_is():
    assert {"full", "rolling", "infinity_rope", "kv_recache", "rolling_forcing", "causvid"} <= set(policies())
    assert {"memrope", "rolling_sink"} <= set(policies())
    assert list(policies()) == sorted(policies())
    for name, policy in policies().items():
        assert policy.name == name
        assert policy.source
        assert policy.__doc__
        assert policy is policy_class(name)


@pytest.mark.parametrize(
    ("name", "near"), [("infinty_rope", "'infinity_rope'"), ("kv-recache", "'kv_recache'"), ("fulll", "'full'")]
)
def test_a_misspelt_policy_gets_the_nearest_name_and_the_choices(name, near):
    with pytest.raises(PolicyError) as error:
        make_policy(name)
    assert f"did you mean {near}" in str(error.value)
    assert "choices: causvid, full" in str(error.value)


def test_nothing_is_guessed_for_a_name_like_no_other():
    with pytest.raises(PolicyError) as error:
        make_policy("zzz")
    assert "did you mean" not in str(error.value)
    assert "choices:" in str(error.value)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"windw": 6}, ["no setting 'windw'", "did you mean 'window'", "cut_delta"]),
        ({"compat": "offical"}, ["compat='offical'", "did you mean 'official'", "official, paper"]),
        ({"cut_mode": "aim"}, ["cut_mode='aim'", "choices: offset, target"]),  # Literal | None
        ({"window": "6"}, ["window='6'", "expected int"]),
        ({"window": 6.0}, ["window=6.0", "expected int"]),
        ({"window": True}, ["window=True", "expected int"]),
        ({"window": None}, ["window=None", "expected int"]),
        ({"f0": "x"}, ["f0='x'", "expected int or null"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(values, parts):
    with pytest.raises(PolicyError) as error:
        make_policy("infinity_rope", values)
    for part in ["infinity_rope", *parts]:
        assert part in str(error.value)


def test_values_reach_the_policy_and_defaults_are_visible():
    policy = make_policy("infinity_rope", {"window": 9, "f0": 12, "cut_mode": None})
    assert (policy.window, policy.f0, policy.sink) == (9, 12, 1)
    assert policy_fields(policy_class("infinity_rope"))["window"] == 6
    assert policy_fields(policy_class("kv_recache")) == {
        "window": 12,
        "sink": 3,
        "sink_at_switch": "kept",
        "index": "absolute",
    }


@pytest.mark.usefixtures("scratch")
def test_every_type_of_setting():
    @register_policy("typed")
    @dataclass(frozen=True)
    class Typed(CachePolicy):
        rate: float = 0.5
        loud: bool = False
        label: str = "a"
        mode: Literal["x", "y"] = "x"

        def plan(self, view: CacheView) -> CachePlan:
            return CachePlan((), (), view.block)

    assert make_policy("typed", {"rate": 1, "loud": True, "label": "b", "mode": "y"}).rate == 1
    for wrong in ({"rate": True}, {"rate": "1"}, {"loud": 1}, {"label": 3}, {"mode": "z"}):
        with pytest.raises(PolicyError, match=f"{next(iter(wrong))}="):
            make_policy("typed", wrong)


@pytest.mark.usefixtures("scratch")
def test_a_name_is_taken_once():
    class First(CachePolicy):
        def plan(self, view: CacheView) -> CachePlan:
            return CachePlan((), (), view.block)

    class Second(First):
        pass

    register_policy("mine")(First)
    register_policy("mine")(First)  # the same class again, as when a module is reloaded
    with pytest.raises(PolicyError, match=r"'mine' is taken by .*First"):
        register_policy("mine")(Second)
    with pytest.raises(PolicyError, match=r"'full' is taken by baselines\.policies\.full\.Full"):
        register_policy("full")(First)


NEW_FILE = '''
from dataclasses import dataclass
from irope.policy import CachePlan, CachePolicy, CacheView
from irope.registry import register_policy

@register_policy("forgetful")
@dataclass(frozen=True)
class Forgetful(CachePolicy):
    """Reads nothing."""
    def plan(self, view: CacheView) -> CachePlan:
        return CachePlan((), (), view.block)
'''


def discover_with(folder, code):
    """Run ``code`` in an interpreter whose baselines/policies also has the files of ``folder``."""
    setup = f"import baselines.policies as b; b.__path__.append({str(folder)!r}); from irope.registry import *; "
    return subprocess.run([sys.executable, "-c", setup + code], capture_output=True, text=True)


def test_a_new_file_in_the_policies_folder_is_found(tmp_path):
    (tmp_path / "forgetful.py").write_text(NEW_FILE)
    done = discover_with(tmp_path, "print(make_policy('forgetful', {'window': 9}), len(policies()))")
    assert done.stdout.strip() == f"Forgetful(window=9, sink=0) {len(policies()) + 1}"


def test_a_broken_file_in_the_policies_folder_shows_its_error(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_module_anywhere")
    done = discover_with(tmp_path, "policies()")
    assert done.returncode == 1
    assert "No module named 'no_such_module_anywhere'" in done.stderr
