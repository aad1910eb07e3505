"""Brings depth into the view of another camera, as needed for depth "aligned to colour"."""

import numpy as np
from numpy.typing import NDArray

from s4net_core.frames import Intrinsics
from s4net_core.geometry.camera import SMALLEST_Z

LARGEST_FOOTPRINT = 8
"""Pixels that one depth pixel may cover in the other image, in each direction; points nearer than that are cut."""


def register_depth(
    depth: NDArray[np.float32], depth_lens: Intrinsics, lens: Intrinsics, T_camera_depth: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Depth as another camera without lens distortion would have measured it.

    If both cameras are in one place, every new pixel takes the old pixel nearest to its ray, which leaves no gaps.
    Otherwise every old pixel is drawn as the rectangle that it covers, the nearest on top.

    Args:
        depth: (H, W) float32, metres, 0 = none.
        depth_lens: of `depth`, pinhole.
        lens: of the other camera, pinhole.
        T_camera_depth: (4, 4), from the depth camera's coordinates to the other's.

    Returns:
        (lens.height, lens.width) float32, metres along the other camera's optical axis, 0 = none.
    """
    if np.allclose(T_camera_depth, np.eye(4), atol=1e-6):
        return _resampled(depth, depth_lens, lens)
    return _drawn(depth, depth_lens, lens, T_camera_depth)


def _resampled(depth: NDArray[np.float32], depth_lens: Intrinsics, lens: Intrinsics) -> NDArray[np.float32]:
    x, seen_x = _nearest(lens.width, lens.fx, lens.cx, depth.shape[1], depth_lens.fx, depth_lens.cx)
    y, seen_y = _nearest(lens.height, lens.fy, lens.cy, depth.shape[0], depth_lens.fy, depth_lens.cy)
    return np.where(seen_y[:, None] & seen_x, depth[y[:, None], x], np.float32(0))


def _nearest(
    size: int, focal: float, centre: float, old_size: int, old_focal: float, old_centre: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Along one axis: the old pixel nearest to the ray of each new one, and whether there is one."""
    old = np.floor((np.arange(size) - centre) / focal * old_focal + old_centre + 0.5).astype(np.int64)
    return old.clip(0, old_size - 1), (old >= 0) & (old < old_size)


def _drawn(
    depth: NDArray[np.float32], depth_lens: Intrinsics, lens: Intrinsics, T: NDArray[np.float64]
) -> NDArray[np.float32]:
    v, u = np.nonzero(depth > 0)
    z = depth[v, u].astype(np.float64)
    corners = [_projected(u + shift, v + shift, z, depth_lens, lens, T) for shift in (-0.5, 0.5)]
    left, top = (np.ceil(np.minimum(a, b)) for a, b in zip(corners[0][:2], corners[1][:2], strict=True))
    right, bottom = (np.ceil(np.maximum(a, b)) for a, b in zip(corners[0][:2], corners[1][:2], strict=True))
    new_z = _projected(u, v, z, depth_lens, lens, T)[2]
    visible = (new_z > SMALLEST_Z) & (right > 0) & (bottom > 0) & (left < lens.width) & (top < lens.height)
    visible &= np.maximum(right - left, bottom - top) <= LARGEST_FOOTPRINT
    left, top, right, bottom = (edge[visible].astype(np.int64) for edge in (left, top, right, bottom))
    new_z = new_z[visible].astype(np.float32)
    drawn = np.full((lens.height, lens.width), np.inf, np.float32)
    for dy in range(int((bottom - top).max(initial=0))):
        for dx in range(int((right - left).max(initial=0))):
            x, y = left + dx, top + dy
            inside = (x < right) & (y < bottom) & (x >= 0) & (y >= 0) & (x < lens.width) & (y < lens.height)
            np.minimum.at(drawn, (y[inside], x[inside]), new_z[inside])
    drawn[np.isinf(drawn)] = 0
    return drawn


def _projected(
    u: NDArray[np.floating | np.integer],
    v: NDArray[np.floating | np.integer],
    z: NDArray[np.float64],
    depth_lens: Intrinsics,
    lens: Intrinsics,
    T: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Pixel and depth in the other camera of points given by pixel and depth in the first."""
    points = np.stack([(u - depth_lens.cx) / depth_lens.fx * z, (v - depth_lens.cy) / depth_lens.fy * z, z])
    x, y, new_z = T[:3, :3] @ points + T[:3, 3:]
    safe = np.where(new_z > SMALLEST_Z, new_z, np.inf)
    return lens.fx * x / safe + lens.cx, lens.fy * y / safe + lens.cy, new_z
