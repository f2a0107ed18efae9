import dataclasses
import enum
import hashlib
import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irope.identity import CanonicalError, canonical_json, config_key, near_miss

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


def test_known_text_and_key():
    obj = {"b": [1, 2.0, 0.5, None, True], "a": "∞"}
    text = '{"a":"\\u221e","b":[1,2,0.5,null,true]}'
    assert canonical_json(obj) == text
    assert config_key(obj) == hashlib.sha256(text.encode()).hexdigest()[:20]


@given(JSON)
def test_canonical_json_means_the_same_and_is_a_fixed_point(obj):
    text = canonical_json(obj)
    assert json.loads(text) == obj
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(), SCALARS), st.randoms())
def test_key_ignores_the_order_of_a_dict(obj, random):
    items = list(obj.items())
    random.shuffle(items)
    assert config_key(dict(items)) == config_key(obj)


@pytest.mark.parametrize(("a", "b"), [(5, 5.0), (0.0, -0.0), ((1, 2), [1, 2]), ({"x": 1e3}, {"x": 1000})])
def test_equal_values_have_one_key(a, b):
    assert config_key(a) == config_key(b)
    assert near_miss(a, b) == []


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, True),
        (0, False),
        (1, "1"),
        (None, "null"),
        ([], {}),
        ({}, {"a": None}),
        ([1, 2], [2, 1]),
        ({"a.b": 1}, {"a": {"b": 1}}),
        ({"0": 1}, [1]),
        ({"": 1}, {"": {"": 1}}),
    ],
)
def test_different_values_have_different_keys(a, b):
    assert config_key(a) != config_key(b)
    assert near_miss(a, b) != []


@given(JSON, JSON)
def test_near_miss_is_empty_exactly_for_equal_keys(a, b):
    assert (near_miss(a, b) == []) == (config_key(a) == config_key(b))


def test_near_miss_names_the_fields():
    a = {"policy": {"window": 6, "sink": 1}, "events": [{"block": 4}], "model": "tiny"}
    b = {"policy": {"window": 12, "sink": 1.0}, "events": [{"block": 5}, {"block": 6}], "model": "tiny", "seed": 0}
    assert near_miss(a, b) == ["events.0.block", "events.1", "policy.window", "seed"]
    assert near_miss(1, 2) == ["."]


def test_enum_strings_are_plain_text():
    colour = enum.StrEnum("colour", ["red"])
    assert canonical_json({"c": colour.red}) == '{"c":"red"}'


@dataclasses.dataclass
class Policy:
    window: int = 6


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        ({"a": {"b": math.nan}}, ["a.b", "nan"]),
        ({"a": [1, math.inf]}, ["a.1", "inf"]),
        ({"a": Policy()}, ["a", "Policy", "asdict"]),
        ({"a": {3: 1}}, ["a", "3", "int"]),
        ({1, 2}, ["set"]),
    ],
)
def test_refuses_what_has_no_canonical_form(obj, words):
    with pytest.raises(CanonicalError) as error:
        config_key(obj)
    assert all(word in str(error.value) for word in words)


def test_key_is_the_same_in_another_process():
    obj = {"z": 0.1, "a": ["é", {"k": 1e-9}]}
    code = f"from irope.identity import config_key; print(config_key({obj!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == config_key(obj)
