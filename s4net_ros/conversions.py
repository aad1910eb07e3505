"""Messages to arrays and back, without copies where possible. `io.bags.messages` has the part that bags need too."""

import array
import sys
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from s4net_core.errors import BadFrame
from s4net_core.frames import Intrinsics
from s4net_core.geometry.poses import quaternion_of
from s4net_core.io.bags.messages import calibration_of, color_from_image
from s4net_core.io.images.codec import COLOR_ENCODINGS
from s4net_core.io.images.pixels import check_pixels

_PLUMB_BOB_LENGTH = 5
_IMAGE_TYPES = {"mono8": np.uint8, "rgb8": np.uint8, "bgr8": np.uint8, "16UC1": np.uint16, "32FC1": np.float32}
_POINT = np.dtype([("x", "f4"), ("y", "f4"), ("z", "f4"), ("rgb", "u4"), ("label", "u4")])
"""PCL's PointXYZRGBL without its padding; colour and label as 32 bits, as PCL and RViz read them."""


def color_from_topic(message: Any) -> NDArray[np.uint8]:
    """Image or CompressedImage of a live camera -> (H, W, 3) uint8 RGB, read-only.

    Encodings that `io.bags.messages` does not read (YUV, Bayer, 16 bits a channel) are left to cv_bridge.

    Raises:
        BadFrame: ``color_format``, or ``image_size`` when there are more pixels than the limit.
    """
    if hasattr(message, "format") or message.encoding in COLOR_ENCODINGS:
        return color_from_image(message)
    check_pixels(message.width, message.height)
    if len(message.data) < message.height * message.step:
        raise BadFrame(
            "color_format",
            f"colour of {message.width}x{message.height} {message.encoding} with rows of {message.step} bytes has "
            f"{len(message.data)} bytes: check the camera's driver",
        )
    from s4net_ros import compat

    try:
        color = compat.cv_bridge.CvBridge().imgmsg_to_cv2(message, "rgb8")
    except (TypeError, ValueError, ImportError, AttributeError, cv2.error) as error:  # AttributeError: with NumPy 2
        raise BadFrame(
            "color_format",
            f"colour has encoding '{message.encoding}' and cv_bridge cannot convert it ({error}): configure the camera "
            f"for one of {', '.join(COLOR_ENCODINGS)}",
        ) from error
    color = np.array(color, np.uint8)
    if color.shape != (message.height, message.width, 3):
        raise BadFrame(
            "color_format",
            f"cv_bridge makes {color.shape} of colour that is {message.width}x{message.height} {message.encoding} with "
            f"rows of {message.step} bytes: check the camera's driver",
        )
    color.flags.writeable = False
    return color


def transform_message(T_parent_child: NDArray[np.float64], header: Header, child: str) -> TransformStamped:
    """(4, 4) transform -> TransformStamped; ``header.frame_id`` is the parent."""
    x, y, z = (float(value) for value in T_parent_child[:3, 3])
    qx, qy, qz, qw = quaternion_of(T_parent_child)
    transform = Transform(translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw))
    return TransformStamped(header=header, child_frame_id=child, transform=transform)


def image_message(image: NDArray[Any], encoding: str, header: Header) -> Image:
    """(H, W) or (H, W, 3) array -> Image, in the byte order of this machine.

    Args:
        encoding: ``mono8``, ``rgb8``, ``bgr8`` (uint8), ``16UC1`` (uint16) or ``32FC1`` (float32).

    Raises:
        TypeError: dtype or shape of `image` does not fit `encoding`.
    """
    channels = 3 if encoding in ("rgb8", "bgr8") else 1
    shape = image.shape if image.ndim == 3 else (*image.shape, 1)
    if image.dtype != _IMAGE_TYPES[encoding] or len(shape) != 3 or shape[2] != channels:
        raise TypeError(f"image is {image.shape} {image.dtype}, which is not {encoding}")
    return Image(
        header=header,
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        is_bigendian=int(sys.byteorder == "big"),
        step=image.shape[1] * channels * image.dtype.itemsize,
        data=_payload(image),
    )


