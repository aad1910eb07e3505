"""The map from above: blocked, free and unknown cells."""

import numpy as np

from s4net_core.config import MapSettings
from s4net_core.labels import SUNRGBD37
from s4net_core.mapping.grid import BLOCKED, FREE, LARGEST, UNKNOWN, blocking, grid_of
from s4net_core.mapping.points import MapPoints

WALL, FLOOR, CHAIR, CEILING = 1, 2, 5, 22
SETTINGS = MapSettings(voxel_size=0.5, min_height=0.1, max_height=1.8)
BLOCKS = blocking(SUNRGBD37, "floor, floor mat, ceiling")[0]


def points(*voxels: tuple[float, float, float, int]) -> MapPoints:
    rows = np.array(voxels, float).reshape(-1, 4)
    n = len(rows)
    return MapPoints(rows[:, :3], np.zeros((n, 3), np.uint8), rows[:, 3].astype(np.uint8), np.ones(n, np.float32))


def test_a_cell_is_blocked_by_what_stands_in_the_robots_way() -> None:
    grid = grid_of(
        points(
            (-0.75, 1.25, -0.25, FLOOR),
            (-0.25, 1.25, -0.25, FLOOR),
            (-0.25, 1.25, 0.75, CHAIR),
            (0.25, 1.25, -0.25, CHAIR),  # part of the floor, taken for a chair: too low to block
            (0.75, 1.25, 0.75, FLOOR),
            (0.75, 1.75, 2.25, WALL),  # above the robot, and nobody has seen the floor below
            (1.25, 1.75, 1.75, WALL),
            (0.25, 2.25, 0.25, 0),
        ),
        BLOCKS,
        SETTINGS,
    )
    assert grid.corner == (-1.0, 1.0)
    assert grid.cells.tolist() == [
        [FREE, BLOCKED, FREE, FREE, UNKNOWN],
        [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, BLOCKED],
        [UNKNOWN, UNKNOWN, FREE, UNKNOWN, UNKNOWN],
    ]
    assert grid.cells.dtype == np.int8


def test_which_classes_block_is_a_setting() -> None:
    assert not BLOCKS[[0, FLOOR, CEILING]].any()
    assert BLOCKS[[WALL, CHAIR]].all()
    blocks, unknown = blocking(SUNRGBD37, " Chair, flor,wall,")
    assert not blocks[[WALL, CHAIR]].any()
    assert blocks[FLOOR]
    assert unknown == ["flor"]


def test_a_map_with_nothing_in_it_gives_an_empty_grid() -> None:
    assert grid_of(points(), BLOCKS, SETTINGS).cells.size == 0
    assert grid_of(points((0, 0, 9, WALL)), BLOCKS, SETTINGS).cells.size == 0


def test_a_stray_voxel_does_not_make_a_huge_grid() -> None:
    near = [(0.25 + 0.5 * i, 0.25, 0.25, WALL) for i in range(10)]
    cells = grid_of(points(*near, (1e6, -1e6, 1.0, WALL)), BLOCKS, SETTINGS).cells
    assert max(cells.shape) <= LARGEST
    assert np.count_nonzero(cells == BLOCKED) == len(near)
