"""One colour a method: fixed, distinct, stable for names that nobody listed, shades in the order of a setting."""

import itertools

import numpy as np
import pytest

from eval.plots.colours import APART, FIXED, LINES, MARKERS, from_lab, shades, style, styles, to_lab
from irope.registry import policies

# Machado, Oliveira and Fernandes (IEEE TVCG 15, 2009), full strength, on linear sRGB.
DEFICIENCIES = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def seen(colour: str, matrix: list[list[float]]) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    out = np.clip(np.array(matrix) @ linear, 0, 1)
    srgb = np.where(out <= 0.0031308, out * 12.92, 1.055 * out ** (1 / 2.4) - 0.055)
    return to_lab("#" + "".join(f"{round(255 * float(part)):02x}" for part in srgb))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))


@pytest.mark.parametrize(
    ("colour", "lab"),
    [
        ("#ffffff", (100, 0, 0)),
        ("#000000", (0, 0, 0)),
        ("#ff0000", (53.24, 80.09, 67.20)),
        ("#0000ff", (32.30, 79.19, -107.86)),
    ],
)
def test_the_distance_is_taken_in_cielab(colour, lab):
    """Published values of the primaries (Bruce Lindbloom's calculator, D65)."""
    np.testing.assert_allclose(to_lab(colour), lab, atol=0.02)
    assert from_lab(tuple(to_lab(colour).tolist())) == colour  # type: ignore[arg-type]


def test_every_listed_method_has_a_colour_and_marker_of_its_own():
    colours = {name: to_lab(look.colour) for name, look in FIXED.items()}
    for (a, x), (b, y) in itertools.combinations(colours.items(), 2):
        assert distance(x, y) > 15, (a, b)
    assert len({look.marker for look in FIXED.values()}) == len(FIXED)


@pytest.mark.parametrize("matrix", DEFICIENCIES.values(), ids=DEFICIENCIES)
def test_colour_blind_readers_can_tell_listed_methods_apart(matrix):
    """By colour, or where two come close, by dashes as well as by the marker."""
    for (a, x), (b, y) in itertools.combinations(FIXED.items(), 2):
        assert distance(seen(x.colour, matrix), seen(y.colour, matrix)) > 10 or x.dashes != y.dashes, (a, b)


def test_every_registered_policy_has_a_look_and_none_has_anothers():
    looks = [style(name) for name in policies()]
    assert len(set(looks)) == len(looks)
    assert len({look.colour for look in looks}) == len(looks)


def test_a_method_nobody_listed_keeps_its_look_and_takes_nobody_elses():
    # Fixed for ever: a plot of next year is to look like one of today.
    assert style("of_a_later_issue") == style("of_a_later_issue")
    names = [f"method_{i}" for i in range(200)]
    looks = {name: style(name) for name in names}
    assert len(set(looks.values())) == len(names)
    listed = [to_lab(look.colour) for look in FIXED.values()]
    for look in looks.values():
        assert min(distance(to_lab(look.colour), other) for other in listed) > 0.6 * APART
        assert distance(to_lab(look.colour), to_lab("#ffffff")) > 30  # seen on paper
        assert look.marker in MARKERS
        assert look.dashes in LINES


def test_variants_of_a_method_are_shades_in_the_order_of_the_setting():
    cells = [(f"infinity_rope@cut_delta={d}", "infinity_rope", [d]) for d in (90, 6, 45, 21)]
    found = styles([*cells, ("causvid", "causvid", [None])])
    light = [to_lab(found[f"infinity_rope@cut_delta={d}"].colour)[0] for d in (6, 21, 45, 90)]
    assert light == sorted(light, reverse=True)
    assert min(-np.diff(light)) > 10
    assert len({look.marker for look in found.values()}) == 5
    assert found["causvid"] == FIXED["causvid"]
    assert styles(cells[:1]) == {cells[0][0]: FIXED["infinity_rope"]}


@pytest.mark.parametrize("colour", [look.colour for look in FIXED.values()])
def test_shades_of_any_colour_are_distinct(colour):
    made = shades(colour, 6)
    assert len(set(made)) == 6
    assert all(to_lab(a)[0] > to_lab(b)[0] for a, b in itertools.pairwise(made))
