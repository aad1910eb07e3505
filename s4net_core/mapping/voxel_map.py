"""Sparse voxels that count: integers in columns, so that what was added can be taken back exactly."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BITS = 21
"""Bits of a key for each of the three indices of a voxel."""
REACH = 1 << (BITS - 1)
"""Indices lie in [-REACH, REACH)."""
CHUNK = 1 << 16
"""Voxels whose counts are read at once: a copy of all would double the memory."""
FIRST_ROWS = 1024


def pack(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices (N, 3) in [-REACH, REACH) -> keys (N,), in the order of the indices."""
    x, y, z = (indices + REACH).T
    keys: NDArray[np.int64] = (x << (2 * BITS)) | (y << BITS) | z
    return keys


def unpack(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keys (N,) -> indices (N, 3)."""
    shifts = np.array([2 * BITS, BITS, 0])
    indices: NDArray[np.int64] = ((keys[:, None] >> shifts) & (2 * REACH - 1)) - REACH
    return indices


class VoxelMap:
    """Counts by voxel: sorted keys, each with a row in a table that grows up to `max_voxels` rows.

    Args:
        columns: counts of each voxel.
        max_voxels: largest number of voxels.
    """

    def __init__(self, columns: int, max_voxels: int) -> None:
        self.max_voxels = max_voxels
        self.keys: NDArray[np.int64] = np.empty(0, np.int64)
        """Sorted."""
        self._rows = np.empty(0, np.int64)
        self._table = np.zeros((min(FIRST_ROWS, max_voxels), columns), np.uint32)
        self._free = np.arange(len(self._table))

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, keys: NDArray[np.int64], counts: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Raise the counts of voxels, and make those that are new as long as there is room.

        Args:
            keys: (N,), sorted, each once.
            counts: (N, columns), not all 0 in any row.

        Returns:
            (N,), which of them were refused because the map is full.
        """
        known = self._rows_of(keys) >= 0
        new = np.flatnonzero(~known)[: self.max_voxels - len(self)]
        refused: NDArray[np.bool_] = ~known
        refused[new] = False
        self._make(keys[new])
        self._table[self._rows_of(keys[~refused])] += counts[~refused]
        return refused

    def subtract(self, keys: NDArray[np.int64], counts: NDArray[np.uint32]) -> None:
        """Lower counts by what was added; voxels without any count are forgotten. Arguments as `add`, none refused."""
        rows = self._rows_of(keys)
        self._table[rows] -= counts
        empty = ~self._table[rows].any(axis=1)
        places = np.searchsorted(self.keys, keys[empty])
        self._free = np.concatenate([self._free, self._rows[places]])
        self.keys, self._rows = np.delete(self.keys, places), np.delete(self._rows, places)

    def counts_of(self, keys: NDArray[np.int64]) -> NDArray[np.uint32]:
        """(N, columns) of voxels by their keys, (N,); 0 where there is no voxel."""
        rows = self._rows_of(keys)
        return np.where(rows[:, None] >= 0, self._table[rows], np.uint32(0))

    def chunks(self) -> Iterator[NDArray[np.uint32]]:
        """Counts of all voxels, in the order of `keys`, some at a time."""
        for start in range(0, len(self), CHUNK):
            yield self._table[self._rows[start : start + CHUNK]]

    def _rows_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row of each voxel, -1 where there is none."""
        if not len(self):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self) - 1)
        return np.where(self.keys[places] == keys, self._rows[places], -1)

    def _make(self, keys: NDArray[np.int64]) -> None:
        missing = len(keys) - len(self._free)
        if missing > 0:
            size = min(max(2 * len(self._table), len(self._table) + missing), self.max_voxels)
            self._free = np.concatenate([self._free, np.arange(len(self._table), size)])
            # A copy, as `resize` would move rows that others may still read.
            self._table = np.concatenate(
                [self._table, np.zeros((size - len(self._table), self._table.shape[1]), np.uint32)]
            )
        places = np.searchsorted(self.keys, keys)
        rows, self._free = self._free[: len(keys)], self._free[len(keys) :]
        self.keys, self._rows = np.insert(self.keys, places, keys), np.insert(self._rows, places, rows)
