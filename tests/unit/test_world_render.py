"""The renderer against geometry worked out by hand."""

import numpy as np
import pytest

from irope.world.render import Staging, positions, radii, render, sample_staging
from irope.world.scene import Scene

STILL = Scene("white", "circle", "standing still", "gray", "plain")


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", np.pi * 144),
        ("square", (2 * 0.9 * 12) ** 2),
        ("triangle", 3 * np.sqrt(3) * (0.74 * 12) ** 2),
        ("cross", 4 * 12**2 * (2 * 1.25 * 0.42 - 0.42**2)),
    ],
)
def test_coverage_sums_to_the_area_of_the_shape(shape: str, area: float) -> None:
    scene = Scene("red", shape, "standing still", "navy", "plain")
    _, coverage = render(scene, Staging(start=(31.3, 33.8), radius=12.0), 1)
    assert coverage.sum() / 255 == pytest.approx(area, rel=0.02)


def test_the_world_is_a_torus() -> None:
    """A subject over the corner is the centred picture moved by half the world, pixel by pixel."""
    centred, _ = render(STILL, Staging(start=(32.0, 32.0)), 3)
    corner, _ = render(STILL, Staging(start=(0.0, 64.0)), 3)
    np.testing.assert_array_equal(np.roll(centred, (32, 32), axis=(1, 2)), corner)


@pytest.mark.parametrize(
    ("action", "second_2"),
    [
        ("moving left", (-36.0, 0.0)),
        ("moving down", (0.0, 36.0)),
        ("standing still", (0.0, 0.0)),
        ("bouncing", (0.0, -4 * 17 * (1 / 3) * (2 / 3))),
    ],
)
def test_where_the_subject_is_after_two_seconds(action: str, second_2: tuple[float, float]) -> None:
    scene = Scene("red", "circle", action)
    moved = positions(scene, Staging(start=(0.0, 0.0), speed=18.0), 33)[-1]
    np.testing.assert_allclose(moved, second_2, atol=1e-9)


def test_circling_returns_after_a_period_and_keeps_its_distance() -> None:
    path = positions(Scene("red", "circle", "circling"), Staging(start=(0.0, 0.0)), 45)
    np.testing.assert_allclose(path[44], path[0], atol=1e-9)  # 2.75 s * 16 fps
    np.testing.assert_allclose(np.linalg.norm(path - [0.0, 11.0], axis=1), 11.0)


def test_pulsing_grows_by_three_tenths_stays_in_place_and_is_halted_by_a_pause() -> None:
    scene, staging = Scene("red", "square", "pulsing", "navy", "plain"), Staging(start=(30.0, 31.0), radius=12.0)
    _, coverage = render(scene, staging, 33)  # one period of 2 s
    side = np.sqrt(coverage.sum(axis=(1, 2)) / 255)
    np.testing.assert_allclose(side[[0, 8, 16, 24, 32]], 2 * 0.9 * 12 * np.array([1, 1.3, 1, 0.7, 1]), rtol=0.02)
    np.testing.assert_array_equal(positions(scene, staging, 33), np.tile([30.0, 31.0], (33, 1)))
    halted = radii(scene, Staging(pause=(0.5, 1.0)), 33)
    assert np.ptp(halted[8:25]) == 0
    assert np.ptp(halted[24:33]) > 1
    assert np.ptp(radii(STILL, staging, 33)) == 0


def test_a_pause_halts_the_motion_and_loses_nothing_else() -> None:
    scene, pause = Scene("red", "circle", "moving right"), Staging(speed=16.0, pause=(1.0, 0.5))
    x = positions(scene, pause, 49)[:, 0]
    assert np.ptp(x[16:25]) == 0
    np.testing.assert_allclose(x[48], 32 + 16 * 2.5)


def test_the_same_seed_films_the_same_take() -> None:
    takes = [render(STILL, sample_staging(np.random.default_rng(3)), 9)[0] for _ in range(2)]
    np.testing.assert_array_equal(*takes)


def test_a_scene_without_background_is_refused() -> None:
    with pytest.raises(ValueError, match="names no background"):
        render(STILL.without_background(), Staging(), 5)
