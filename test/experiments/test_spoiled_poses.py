"""tools/poses/spoiled.py: poses lie as much as docs/results.md says."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tools.poses.spoiled import bad, drift, main, read


@pytest.fixture
def true():
    """A camera on a curve, looking slightly down."""
    poses = np.tile(np.eye(4), (40, 1, 1))
    angles = np.linspace(0, 2, 40)
    level = Rotation.from_euler("z", -angles[:, None]).as_matrix() @ [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    poses[:, :3, :3] = level @ Rotation.from_euler("x", -0.3).as_matrix()
    poses[:, :3, 3] = np.stack([np.sin(angles), np.cos(angles), np.full(40, 1.2)], axis=1)
    return poses


def off(poses, true):
    """Metres and degrees between two trajectories."""
    turns = Rotation.from_matrix(np.linalg.inv(true[:, :3, :3]) @ poses[:, :3, :3])
    return np.linalg.norm(poses[:, :3, 3] - true[:, :3, 3], axis=1), np.degrees(turns.magnitude())


def test_one_frame_in_ten_is_20_cm_and_5_degrees_off(true):
    metres, degrees = off(bad(true, np.random.default_rng(0)), true)
    assert np.sum(metres > 0) == 4
    assert metres[metres > 0] == pytest.approx(0.2)
    assert degrees[metres > 0] == pytest.approx(5)
    assert degrees[metres == 0] == pytest.approx(0, abs=1e-5)


def test_the_position_drifts_half_a_metre_in_the_horizontal_plane(true):
    first, second = np.split(drift(true, np.random.default_rng(0)), 2)
    metres, degrees = off(first, true[:20])
    assert degrees == pytest.approx(0, abs=1e-5)
    assert first[:, 2, 3] == pytest.approx(1.2)
    assert second[0, :3, 3] == pytest.approx(first[0, :3, 3])
    assert second[0, :2, 2] == pytest.approx(first[0, :2, 2])  # odometry began again where it began
    assert 0 == metres[0] < metres[-1] < 0.5


def test_both_halves_add_up_to_the_drift(true):
    poses = drift(true, np.random.default_rng(0))
    turn = poses[20] @ np.linalg.inv(true[20])  # the frame of the second half, and the drift until then
    second = np.linalg.inv(turn) @ poses[20:]
    first_drift, second_drift = poses[19, :2, 3] - true[19, :2, 3], second[-1, :2, 3] - true[-1, :2, 3]
    assert np.linalg.norm(first_drift + second_drift) == pytest.approx(0.5, abs=0.05)  # but for the step at the restart


def test_both_files_lie_beside_the_true_poses(tmp_path, true):
    np.savetxt(tmp_path / "poses.txt", np.c_[np.arange(40), true.reshape(-1, 16)], fmt=["%d"] + ["%.9g"] * 16)
    main([str(tmp_path)])
    for name, spoil in (("bad", bad), ("drift", drift)):
        numbers, poses = read(tmp_path / f"poses_{name}.txt")
        assert numbers == list(range(40))
        assert poses == pytest.approx(spoil(true, np.random.default_rng(0)), abs=1e-8)
