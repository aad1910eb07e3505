"""Spatial index that takes insertions and removals: a k-d tree, rebuilt only now and then."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

REBUILD_AFTER = 64
"""Insertions or removals after which the tree is rebuilt: few enough to be looked through one by one."""


class PointIndex:
    """Points with ids, found by distance.

    A query costs O(log n + REBUILD_AFTER); an insertion or a removal O(n log n / REBUILD_AFTER) on average.

    Args:
        dimensions: length of each point.
    """

    def __init__(self, dimensions: int) -> None:
        self._ids: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._points: NDArray[np.float64] = np.empty((0, dimensions))
        self._tree = cKDTree(self._points)
        self._removed: set[int] = set()
        self._recent: dict[int, NDArray[np.float64]] = {}

    def add(self, id: int, point: ArrayLike) -> None:
        """Insert a point; `id` must be new."""
        self._recent[id] = np.asarray(point, dtype=np.float64)
        if len(self._recent) > REBUILD_AFTER:
            self._rebuild()

    def remove(self, id: int) -> None:
        """Take a point out; `id` must be in the index."""
        if self._recent.pop(id, None) is None:
            self._removed.add(id)
        if len(self._removed) > REBUILD_AFTER:
            self._rebuild()

    def within(self, point: ArrayLike, radius: float) -> list[int]:
        """Ids of all points nearer than `radius`, ascending."""
        center = np.asarray(point, dtype=np.float64)
        rows = np.array(self._tree.query_ball_point(center, radius), dtype=np.int64)
        near = np.linalg.norm(self._points[rows] - center, axis=1) < radius
        found = [id for id in self._ids[rows[near]].tolist() if id not in self._removed]
        found += [id for id, distance in self._recent_distances(center) if distance < radius]
        return sorted(found)

    def nearest(self, point: ArrayLike, count: int) -> list[int]:
        """Ids of the `count` nearest points, nearest first."""
        center = np.asarray(point, dtype=np.float64)
        distances, rows = self._tree.query(center, k=np.arange(1, count + len(self._removed) + 1))
        known = np.isfinite(distances)
        ranked = [
            (float(distance), int(id))
            for distance, id in zip(distances[known], self._ids[rows[known]], strict=True)
            if int(id) not in self._removed
        ]
        ranked += [(distance, id) for id, distance in self._recent_distances(center)]
        return [id for _, id in sorted(ranked)[:count]]

    def _recent_distances(self, center: NDArray[np.float64]) -> list[tuple[int, float]]:
        if not self._recent:
            return []
        distances = np.linalg.norm(np.array(list(self._recent.values())) - center, axis=1)
        return list(zip(self._recent, distances.tolist(), strict=True))

    def _rebuild(self) -> None:
        kept = ~np.isin(self._ids, list(self._removed))
        ids = np.array(list(self._recent), dtype=np.int64)
        self._ids = np.concatenate([self._ids[kept], ids])
        if self._recent:
            self._points = np.concatenate([self._points[kept], np.array(list(self._recent.values()))])
        else:
            self._points = self._points[kept]
        self._tree = cKDTree(self._points)
        self._removed.clear()
        self._recent.clear()
