"""Where keyframes are and what they look at, to find those near a place."""

import numpy as np
from numpy.typing import NDArray

from s4net_core.geometry.views import Views


class Places:
    """For each keyframe the point that it looks at, and its own position; metres, in the world."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._points = np.empty((0, 6))

    def put(self, id: int, view: Views) -> None:
        """Note the place of a keyframe, which is new or has moved.

        Args:
            id: of the keyframe; larger than all others if it is new.
            view: the keyframe alone, with coarse depth.
        """
        if id in self._ids:
            self._points[self._ids.index(id)] = _place(view)
            return
        self._ids.append(id)
        self._points = np.vstack((self._points, _place(view)))

    def remove(self, id: int) -> None:
        """Forget a keyframe."""
        row = self._ids.index(id)
        del self._ids[row]
        self._points = np.delete(self._points, row, axis=0)

    def around(self, position: NDArray[np.float64], distance: float) -> list[int]:
        """Ids of the keyframes nearer to a position, (3,), than a distance, metres; ascending."""
        distances = np.linalg.norm(self._points[:, 3:] - position, axis=1)
        return [self._ids[row] for row in np.flatnonzero(distances < distance)]

    def nearest(self, view: Views) -> list[int]:
        """Ids of all keyframes by their distance from a view, in what they look at and whence; the older first."""
        distances = np.linalg.norm(self._points - _place(view), axis=1)
        return [self._ids[row] for row in np.argsort(distances, kind="stable")]


def _place(view: Views) -> NDArray[np.float64]:
    """Where one view looks and where it is taken from: two points in the world, (6,), metres."""
    T_world_camera, depth = view.T_world_camera[0], view.depth.numpy()
    position = T_world_camera[:3, 3]
    seen = depth[depth > 0]
    distance = float(np.median(seen)) if seen.size else 0.0
    return np.concatenate([position + distance * T_world_camera[:3, 2], position])
