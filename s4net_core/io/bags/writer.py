"""Writes frames as a rosbag2 recording with the topics of realsense2_camera, ready for ``ros2 bag play``."""

import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from s4net_core.errors import CaptureError
from s4net_core.frames import Frame, Intrinsics
from s4net_core.geometry.poses import inverse, quaternion_of
from s4net_core.io.bags.checksums import add_checksums
from s4net_core.io.bags.messages import calibration_of
from s4net_core.io.bags.storage import COMPRESSED, IMAGE
from s4net_core.io.images.codec import depth_to_millimetres, encode_compressed_color, encode_compressed_depth

COLOR = "/camera/camera/color/image_raw"
COLOR_INFO = "/camera/camera/color/camera_info"
DEPTH = "/camera/camera/aligned_depth_to_color/image_raw"
DEPTH_INFO = "/camera/camera/aligned_depth_to_color/camera_info"
JPEG, PNG_DEPTH = "/compressed", "/compressedDepth"
BASE_FRAME = "camera_link"
OPTICAL_FRAME = "camera_color_optical_frame"

T_BASE_OPTICAL = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
"""REP 103: a body frame is x forward, y left, z up; an optical frame is x right, y down, z forward."""

_BAG_VERSION: Literal[8] = 8  # the newest whose QoS profiles Humble's rosbag2 can read
_STORE = get_typestore(Stores.ROS2_HUMBLE)  # these message types are the same in all distributions
_FOREVER = QosTime(9223372036, 854775807)  # as rosbag2 writes "no deadline"
_STEP = 1000  # nanoseconds between the log times of two messages of one frame: players keep their order
_INFO, _TF = "sensor_msgs/msg/CameraInfo", "tf2_msgs/msg/TFMessage"


def write_bag(
    path: str | Path,
    frames: Iterable[Frame],
    *,
    color: Literal["raw", "jpeg"] = "raw",
    depth: Literal["raw", "32FC1", "compressedDepth"] = "raw",
    storage: Literal["mcap", "sqlite3"] = "mcap",
    fixed_frame: str = "odom",
    quality: int = 90,
) -> int:
    """Write colour, aligned depth, camera_info, tf and tf_static. Labels are not written.

    Args:
        path: folder that does not exist yet.
        frames: in time order; frames without depth get no depth message.
        color: ``raw`` = rgb8 on ``image_raw``, ``jpeg`` on ``image_raw/compressed``.
        depth: ``raw`` = 16UC1, millimetres, and ``32FC1``, metres with NaN = none (REP 118), on ``image_raw``;
            ``compressedDepth`` = PNG, millimetres, on ``image_raw/compressedDepth``.
        storage: rosbag2 storage plugin.
        fixed_frame: name of the world; the tree is fixed_frame -> camera_link -> camera_color_optical_frame.
        quality: of JPEG, 1..100.

    Returns:
        Number of frames written.

    Raises:
        CaptureError: the folder exists or cannot be written, there is no frame, or stamps do not rise.
    """
    path = Path(path)
    if path.exists():
        raise CaptureError(f"{path} exists already: give another folder or remove it")
    count, last = 0, -1
    try:
        with Writer(path, version=_BAG_VERSION, storage_plugin=StoragePlugin[storage.upper()]) as writer:
            topics = _Topics(writer, fixed_frame, color, depth, quality)
            for count, frame in enumerate(frames, start=1):
                if frame.stamp <= last:
                    raise CaptureError(
                        f"{path}: frame {count} has stamp {frame.stamp} ns after {last} ns: sort the frames"
                    )
                if count == 1:
                    topics.write_static(frame.stamp)
                topics.write(frame)
                last = frame.stamp
            if not count:
                raise CaptureError(f"{path}: there is no frame to write: look at what the capture skipped")
        for file in path.glob("*.mcap"):
            add_checksums(file)
    except BaseException as error:
        shutil.rmtree(path, ignore_errors=True)  # it was made here, and half a bag is of no use
        if isinstance(error, (OSError, sqlite3.Error)):
            raise CaptureError(
                f"{path} cannot be written ({error}): is the disk full or the folder read-only?"
            ) from error
        raise
    return count


