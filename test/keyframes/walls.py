"""Keyframes along a wall, shared by the tests of the buffer."""

from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from s4net_core.config import GeometrySettings, KeyframeSettings
from s4net_core.frames import Frame, Intrinsics
from s4net_core.keyframes import KeyframeBuffer

WIDTH, HEIGHT = 64, 48
LENS = Intrinsics(WIDTH, HEIGHT, 50.0, 50.0, 31.5, 23.5)
TEXTURE = cv2.resize(
    np.random.default_rng(0).integers(0, 255, (HEIGHT // 12, WIDTH // 16, 3), dtype=np.uint8),
    (WIDTH, HEIGHT),
    interpolation=cv2.INTER_NEAREST,
)
SECOND = 1_000_000_000


def view(x: float = 0.0, yaw: float = 0.0, stamp: int = 0, color: np.ndarray = TEXTURE, depth: float = 2.0) -> Frame:
    """A textured wall at `depth` metres, seen from `x` metres along it with the head turned by `yaw` degrees."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
    T[0, 3] = x
    return Frame(stamp, color, np.full((HEIGHT, WIDTH), depth, np.float32), T, LENS, "camera")


def buffer(**settings: Any) -> KeyframeBuffer:
    """One segment whatever the stamps, because views of a wall cannot show that two segments fit; and no view is
    contradicted, because a wall that turns along with the camera would be.
    """
    lenient: dict[str, Any] = {"max_speed": 0.0, "max_gap": 0.0, "max_free_space": 1.0, "max_residual": 1.0}
    return KeyframeBuffer(KeyframeSettings(**(lenient | settings)), GeometrySettings(), min_overlap=0.25)


def corridor(n: int, step: float = 0.2, start: float = 0.0) -> list[Frame]:
    return [view(start + i * step, stamp=i * SECOND) for i in range(n)]


def filled(frames: list[Frame], **settings: float) -> KeyframeBuffer:
    keyframes = buffer(**settings)
    for frame in frames:
        keyframes.offer(frame)
    return keyframes


def contents(keyframes: KeyframeBuffer) -> list:
    """Everything that can be read from a buffer, in a form that can be compared."""
    return [
        (k.id, k.stamp, k.color.tobytes(), k.depth_mm.tobytes(), k.T_world_camera.tolist(), k.intrinsics, k.frame_id,
         keyframes.overlapping(k.id, 0.0))
        for k in map(keyframes.get, keyframes.ids())
    ]  # fmt: skip
