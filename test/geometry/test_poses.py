"""Poses from and to quaternions, and interpolation between two poses."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from s4net_core.errors import BadFrame
from s4net_core.geometry.poses import interpolate, inverse, pose_matrix, quaternion_of


def test_quaternions_agree_with_scipy():
    x, y, z, w = np.array([0.1, -0.4, 0.3, 0.8]) / np.linalg.norm([0.1, -0.4, 0.3, 0.8])
    T = pose_matrix((1, 2, 3), (0.2, -0.8, 0.6, 1.6))  # not normalised
    np.testing.assert_allclose(T[:3, :3], Rotation.from_quat([x, y, z, w]).as_matrix(), atol=1e-12)
    np.testing.assert_array_equal(T[:, 3], [1, 2, 3, 1])
    np.testing.assert_allclose(quaternion_of(T), (x, y, z, w), atol=1e-12)


def test_quaternion_has_positive_w():
    np.testing.assert_allclose(quaternion_of(pose_matrix((0, 0, 0), (0, 0, 0.6, -0.8))), (0, 0, -0.6, 0.8))


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (np.nan, 0, 0, 1)])
def test_lost_tracking_is_refused(quaternion):
    with pytest.raises(BadFrame, match="tracking lost"):
        pose_matrix((0, 0, 0), quaternion)


def test_slerp_takes_the_shortest_arc_around_a_general_axis():
    T_a, T_b = np.eye(4), np.eye(4)
    T_a[:3, :3] = Rotation.from_rotvec([0, 0, 3.0]).as_matrix()
    T_b[:3, :3] = Rotation.from_rotvec([0, 0, -3.0]).as_matrix()
    middle = interpolate(T_a, T_b, 0.5)
    np.testing.assert_allclose(middle[:3, :3], np.diag([-1.0, -1.0, 1.0]), atol=1e-12)  # through pi, not through 0


def test_several_pairs_at_once_are_interpolated_and_inverted_as_each_alone():
    T_a, T_b = pose_matrix((1, 2, 3), (0.1, -0.4, 0.3, 0.8)), pose_matrix((-1, 0, 2), (0.5, 0.1, 0.0, 0.6))
    shares = np.array([0.0, 0.25, 0.5, 1.0])
    several = interpolate(np.stack([T_a] * 4), np.stack([T_b] * 4), shares)
    np.testing.assert_allclose(several, [interpolate(T_a, T_b, share) for share in shares], atol=1e-12)
    np.testing.assert_allclose(several[[0, 3]], [T_a, T_b], atol=1e-12)
    np.testing.assert_allclose(inverse(several), [inverse(T) for T in several], atol=1e-12)


def test_inverse_undoes_a_pose():
    T = pose_matrix((1, 2, 3), (0.1, -0.4, 0.3, 0.8))
    np.testing.assert_allclose(inverse(T), np.linalg.inv(T), atol=1e-12)
