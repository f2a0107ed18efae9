"""Sweeps as Hydra's grammar has them, and what a sweep may not be."""

from __future__ import annotations

import pytest

from irope.config import ConfigError, group_options
from irope.registry import policies
from irope.sweep import axis, split, value_of, without


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("6,21,45", ("6", "21", "45")),
        ("range(6,16,3)", ("6", "9", "12", "15")),
        ("choice(a,b)", ("a", "b")),
        ("7", ("7",)),
        ("[1000,500],[1000,750]", ("[1000,500]", "[1000,750]")),
        ("null,3", ("null", "3")),
    ],
)
def test_values_of_an_axis(text, values):
    found = axis("video.method.policy.f0", text)
    assert (found.key, found.short, found.values) == ("video.method.policy.f0", "f0", values)


def test_a_glob_over_policies_is_every_registered_one():
    assert axis("policy", "glob(*)").values == tuple(policies())
    assert axis("policy", "glob(*)").key == "method"
    assert axis("method", "glob(*)").values == tuple(group_options("method"))
    assert axis("method", "glob(rolling*, exclude=rolling_w*)").values == (
        "rolling",
        "rolling_forcing",
        "rolling_sink",
        "rolling_sink1",
    )
    with pytest.raises(ConfigError, match=r"method=glob\(x\*\) matches nothing; there are: .*infinity_rope"):
        axis("method", "glob(x*)")


def test_sweeps_need_the_flag():
    fixed, axes = split(["seed=0,1", "method=rolling"], multirun=True)
    assert fixed == ["method=rolling"]
    assert [(a.key, a.values) for a in axes] == [("seed", ("0", "1"))]
    with pytest.raises(ConfigError, match="seed=0,1: several values are a sweep; give -m"):
        split(["seed=0,1"], multirun=False)


@pytest.mark.parametrize("text", ["interval(0,1)"])
def test_an_interval_has_no_values(text):
    with pytest.raises(ConfigError, match="no steps; write range"):
        axis("seed", text)


def test_values_are_read_as_hydra_reads_them():
    assert [value_of("k", text) for text in ("3", "0.5", "null", "true", "abc", "[1,2]", "'5'")] == [
        *(3, 0.5, None, True, "abc", [1, 2], "5")
    ]


def test_aliases_name_the_same_key():
    assert without(["policy=rolling", "seed=1", "video.seed=2"], ["method", "seed"]) == ["video.seed=2"]
