"""When a camera is at rest: it has not moved for a second, by its stamps."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from s4net_core.config import KeyframeSettings
from s4net_core.streams.rest import REST_NS, Rest

STEP = REST_NS // 30
MANY = 120
"""Views, of four seconds."""


def pose(x: float = 0.0, degrees: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", [20.0, -50.0, degrees], degrees=True).as_matrix()
    T[:3, 3] = x, -3.0, 7.0
    return T


def rest(**settings: float) -> Rest:
    return Rest(KeyframeSettings(min_translation=0.2, min_rotation=20.0, **settings))


def answers(rest: Rest, poses: list[np.ndarray], first: int = 0) -> list[bool]:
    return [rest.see((first + i) * STEP, T) for i, T in enumerate(poses)]


def test_a_camera_that_stands_still_is_at_rest_after_a_second():
    assert answers(rest(), [pose()] * MANY) == [i * STEP >= REST_NS for i in range(MANY)]


@pytest.mark.parametrize(
    ("moves", "still"),
    [({"x": 0.019}, True), ({"x": 0.021}, False), ({"degrees": 1.9}, True), ({"degrees": 2.1}, False)],
)
def test_a_tenth_of_what_makes_a_view_new_ends_the_rest(moves: dict[str, float], still: bool):
    camera = rest()
    assert answers(camera, [pose()] * MANY)[-1]
    assert camera.see(MANY * STEP, pose(**moves)) is still
    assert camera.see((MANY + 1) * STEP, pose(**moves)) is still


@pytest.mark.parametrize("moves", [lambda i: {"x": 0.001 * i}, lambda i: {"degrees": 0.1 * i}])
def test_a_slow_camera_is_not_at_rest(moves):
    """3 cm or 3 degrees a second."""
    assert not any(answers(rest(), [pose(**moves(i)) for i in range(MANY)]))


def test_tracking_that_trembles_does_not_end_the_rest():
    offsets = np.random.default_rng(0).uniform(-0.009, 0.009, MANY)
    assert all(answers(rest(), [pose(x) for x in offsets])[31:])


def test_time_that_goes_back_ends_the_rest():
    camera = rest()
    assert answers(camera, [pose()] * MANY, first=1000)[-1]
    assert answers(camera, [pose()] * MANY) == [i * STEP >= REST_NS for i in range(MANY)]


@pytest.mark.parametrize("name", ["min_translation", "min_rotation"])
def test_where_every_view_is_new_no_camera_is_at_rest(name: str):
    settings = KeyframeSettings(**{name: 0.0})
    for degrees in np.random.default_rng(0).uniform(-180, 180, 20):
        assert not any(answers(Rest(settings), [pose(degrees=degrees)] * MANY))
