"""Overlap of views whose common share is known from the drawing."""

import numpy as np
import pytest
import torch

from s4net_core.config import GeometrySettings
from s4net_core.frames import Intrinsics
from s4net_core.geometry.overlap import coarse_depth, overlap
from s4net_core.geometry.views import Pairs, Views, joined

SETTINGS = GeometrySettings()
LENS = Intrinsics(width=48, height=30, fx=40.0, fy=40.0, cx=23.5, cy=14.5)
K = torch.as_tensor(LENS.matrix, dtype=torch.float32)[None]


def share(depth: torch.Tensor, T: np.ndarray, depth_neighbour: torch.Tensor, K: torch.Tensor = K, **changes) -> float:
    """Overlap of one view with a neighbour in the world's origin."""
    pairs = Pairs(Views(depth, K, T), Views(depth_neighbour, K, np.eye(4)[None]))
    return overlap(pairs, SETTINGS.model_copy(update=changes)).item()


def wall(distance: float = 2.0) -> torch.Tensor:
    return torch.full((1, 1, 30, 48), distance)


def moved(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T[None]


@pytest.mark.parametrize("pixels", [0, 6, 12, 36, 60])
def test_sideways_motion_before_a_wall_shares_what_stays_in_view(pixels: int) -> None:
    assert share(wall(), moved(x=pixels * 2.0 / 40.0 + 1e-4), wall()) == pytest.approx(
        max(0, 48 - pixels) / 48, abs=1 / 48
    )


def test_is_a_share_of_the_target_so_it_is_not_symmetric() -> None:
    near, far = wall(1.0), wall(2.0)
    T_far_near = moved(z=1.0)  # the near view sees a quarter of what the far one sees
    assert share(near, T_far_near, far) == pytest.approx(1.0)
    assert share(far, np.linalg.inv(T_far_near), near) == pytest.approx(0.25, abs=0.03)


def test_pixels_without_depth_do_not_count() -> None:
    depth = wall()
    depth[..., :24] = 0  # the left half has none; motion by 12 pixels loses half of the rest
    assert share(depth, moved(x=12 * 2.0 / 40.0), wall()) == pytest.approx(0.5)


def test_a_target_without_depth_overlaps_with_nothing() -> None:
    assert share(wall(0.0), moved(), wall()) == 0


def test_occluded_views_do_not_overlap() -> None:
    assert share(wall(2.0), moved(), wall(1.0)) == 0


def test_each_view_of_a_batch_is_measured_on_its_own() -> None:
    origin = Views(wall(), K, np.eye(4)[None])
    targets = joined([Views(wall(), K, T) for T in (moved(), moved(x=0.6), moved(z=-3.0))])
    shares = overlap(Pairs(targets, origin.repeated(3)), SETTINGS)
    assert shares.shape == (3,)
    assert shares.tolist() == pytest.approx([1.0, 0.75, 0.0], abs=0.02)


def test_coarse_depth_measures_the_same_overlap() -> None:
    v, u = np.mgrid[:240, :384]
    lens = LENS.scaled(384, 240)
    depth = (2 + 0.002 * u + 0.001 * v).astype(np.float32)
    depth[::7] = 0  # line-shaped holes
    T = moved(x=0.3, y=-0.1, z=0.1)
    shares = []
    for view, intrinsics in ((depth, lens), coarse_depth(depth, lens, 24)):
        both = torch.from_numpy(np.ascontiguousarray(view))[None, None]
        matrix = torch.as_tensor(intrinsics.matrix, dtype=torch.float32)[None]
        shares.append(share(both, T, both, matrix, require_neighbour_depth=False))
    assert 0.3 < shares[0] < 0.9
    assert shares[1] == pytest.approx(shares[0], abs=0.05)


def test_coarse_depth_keeps_proportions_values_and_holes() -> None:
    depth = np.random.default_rng(0).choice([0.0, 1.0, 3.0], size=(90, 160)).astype(np.float32)
    small, intrinsics = coarse_depth(depth, LENS.scaled(160, 90), 32)
    assert small.shape == (18, 32)
    assert (intrinsics.width, intrinsics.height) == (32, 18)
    assert set(np.unique(small)) == {0.0, 1.0, 3.0}
    assert coarse_depth(depth, LENS.scaled(160, 90), 500)[0].shape == (90, 160)
