"""Poses: (4, 4) matrices, converted from and to quaternions, interpolated and inverted."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame


def pose_matrix(translation: Sequence[float], quaternion_xyzw: Sequence[float]) -> NDArray[np.float64]:
    """(4, 4) float64 transform from a translation (3, metres) and a quaternion (x, y, z, w), which is normalised.

    Raises:
        BadFrame: ``pose`` when a number is not finite or the quaternion is zero.
    """
    t, q = [float(value) for value in translation], [float(value) for value in quaternion_xyzw]
    norm = math.hypot(*q)
    if not (all(map(math.isfinite, (*t, *q))) and norm > 1e-6):
        raise BadFrame("pose", f"pose has translation {t} and quaternion {q}: is tracking lost?")
    # Written out, because robots send hundreds a second: this takes a sixth of the time of scipy's Rotation.
    x, y, z, w = (value / norm for value in q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), t[0]],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), t[1]],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), t[2]],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def quaternion_of(T: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Quaternion (x, y, z, w), w >= 0, of the rotation of a (4, 4) transform."""
    from scipy.spatial.transform import Rotation  # late: the node that labels starts without it

    x, y, z, w = (float(value) for value in Rotation.from_matrix(T[:3, :3]).as_quat())
    return (x, y, z, w) if w >= 0 else (-x, -y, -z, -w)


def interpolate(
    T_a: NDArray[np.float64], T_b: NDArray[np.float64], share: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate two transforms: translation linearly, rotation along the shortest arc.

    Args:
        T_a, T_b: (4, 4), or (N, 4, 4) for N pairs at once.
        share: 0 = `T_a`, 1 = `T_b`; (N,) for N pairs.

    Returns:
        As `T_a`.
    """
    from scipy.spatial.transform import Rotation

    part = np.expand_dims(share, -1)
    a, b = Rotation.from_matrix(T_a[..., :3, :3]), Rotation.from_matrix(T_b[..., :3, :3])
    T = np.zeros(T_a.shape)
    T[..., :3, :3] = (a * Rotation.from_rotvec(part * (a.inv() * b).as_rotvec())).as_matrix()
    T[..., :3, 3] = (1 - part) * T_a[..., :3, 3] + part * T_b[..., :3, 3]
    T[..., 3, 3] = 1
    return T


def inverse(T: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of rigid transforms, (..., 4, 4)."""
    R_inverse = np.swapaxes(T[..., :3, :3], -1, -2)
    T_inverse = np.zeros(T.shape)
    T_inverse[..., :3, :3] = R_inverse
    T_inverse[..., :3, 3] = -(R_inverse @ T[..., :3, 3:])[..., 0]
    T_inverse[..., 3, 3] = 1
    return T_inverse
