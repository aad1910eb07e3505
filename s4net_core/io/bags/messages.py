"""Fields of ROS messages to arrays and back, without ROS: the same code reads live topics and recorded bags.

Messages are read by plain attribute access. Both rclpy's and those that rosbags deserialises work, also from ROS 1.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame
from s4net_core.frames import Intrinsics
from s4net_core.geometry.poses import pose_matrix
from s4net_core.io.images.codec import decode_color, decode_compressed_color, decode_compressed_depth, decode_depth
from s4net_core.streams.assembler import Picture

_DISTORTION_LENGTHS = (4, 5, 8, 12, 14)
_PLUMB_BOB_LENGTH = 5


def stamp_ns(header: Any) -> int:
    """Stamp of a header, nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def picture_of(message: Any, decode: Callable[[Any], Any]) -> Picture:
    """Image or CompressedImage -> `Picture`; `decode` runs when its pixels are wanted.

    The leading ``/`` of frame names from ROS 1 is removed, because tf2 does not accept it.
    """
    return Picture(stamp_ns(message.header), message.header.frame_id.removeprefix("/"), partial(decode, message))


def color_from_image(message: Any) -> NDArray[np.uint8]:
    """Image (rgb8, bgr8, rgba8, bgra8, mono8) or CompressedImage (JPEG, PNG) -> (H, W, 3) uint8 RGB, read-only.

    Raises:
        BadFrame: ``color_format``.
    """
    if hasattr(message, "format"):
        return decode_compressed_color(message.format, message.data)
    return decode_color(*_layout(message), message.data)


def depth_from_image(message: Any) -> NDArray[np.float32]:
    """Image (16UC1 or mono16 millimetres, 32FC1 metres) or ``compressedDepth`` -> (H, W) float32 metres, 0 = none.

    Raises:
        BadFrame: ``depth_format``.
    """
    if hasattr(message, "format"):
        return decode_compressed_depth(message.format, message.data)
    return decode_depth(*_layout(message), message.data)


def _layout(message: Any) -> tuple[str, int, int, int, bool]:
    return message.encoding, message.height, message.width, message.step, bool(message.is_bigendian)


def intrinsics_from_info(message: Any, *, rectified: bool = False) -> Intrinsics:
    """CameraInfo -> `Intrinsics`.

    Args:
        rectified: whether the images are rectified: then P holds for them, and D has been undone already, although
            image_proc publishes it unchanged. K stands in for a P that nobody has filled in.

    Raises:
        BadFrame: ``intrinsics`` (zero or NaN entries) or ``distortion`` (a model that is not undone here).
    """
    names = "kdp" if hasattr(message, "k") else "KDP"  # capital letters in ROS 1
    k, d, p = (getattr(message, name) for name in names)
    if rectified:
        k, d = ([*p[:3], *p[4:7]] if p[0] else k), []
    return intrinsics_from_calibration(message.width, message.height, k, d, message.distortion_model)


def transform_matrix(transform: Any) -> NDArray[np.float64]:
    """geometry_msgs/Transform of a TransformStamped -> T_parent_child, (4, 4) float64.

    Raises:
        BadFrame: ``pose`` when it holds NaN or a zero quaternion.
    """
    t, q = transform.translation, transform.rotation
    return pose_matrix((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))


class Calibration(NamedTuple):
    """Fields of a sensor_msgs/CameraInfo, under its names; `k`, `r` and `p` row by row."""

    distortion_model: str
    d: list[float]
    k: list[float]
    r: list[float]
    p: list[float]


def calibration_of(intrinsics: Intrinsics) -> Calibration:
    """`Intrinsics` -> the fields of the CameraInfo of an unrectified monocular camera.

    Distortion is padded with zeros to at least the five coefficients of ``plumb_bob``.
    """
    K = intrinsics.matrix
    d = [*intrinsics.distortion] + [0.0] * (_PLUMB_BOB_LENGTH - len(intrinsics.distortion))
    return Calibration(
        distortion_model="plumb_bob" if len(d) == _PLUMB_BOB_LENGTH else "rational_polynomial",
        d=d,
        k=K.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=np.hstack([K, np.zeros((3, 1))]).ravel().tolist(),
    )


def intrinsics_from_calibration(
    width: int, height: int, k: Sequence[float], d: Sequence[float], distortion_model: str = "plumb_bob"
) -> Intrinsics:
    """Fields of a sensor_msgs/CameraInfo -> `Intrinsics`; distortion that is all zero becomes none.

    Args:
        k: 9 numbers, row-major K, pixels.
        d: distortion, OpenCV order for ``plumb_bob`` and ``rational_polynomial``.

    Raises:
        BadFrame: ``intrinsics`` for zero or NaN entries, ``distortion`` for a model that a pinhole cannot undo.
    """
    fx, _, cx, _, fy, cy = (float(value) for value in k[:6])
    distortion = tuple(float(value) for value in d)
    if not any(distortion):
        distortion = ()
    elif distortion_model not in ("plumb_bob", "rational_polynomial") or len(distortion) not in _DISTORTION_LENGTHS:
        raise BadFrame(
            "distortion",
            f"camera_info has {len(distortion)} coefficients of model '{distortion_model}': only plumb_bob and "
            "rational_polynomial are undone here, rectify other images first (image_proc)",
        )
    return Intrinsics(int(width), int(height), fx, fy, cx, cy, distortion)
