"""Poses that lie, for the table of that name in docs/results.md.

    .venv/bin/python tools/poses/spoiled.py DATA/rendered/T?/scan1

writes beside each ``poses.txt``, with the same draws every time:

``poses_bad.txt``   one frame in ten is 20 cm and 5° off in a random direction.
``poses_drift.txt`` the position drifts on a winding way, to 0.5 m at the end. Halfway, odometry restarts: what follows
                    is in a frame that has the camera where it started.

config/experiments/poses-bad.yaml and poses-drift.yaml learn from them.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from s4net_core.io.captures.trajectory import read_poses

BAD_SHARE, BAD_METRES, BAD_DEGREES = 0.1, 0.2, 5.0
DRIFT_METRES = 0.5
WANDERING = 0.1
"""Standard deviation of the turns of the drift's direction, radians a frame."""

Trajectory = NDArray[np.float64]
"""(N, 4, 4) T_world_camera of the frames of a scan; z is up."""


def bad(true: Trajectory, rng: np.random.Generator) -> Trajectory:
    """Some poses are off, those before and after are not."""
    poses = true.copy()
    for i in rng.choice(len(poses), round(BAD_SHARE * len(poses)), replace=False):
        poses[i, :3, 3] += BAD_METRES * _direction(rng)
        turn = Rotation.from_rotvec(BAD_DEGREES * _direction(rng), degrees=True).as_matrix()
        poses[i, :3, :3] = poses[i, :3, :3] @ turn
    return poses


def drift(true: Trajectory, rng: np.random.Generator) -> Trajectory:
    """The position drifts in the horizontal plane, and the second half is in another frame."""
    poses = true.copy()
    angles = np.cumsum(rng.normal(scale=WANDERING, size=len(poses)))
    steps = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    way = np.cumsum(steps, axis=0) - steps[0]
    poses[:, :2, 3] += DRIFT_METRES / np.linalg.norm(way[-1]) * way
    half = len(poses) // 2
    poses[half:] = _level(poses[0]) @ np.linalg.inv(_level(poses[half])) @ poses[half:]
    return poses


def read(path: Path) -> tuple[list[int], Trajectory]:
    """Numbers of the frames, and their poses."""
    poses = read_poses(path).poses
    return list(poses), np.array(list(poses.values()))


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def _level(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frame at the camera's position, its x axis where the camera looks in the horizontal plane, z up."""
    forward = pose[:2, 2] / np.linalg.norm(pose[:2, 2])
    frame = np.eye(4)
    frame[:2, 0], frame[:2, 1] = forward, (-forward[1], forward[0])
    frame[:3, 3] = pose[:3, 3]
    return frame


def main(scans: list[str]) -> None:
    """Write the files of each scan."""
    for scan in map(Path, scans):
        numbers, true = read(scan / "poses.txt")
        for name, spoil in (("bad", bad), ("drift", drift)):
            rows = np.c_[numbers, spoil(true, np.random.default_rng(0)).reshape(-1, 16)]
            np.savetxt(scan / f"poses_{name}.txt", rows, fmt=["%d"] + ["%.9g"] * 16)


if __name__ == "__main__":
    main(sys.argv[1:])
