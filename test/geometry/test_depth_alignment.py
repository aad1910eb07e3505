"""Depth in the view of another camera: points stay where they are in space, and the nearest one is seen."""

import numpy as np
import pytest
from scenes import look_at, make_room_frames

from s4net_core.frames import Intrinsics
from s4net_core.geometry.depth_alignment import register_depth

DEPTH_LENS = Intrinsics(80, 60, 70.0, 71.0, 38.5, 31.0)
COLOR_LENS = Intrinsics(64, 40, 50.0, 49.0, 33.0, 18.5)
BASELINE = np.eye(4)
BASELINE[:3, 3] = [0.05, -0.01, 0.02]


def points(depth, lens):
    """(N, 3) by an independent loop over the pixels that have depth."""
    return np.array(
        [
            ((u - lens.cx) / lens.fx * depth[v, u], (v - lens.cy) / lens.fy * depth[v, u], depth[v, u])
            for v in range(lens.height)
            for u in range(lens.width)
            if depth[v, u] > 0
        ]
    )


def slanted(lens):
    """Depth of the plane z = 2 + 0.3 x + 0.2 y, metres."""
    v, u = np.mgrid[: lens.height, : lens.width]
    rays = (u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy
    return (2 / (1 - 0.3 * rays[0] - 0.2 * rays[1])).astype(np.float32)


@pytest.mark.parametrize("T", [np.eye(4), BASELINE], ids=["one place", "baseline"])
def test_points_of_a_plane_stay_on_it(T):
    registered = register_depth(slanted(DEPTH_LENS), DEPTH_LENS, COLOR_LENS, T)
    assert registered.shape == (40, 64)
    assert registered.dtype == np.float32
    x, y, z = (points(registered, COLOR_LENS) - T[:3, 3]).T  # T has no rotation
    assert np.abs(z - (2 + 0.3 * x + 0.2 * y)).max() < 0.02  # half a pixel of the coarser image
    assert np.abs(z - (2 + 0.3 * x + 0.2 * y)).mean() < 0.007


def test_a_rotated_camera_sees_the_same_points():
    T = np.linalg.inv(look_at(np.zeros(3), np.array([1.0, 0.05, 0.02]))) @ look_at(np.zeros(3), np.array([1.0, 0, 0]))
    T[:3, 3] = [0.02, 0, 0]
    registered = register_depth(slanted(DEPTH_LENS), DEPTH_LENS, COLOR_LENS, T)
    found = points(registered, COLOR_LENS)
    x, y, z = ((found - T[:3, 3]) @ T[:3, :3]).T
    assert len(found) > 0.8 * registered.size
    assert np.abs(z - (2 + 0.3 * x + 0.2 * y)).max() < 0.02


def test_the_camera_itself_sees_what_it_saw():
    depth = make_room_frames(1, 64, 40)[0].depth.copy()
    depth[5:9, 10:20] = 0
    lens = Intrinsics(64, 40, 50.0, 49.0, 33.0, 18.5)
    assert np.array_equal(register_depth(depth, lens, lens, np.eye(4)), depth)
    nearly = np.eye(4)
    nearly[0, 3] = 1e-5
    assert np.array_equal(register_depth(depth, lens, lens, nearly), depth)


def test_the_nearer_surface_hides_the_farther_and_what_only_one_sees_is_empty():
    depth = np.full((60, 80), 4.0, np.float32)
    depth[:, :40] = 1.0
    registered = register_depth(depth, DEPTH_LENS, DEPTH_LENS, BASELINE)
    u_near = DEPTH_LENS.fx * ((39.5 - DEPTH_LENS.cx) / DEPTH_LENS.fx * 1.0 + 0.05) / 1.02 + DEPTH_LENS.cx
    row = registered[30]
    assert np.allclose(row[6 : int(u_near)], 1.02)
    assert np.allclose(row[int(u_near) + 2 : 78], 4.02)
    back = register_depth(depth, DEPTH_LENS, DEPTH_LENS, np.linalg.inv(BASELINE))[30]
    assert 1 <= np.count_nonzero(back[20:60] == 0) <= 4  # beside the nearer surface a strip that was never measured


def test_a_finer_image_is_filled_and_no_depth_gives_none():
    fine = COLOR_LENS.scaled(192, 120)
    wide = register_depth(slanted(DEPTH_LENS), DEPTH_LENS, fine, BASELINE)
    assert np.count_nonzero(wide[20:100, 24:172]) > 0.98 * 80 * 148
    assert not register_depth(np.zeros((60, 80), np.float32), DEPTH_LENS, fine, BASELINE).any()


def test_points_behind_the_other_camera_are_not_seen():
    T = np.eye(4)
    T[2, 3] = -5.0
    assert not register_depth(slanted(DEPTH_LENS), DEPTH_LENS, COLOR_LENS, T).any()