def compressed_message(encoded: tuple[str, bytes], header: Header) -> CompressedImage:
    """(format, bytes) of an ``encode_compressed_...`` of `io.images.codec` -> CompressedImage."""
    format, data = encoded
    return CompressedImage(header=header, format=format, data=array.array("B", data))


def camera_info_message(intrinsics: Intrinsics, header: Header) -> CameraInfo:
    """`Intrinsics` -> CameraInfo of an unrectified monocular camera."""
    return CameraInfo(
        header=header,
        width=intrinsics.width,
        height=intrinsics.height,
        **calibration_of(intrinsics)._asdict(),
    )


def points_message(
    depth: NDArray[np.float32],
    color: NDArray[np.uint8],
    label: NDArray[np.uint8],
    intrinsics: Intrinsics,
    header: Header,
    *,
    stride: int = 1,
) -> PointCloud2:
    """Labelled points in the order of the pixels -> PointCloud2 with fields x, y, z, rgb, label.

    The cloud has a row for each row of the image, so that point ``v * width + u`` belongs to pixel (u, v). A pixel
    without depth has x, y, z = NaN.

    Args:
        depth: (H, W) float32, metres, 0 = none.
        color: (H, W, 3) uint8 RGB.
        label: (H, W) uint8, goes into the field as it is.
        intrinsics: of all three; lens distortion is undone.
        header: of the colour image: points are in its optical frame (x right, y down, z forward), metres.
        stride: every n-th pixel of row and column.
    """
    z = depth[::stride, ::stride]
    points = np.empty(z.shape, _POINT)
    xyz = _rays(intrinsics, stride) * np.where(z > 0, z, np.float32(np.nan))[..., None]
    points["x"], points["y"], points["z"] = np.moveaxis(xyz, -1, 0)
    points["rgb"], points["label"] = packed_color(color[::stride, ::stride]), label[::stride, ::stride]
    return cloud_message(points, header, is_dense=bool(z.all()))


def cloud_message(points: NDArray[Any], header: Header, *, is_dense: bool) -> PointCloud2:
    """Points with named fields of 32 bits -> PointCloud2.

    Args:
        points: (height, width), structured. ``rgb`` holds what `packed_color` gives, and is declared as a float, as PCL
            and RViz read it.
        header: in whose frame they are.
        is_dense: whether no point is NaN.
    """
    kinds = {"f": PointField.FLOAT32, "u": PointField.UINT32}
    fields: dict[str, Any] = dict(points.dtype.fields or {})
    return PointCloud2(
        header=header,
        height=points.shape[0],
        width=points.shape[1],
        fields=[
            PointField(
                name=name,
                offset=fields[name][1],
                datatype=kinds["f" if name == "rgb" else fields[name][0].kind],
                count=1,
            )
            for name in points.dtype.names or ()
        ],
        is_bigendian=sys.byteorder == "big",
        point_step=points.dtype.itemsize,
        row_step=points.dtype.itemsize * points.shape[1],
        data=_payload(points),
        is_dense=is_dense,
    )


def packed_color(color: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """(..., 3) uint8 RGB -> (...) uint32 as PCL packs it: 0x00RRGGBB."""
    r, g, b = np.moveaxis(color.astype(np.uint32), -1, 0)
    packed: NDArray[np.uint32] = (r << 16) | (g << 8) | b
    return packed


def _payload(values: NDArray[Any]) -> "array.array[int]":
    """Bytes of an array in the type that rclpy takes over without copying element by element."""
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data


@lru_cache(maxsize=8)
def _rays(intrinsics: Intrinsics, stride: int) -> NDArray[np.float32]:
    """Direction of every `stride`-th pixel with z = 1, (h, w, 3) float32; the same for every frame of a camera."""
    u, v = np.meshgrid(np.arange(0, intrinsics.width, stride), np.arange(0, intrinsics.height, stride))
    pixels = np.stack((u, v), -1).reshape(-1, 1, 2).astype(np.float64)
    distortion = np.array(intrinsics.distortion or (0.0,) * _PLUMB_BOB_LENGTH)
    xy = cv2.undistortPoints(pixels, intrinsics.matrix, distortion).reshape(*u.shape, 2)
    return np.concatenate((xy, np.ones((*u.shape, 1))), -1).astype(np.float32)
