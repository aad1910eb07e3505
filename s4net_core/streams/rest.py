"""Whether a camera stands still, so that most of its frames would show what the last one showed."""

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import KeyframeSettings

REST_NS = 1_000_000_000
"""Time without movement after which a camera is at rest, by the stamps of its images."""
TOLERANCE = 0.1
"""Movement that ends a rest, as a share of that which makes a view new."""


class Rest:
    """Follows the poses of a camera's views. Not thread-safe.

    Args:
        keyframes: `min_translation` and `min_rotation` say which movement makes a view new.
    """

    def __init__(self, keyframes: KeyframeSettings) -> None:
        self._distance = TOLERANCE * keyframes.min_translation
        self._turn = 2 * np.sqrt(2) * np.sin(np.radians(TOLERANCE * keyframes.min_rotation) / 2)
        """Distance of two rotation matrices, as the norm of their difference, that are so far apart."""
        self._since = 0
        self._T_world_camera: NDArray[np.float64] | None = None

    def see(self, stamp_ns: int, T_world_camera: NDArray[np.float64]) -> bool:
        """Note the pose, (4, 4), of the newest view. Returns whether the camera is at rest."""
        if stamp_ns < self._since or self._moved(T_world_camera):
            self._since, self._T_world_camera = stamp_ns, T_world_camera
        return stamp_ns - self._since >= REST_NS

    def _moved(self, T_world_camera: NDArray[np.float64]) -> bool:
        """Whether it is away from where it was when it came to rest: steps too small to be seen add up."""
        before = self._T_world_camera
        if before is None:
            return True
        difference = T_world_camera - before
        far = np.linalg.norm(difference[:3, 3]) >= self._distance
        return bool(far or np.linalg.norm(difference[:3, :3]) >= self._turn)