class _Topics:
    """The connections of one bag; each is added with its first message, so that a bag lists no empty topic."""

    def __init__(self, writer: Writer, fixed_frame: str, color: str, depth: str, quality: int) -> None:
        self._writer = writer
        self._fixed_frame = fixed_frame
        self._jpeg = color == "jpeg"
        self._depth = depth
        self._quality = quality
        self._connections: dict[str, Connection] = {}

    def write_static(self, stamp: int) -> None:
        message = _transforms(stamp, BASE_FRAME, OPTICAL_FRAME, T_BASE_OPTICAL)
        self._write("/tf_static", _TF, message, stamp, latched=True)

    def write(self, frame: Frame) -> None:
        for i, (topic, kind, message) in enumerate(self._messages(frame), start=1):
            self._write(topic, kind, message, frame.stamp + i * _STEP)

    def _messages(self, frame: Frame) -> Iterator[tuple[str, str, object]]:
        T_world_base = frame.T_world_camera @ inverse(T_BASE_OPTICAL)
        yield "/tf", _TF, _transforms(frame.stamp, self._fixed_frame, BASE_FRAME, T_world_base)
        yield COLOR_INFO, _INFO, _camera_info(frame.stamp, frame.intrinsics)
        if frame.depth is not None:
            yield DEPTH_INFO, _INFO, _camera_info(frame.stamp, frame.intrinsics)
            if self._depth == "compressedDepth":
                yield DEPTH + PNG_DEPTH, COMPRESSED, _compressed(frame.stamp, encode_compressed_depth(frame.depth))
            elif self._depth == "32FC1":
                metres = np.where(frame.depth > 0, frame.depth, np.float32(np.nan))
                yield DEPTH, IMAGE, _image(frame.stamp, metres, "32FC1")
            else:
                yield DEPTH, IMAGE, _image(frame.stamp, depth_to_millimetres(frame.depth), "16UC1")
        if self._jpeg:
            jpeg = encode_compressed_color(frame.color, self._quality)
            yield COLOR + JPEG, COMPRESSED, _compressed(frame.stamp, jpeg)
        else:
            yield COLOR, IMAGE, _image(frame.stamp, frame.color, "rgb8")

    def _write(self, topic: str, kind: str, message: object, stamp: int, latched: bool = False) -> None:
        connection = self._connections.get(topic)
        if connection is None:
            connection = self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=_STORE, offered_qos_profiles=[_qos(latched)]
            )
        self._writer.write(connection, stamp, _STORE.serialize_cdr(message, kind))


def _qos(latched: bool) -> Qos:
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1 if latched else 10,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )


def _header(stamp: int, frame_id: str) -> Any:
    time = _STORE.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    return _STORE.types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def _image(stamp: int, image: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32], encoding: str) -> object:
    rows = np.ascontiguousarray(image, image.dtype.newbyteorder("<"))
    return _STORE.types[IMAGE](
        header=_header(stamp, OPTICAL_FRAME),
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=rows.strides[0],
        data=rows.view(np.uint8).ravel(),
    )


def _compressed(stamp: int, payload: tuple[str, bytes]) -> object:
    return _STORE.types[COMPRESSED](
        header=_header(stamp, OPTICAL_FRAME), format=payload[0], data=np.frombuffer(payload[1], np.uint8)
    )


def _camera_info(stamp: int, lens: Intrinsics) -> object:
    calibration = calibration_of(lens)
    return _STORE.types[_INFO](
        header=_header(stamp, OPTICAL_FRAME),
        height=lens.height,
        width=lens.width,
        distortion_model=calibration.distortion_model,
        **{name: np.array(getattr(calibration, name)) for name in ("d", "k", "r", "p")},
        binning_x=0,
        binning_y=0,
        roi=_STORE.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def _transforms(stamp: int, parent: str, child: str, T_parent_child: NDArray[np.float64]) -> object:
    types = _STORE.types
    x, y, z = (float(value) for value in T_parent_child[:3, 3])
    qx, qy, qz, qw = quaternion_of(T_parent_child)
    transform = types["geometry_msgs/msg/Transform"](
        translation=types["geometry_msgs/msg/Vector3"](x=x, y=y, z=z),
        rotation=types["geometry_msgs/msg/Quaternion"](x=qx, y=qy, z=qz, w=qw),
    )
    stamped = types["geometry_msgs/msg/TransformStamped"](
        header=_header(stamp, parent), child_frame_id=child, transform=transform
    )
    return types[_TF](transforms=[stamped])
