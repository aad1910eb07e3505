"""Whether the depths of two views contradict each other, measured on coarse depth, and how surely that would show."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from s4net_core.config import GeometrySettings
from s4net_core.geometry.camera import SMALLEST_Z
from s4net_core.geometry.views import Pairs, Views, joined
from s4net_core.geometry.warp import project, usable_depth

LARGEST_RESIDUAL = 0.15
"""Differences of depth above this share are not averaged: they are other surfaces."""
SMOOTH = 1.25
"""Largest ratio of the four depths around a point on one surface."""
FEWEST = 20
"""Fewest pixels of which a residual is taken."""
SHIFT, TURN = 0.1, np.radians(5.0)
"""Errors of a pose, metres and radians, for which `constraint` says how much they would show."""


@dataclass(frozen=True)
class Fit:
    """How well the depths of B pairs fit, both ways taken together.

    Args:
        compared: (B,) float, share of a view's pixels with depth that the other view shows or sees through; the larger
            of both ways.
        free_space: (B,) float, share of the compared pixels through which the other view sees something farther.
        residual: (B,) float, rms difference of depth as a share of depth, of means over 3x3 pixels, where both views
            show one smooth surface. Noise of single pixels cancels in the means, an error of a pose does not. 0 when
            fewer than `FEWEST` pixels do.
    """

    compared: Tensor
    free_space: Tensor
    residual: Tensor


def fit(pairs: Pairs, settings: GeometrySettings) -> Fit:
    """Compare the depths of views of one size.

    Args:
        pairs: coarse depth is enough (`coarse_depth`); the order within a pair does not matter.
        settings: range of depth, and the difference that is an occlusion.
    """
    there, back = _compare(pairs, settings), _compare(Pairs(pairs.neighbour, pairs.target), settings)
    violated = _count(there.violated) + _count(back.violated)
    agreeing = _count(there.agrees) + _count(back.agrees)
    squares, pixels = map(torch.add, _smooth_squares(there), _smooth_squares(back))
    return Fit(
        torch.maximum(there.compared, back.compared),
        violated / (violated + agreeing).clamp(min=1),
        torch.where(pixels >= FEWEST, squares / pixels.clamp(min=1), 0.0).sqrt(),
    )


def constraint(pairs: Pairs, settings: GeometrySettings) -> Tensor:
    """Residual that an error of `SHIFT` and `TURN` in the pose would cause in the direction where it shows least.

    Views of a bare wall or a corridor fit wherever the camera is along it: there the constraint is about 0.

    Returns:
        (B,) float, rms difference of depth as a share of depth.
    """
    still = _compare(pairs, settings)
    poses = [_disturbed(pairs.target, axis) for axis in range(6)]
    disturbed = _compare(Pairs(joined(poses), joined([pairs.neighbour] * 6)), settings)
    both = still.smooth.repeat(6, 1, 1, 1) & disturbed.smooth
    changes, used = _local_means(disturbed.residual - still.residual.repeat(6, 1, 1, 1), both)
    rows = changes.flatten(1).unflatten(0, (6, -1)).transpose(0, 1)  # (B, 6, pixels)
    pixels = _count(used).unflatten(0, (6, -1)).amin(dim=0)
    smallest = torch.linalg.eigvalsh(rows @ rows.transpose(1, 2))[:, 0].clamp(min=0)
    return torch.where(pixels >= FEWEST, smallest / pixels.clamp(min=1), 0.0).sqrt()


@dataclass(frozen=True)
class _Compared:
    """Pixels of the target views, (B, 1, H, W): masks, and the neighbour's depth over the point's, minus 1."""

    exists: Tensor
    violated: Tensor
    agrees: Tensor
    smooth: Tensor
    residual: Tensor

    @property
    def compared(self) -> Tensor:
        """(B,), share of the pixels with depth that the neighbour shows or sees through."""
        return (_count(self.violated) + _count(self.agrees)) / _count(self.exists).clamp(min=1)


def _compare(pairs: Pairs, settings: GeometrySettings) -> _Compared:
    target, neighbour = pairs.target, pairs.neighbour
    depth, exists = usable_depth(target.depth, settings)
    points = project(depth, target.K, pairs.T_neighbour_target, neighbour.K)
    z = points[:, 2:].clamp(min=SMALLEST_Z)
    height, width = neighbour.size
    x, y = points[:, :1] / z, points[:, 1:2] / z
    inside = (points[:, 2:] == z) & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    corners, seen = _around(usable_depth(neighbour.depth, settings)[0], x, y)
    near, far = corners.amin(dim=1, keepdim=True), corners.amax(dim=1, keepdim=True)
    valid = exists & inside & (near > 0)
    tolerance = 1 + settings.occlusion_threshold
    violated = valid & (near > z * tolerance)
    agrees = valid & ~violated & (far * tolerance >= z)
    residual = torch.where(valid, seen / z - 1, 0.0)
    smooth = valid & (far < SMOOTH * near) & (residual.abs() < LARGEST_RESIDUAL)
    return _Compared(exists, violated, agrees, smooth, residual)


def _around(depth: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The four depths around each point, (B, 4, H, W), and the depth of the plane through them, (B, 1, H, W).

    Depth is interpolated as 1 / depth, which is linear on a plane.
    """
    height, width = depth.shape[2:]
    left, top = (c.floor().clamp(0, max(side - 2, 0)) for c, side in ((x, width), (y, height)))
    first = (top * width + left).long().flatten(1)
    steps = (0, min(1, width - 1), width * min(1, height - 1), width * min(1, height - 1) + min(1, width - 1))
    corners = torch.stack([depth.flatten(1).gather(1, first + step) for step in steps], dim=1)
    corners = corners.unflatten(2, x.shape[2:])
    across, down = (x - left).clamp(0, 1), (y - top).clamp(0, 1)
    weights = torch.cat([(1 - across) * (1 - down), across * (1 - down), (1 - across) * down, across * down], dim=1)
    inverse = (weights / corners.clamp(min=SMALLEST_Z)).sum(dim=1, keepdim=True)
    return corners, 1 / inverse


def _smooth_squares(way: _Compared) -> tuple[Tensor, Tensor]:
    """Sum of the squares of the local means of the residual, and their number. (B,) each."""
    means, used = _local_means(way.residual, way.smooth)
    return means.square().flatten(1).sum(dim=1), _count(used)


def _local_means(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Means over the pixels of 3x3 that are in the mask, and where there are at least four of them; 0 elsewhere."""
    weights = mask.to(values.dtype)
    total, count = (functional.avg_pool2d(v, 3, 1, 1, divisor_override=1) for v in (values * weights, weights))
    used = mask & (count >= 4)
    return torch.where(used, total / count.clamp(min=1), 0.0), used


def _count(mask: Tensor) -> Tensor:
    return mask.flatten(1).sum(dim=1)


def _disturbed(views: Views, axis: int) -> Views:
    """Views whose cameras are shifted (axis 0..2) or turned (3..5) along one of their own axes."""
    T = np.eye(4)
    if axis < 3:
        T[axis, 3] = SHIFT
    else:
        T[:3, :3] = Rotation.from_rotvec(TURN * np.eye(3)[axis - 3]).as_matrix()
    return Views(views.depth, views.K, views.T_world_camera @ T)
