"""The voxels of a map as points, and the places of one class among them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

TOUCHING = 1.8
"""Distance in voxels up to which two voxels touch: at a face, an edge or a corner."""
LEAST_VOXELS = 8
"""Fewer voxels are no place: a few wrong pixels make them."""


@dataclass(frozen=True, eq=False)
class MapPoints:
    """Voxels, in ascending order of x, then y, then z.

    Args:
        xyz: (N, 3) float64, centres in the world, metres.
        color: (N, 3) uint8, mean RGB.
        label: (N,) uint8, class id with the most votes.
        confidence: (N,) float32, share 0..1 of the votes that this class has.
    """

    xyz: NDArray[np.float64]
    color: NDArray[np.uint8]
    label: NDArray[np.uint8]
    confidence: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.xyz)


@dataclass(frozen=True)
class Place:
    """Where something of a class is.

    Args:
        center: (x, y, z) of its box, which is parallel to the axes; metres, in the world.
        size: of the box, metres.
        voxels: number of its voxels.
        confidence: mean over these, 0..1.
    """

    center: tuple[float, float, float]
    size: tuple[float, float, float]
    voxels: int
    confidence: float


def places_of(points: MapPoints, class_id: int, voxel_size: float) -> list[Place]:
    """Groups of voxels of one class that touch each other, the largest first."""
    own = points.label == class_id
    xyz, confidence = points.xyz[own], points.confidence[own]
    if not len(xyz):
        return []
    pairs = KDTree(xyz).query_pairs(TOUCHING * voxel_size, output_type="ndarray")
    touching = coo_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(len(xyz),) * 2)
    group = connected_components(touching, directed=False)[1]
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    found = [_place(xyz[ids], confidence[ids], voxel_size) for ids in members if len(ids) >= LEAST_VOXELS]
    return sorted(found, key=lambda place: (-place.voxels, place.center))


def _place(xyz: NDArray[np.float64], confidence: NDArray[np.float32], voxel_size: float) -> Place:
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    center, size = ((low + high) / 2).tolist(), (high - low + voxel_size).tolist()
    return Place(tuple(center), tuple(size), len(xyz), float(confidence.mean()))
