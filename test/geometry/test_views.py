"""Views and pairs of them: shapes, and where the cameras of a pair stand to each other."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from s4net_core.errors import ShapeError
from s4net_core.geometry.views import Pairs, Views, joined


def poses(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.from_rotvec(rng.normal(0, 1, (count, 3))).as_matrix()
    T[:, :3, 3] = rng.normal(0, 5, (count, 3))
    return T


def views(count: int, seed: int = 0, size: tuple[int, int] = (9, 14)) -> Views:
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(count, 1, *size, generator=generator)
    return Views(depth, torch.rand(count, 3, 3, generator=generator), poses(count, seed))


@pytest.mark.parametrize(
    ("name", "shape"), [("depth", (2, 9, 14)), ("K", (1, 3, 3)), ("T_world_camera", (2, 3, 4)), ("K", (2, 3))]
)
def test_a_wrong_shape_is_named(name: str, shape: tuple[int, ...]) -> None:
    right = {"depth": torch.ones(2, 1, 9, 14), "K": torch.ones(2, 3, 3), "T_world_camera": np.ones((2, 4, 4))}
    wrong = np.ones(shape) if name == "T_world_camera" else torch.ones(shape)
    assert Views(**right).size == (9, 14)
    with pytest.raises(ShapeError, match=f"{name} has shape"):
        Views(**right | {name: wrong})


def test_a_pair_needs_a_neighbour_for_each_target() -> None:
    with pytest.raises(ShapeError, match="3 targets but 2 neighbours"):
        Pairs(views(3), views(2))


def test_a_point_of_the_target_is_the_same_point_of_the_world_in_the_neighbour() -> None:
    pairs = Pairs(views(3, seed=1), views(3, seed=2, size=(5, 7)))
    point = np.array([0.3, -0.2, 1.5, 1.0])
    assert pairs.T_neighbour_target.dtype == torch.float32
    for n in range(3):
        in_neighbour = pairs.T_neighbour_target[n].numpy() @ point
        np.testing.assert_allclose(
            pairs.neighbour.T_world_camera[n] @ in_neighbour, pairs.target.T_world_camera[n] @ point, atol=1e-5
        )


def test_two_places_far_from_the_origin_keep_their_distance() -> None:
    """In float32 the millimetre between them would be lost 100 km away."""
    T = np.tile(np.eye(4), (2, 1, 1))
    T[:, 0, 3] = 1e5, 1e5 + 1e-3
    view = views(1)
    target, neighbour = (Views(view.depth, view.K, pose[None]) for pose in T)
    assert Pairs(target, neighbour).T_neighbour_target[0, 0, 3].item() == pytest.approx(-1e-3, rel=1e-4)


def test_views_are_joined_in_order_and_one_is_repeated_without_a_copy() -> None:
    first, second = views(2, seed=1), views(1, seed=2)
    both, often = joined([first, second]), second.repeated(4)
    assert (len(both), len(often)) == (3, 4)
    for part in ("depth", "K", "T_world_camera"):
        np.testing.assert_array_equal(getattr(both, part)[:2], getattr(first, part))
        np.testing.assert_array_equal(getattr(both, part)[2:], getattr(second, part))
        assert all((getattr(often, part)[n] == getattr(second, part)[0]).all() for n in range(4))
    assert often.depth.data_ptr() == second.depth.data_ptr()
    assert often.depth.stride()[0] == 0
