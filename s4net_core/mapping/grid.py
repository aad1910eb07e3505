"""The map from above: which cells of the floor are blocked."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import MapSettings
from s4net_core.labels import UNLABELLED, LabelSpace
from s4net_core.mapping.points import MapPoints

UNKNOWN, FREE, BLOCKED = -1, 0, 100
"""Values of nav_msgs/OccupancyGrid."""
LARGEST = 4096
"""Cells of a side; a stray voxel far away must not make a grid that fills the memory."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Cells of one size, seen from above; the world's z axis points up.

    Args:
        cells: (rows along y, columns along x) int8, `UNKNOWN`, `FREE` or `BLOCKED`.
        corner: (x, y) of the corner of the first cell, metres, in the world.
    """

    cells: NDArray[np.int8]
    corner: tuple[float, float]


def grid_of(points: MapPoints, blocks: NDArray[np.bool_], settings: MapSettings) -> Grid:
    """A cell is blocked by any voxel above it, between `min_height` and `max_height`, of a class that blocks.

    A cell with other voxels is free, unless these are all above `max_height`: then nobody has seen its floor. The grid
    covers all points, but at most `LARGEST` cells to each side, around the median of the points.

    Args:
        points: of the map.
        blocks: (256,) whether a class blocks, by its id.
        settings: `voxel_size`, which is the size of the cells, `min_height` and `max_height`.
    """
    size, z = settings.voxel_size, points.xyz[:, 2]
    low_enough = z <= settings.max_height
    places = np.floor(points.xyz[low_enough, :2] / size).astype(np.int64)
    if not len(places):
        return Grid(np.empty((0, 0), np.int8), (0.0, 0.0))
    middle = np.median(places, axis=0).astype(np.int64)
    first = np.maximum(places.min(axis=0), middle - LARGEST // 2)
    last = np.minimum(places.max(axis=0), first + LARGEST - 1)
    inside = ((places >= first) & (places <= last)).all(axis=1)
    x, y = (places[inside] - first).T
    blocked = (blocks[points.label[low_enough]] & (z[low_enough] > settings.min_height))[inside]
    columns, rows = (last - first + 1).tolist()
    cells = np.full((rows, columns), UNKNOWN, np.int8)
    cells[y, x] = FREE
    cells[y[blocked], x[blocked]] = BLOCKED
    corner = (first * size).tolist()
    return Grid(cells, (corner[0], corner[1]))


def blocking(space: LabelSpace, passable: str) -> tuple[NDArray[np.bool_], list[str]]:
    """Which classes block.

    Args:
        space: classes of the map.
        passable: names of those that do not block, separated by commas.

    Returns:
        Whether a class blocks, by its id, (256,); and the names that are no classes here, which change nothing.
    """
    blocks = np.ones(256, np.bool_)
    blocks[UNLABELLED] = False
    unknown = []
    for name in filter(None, (name.strip() for name in passable.split(","))):
        id = space.id_of(name)
        if id is None:
            unknown.append(name)
        else:
            blocks[id] = False
    return blocks, unknown
