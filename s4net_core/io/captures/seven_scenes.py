"""7-Scenes (Shotton et al., CVPR 2013): sequences of a handheld Kinect with poses by KinectFusion.

``frame-000000.color.png``, ``.depth.png`` (16 bit, millimetres, 65535 = none) and ``.pose.txt`` (T_world_camera,
4 rows of 4 numbers). The data set gives one lens for colour and depth and does not register one to the other: expect
borders of objects to be off by some pixels.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import CaptureError
from s4net_core.frames import Frame, Intrinsics
from s4net_core.io.captures.indexed import STEP_30_HZ, IndexedCapture, Place
from s4net_core.io.captures.scene_folder import FIRST_STAMP, FRAME_ID
from s4net_core.io.captures.trajectory import Poses, check_stamped, read_pose
from s4net_core.io.images.files import read_color, read_depth

LENS = Intrinsics(width=640, height=480, fx=585.0, fy=585.0, cx=320.0, cy=240.0)
NO_DEPTH = 65535


class SevenScenes(IndexedCapture):
    """Frames of one sequence.

    Args:
        path: folder of the sequence, e.g. ``chess/seq-01``.
        poses: replace the published poses.
        stride: take every n-th frame.

    Raises:
        CaptureError: the folder has no 7-Scenes frames, or `poses` are by time.
    """

    def __init__(self, path: str | Path, poses: Poses | None = None, stride: int = 1) -> None:
        super().__init__(path, stride)
        self._poses = poses
        colors = sorted(self.path.glob("frame-*.color.png"))
        if not colors:
            raise CaptureError(f"{self.path} has no frame-000000.color.png: give the folder of one sequence (seq-01)")
        check_stamped(poses, map(_stamp, colors), self.path)
        self._colors = self.strided(colors)

    def __len__(self) -> int:
        return len(self._colors)

    def locate(self, position: int) -> Place:
        """Stamp and pose of the frame at that position."""
        color_path = self._colors[position]
        stem = color_path.name.removesuffix(".color.png")
        stamp = _stamp(color_path)
        pose = self._poses.at(stamp, _number(color_path)) if self._poses else read_pose(self.path / f"{stem}.pose.txt")
        return Place(stamp, pose, partial(self._load, color_path, stem, stamp, pose))

    def _load(self, color_path: Path, stem: str, stamp: int, T_world_camera: NDArray[np.float64]) -> Frame:
        color = read_color(color_path)
        return Frame(
            stamp=stamp,
            color=color,
            depth=read_depth(self.path / f"{stem}.depth.png", no_depth=NO_DEPTH),
            T_world_camera=T_world_camera,
            intrinsics=LENS.scaled(color.shape[1], color.shape[0]),
            frame_id=FRAME_ID,
        )


def _number(color_path: Path) -> int:
    return int(color_path.name.removesuffix(".color.png").removeprefix("frame-"))


def _stamp(color_path: Path) -> int:
    return FIRST_STAMP + _number(color_path) * STEP_30_HZ


def is_seven_scenes(path: Path) -> bool:
    """Whether `path` looks like a sequence of 7-Scenes."""
    return any(path.glob("frame-*.color.png"))
