"""Reads frames from a ROS 2 or ROS 1 bag, assembled exactly as the live node assembles them from topics."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from s4net_core.config import StreamSettings
from s4net_core.errors import BadFrame, CaptureError
from s4net_core.io.bags.messages import (
    color_from_image,
    depth_from_image,
    intrinsics_from_info,
    picture_of,
    stamp_ns,
    transform_matrix,
)
from s4net_core.io.bags.storage import COMPRESSED, IMAGE, Bag
from s4net_core.io.captures.recorded import RecordedCapture
from s4net_core.io.captures.trajectory import Poses
from s4net_core.streams.offline import StreamAssembler

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TRANSFORMS = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
"""Bags from before ROS Hydro use the second type."""
TF_TOPICS = ("/tf", "/tf_static")
NO_POSES = "record them with the images, with a tracker running, or find them by `s4net register`"

_NOT_A_CAMERA = ("infra", "mask", "segmentation", "confidence", "overlay", "label", "theora")


@dataclass(frozen=True)
class BagTopics:
    """The topics of one camera.

    Args:
        color: Image, or CompressedImage (JPEG, PNG).
        color_info: CameraInfo of colour.
        depth: Image, or CompressedImage (compressedDepth), registered to colour; empty = none is read.
    """

    color: str
    color_info: str
    depth: str


class BagReader(RecordedCapture):
    """Frames of a bag.

    Args:
        path: rosbag2 folder, .mcap or .db3 file, or .bag file of ROS 1.
        stream: fixed frame, slop and waiting times, as for the live node.
        poses: replace those of /tf, which may then be missing.
        stride: take every n-th frame.
        color_topic, depth_topic: topics to read if the bag has several cameras; empty = see `find_topics`.
        with_depth: False = depth is not read, every colour image becomes a frame without it.

    Raises:
        CaptureError: it is no bag, or has no colour, depth, camera_info or tf; the text lists the topics that it has.
    """

    def __init__(
        self,
        path: str | Path,
        stream: StreamSettings | None = None,
        *,
        poses: Poses | None = None,
        stride: int = 1,
        color_topic: str = "",
        depth_topic: str = "",
        with_depth: bool = True,
    ) -> None:
        super().__init__(path, stream, poses=poses, stride=stride, with_depth=with_depth)
        with Bag(self.path) as bag:
            self.topics = find_topics(bag, color_topic, depth_topic, with_depth=with_depth)
            if poses is None and not any(bag.topics.get(topic) in TRANSFORMS for topic in TF_TOPICS):
                raise _missing(bag, f"no poses (/tf, /tf_static): {NO_POSES}")
            self._count = bag.count(self.topics.color)
        self.damage = bag.damage

    def _play(self, assembler: StreamAssembler) -> Iterator[None]:
        rectified = self._stream.is_rectified(self.topics.color)
        add: dict[str, Callable[[Any], None]] = {
            self.topics.color: lambda message: assembler.add_color(picture_of(message, color_from_image)),
            self.topics.color_info: lambda message: assembler.add_camera_info(
                stamp_ns(message.header), partial(intrinsics_from_info, message, rectified=rectified)
            ),
            "/tf": partial(_add_transforms, assembler, static=False),
            "/tf_static": partial(_add_transforms, assembler, static=True),
        }
        if self.topics.depth:
            add[self.topics.depth] = lambda message: assembler.add_depth(picture_of(message, depth_from_image))
        with Bag(self.path) as bag:
            for topic, message in _messages(bag, add):
                add[topic](message)
                yield
        self.damage = bag.damage


def find_topics(bag: Bag, color_topic: str = "", depth_topic: str = "", *, with_depth: bool = True) -> BagTopics:
    """The camera of a bag: the topics named, else the likeliest by type and name (realsense's names win).

    Raises:
        CaptureError: something is missing; the text lists the topics that the bag has.
    """
    images = [topic for topic, kind in bag.topics.items() if kind in (IMAGE, COMPRESSED)]
    color = _chosen(bag, "colour image", color_topic, [t for t in images if not _is_depth(t)], _color_rank)
    depths = [t for t in images if _is_depth(t)]
    depth = _chosen(bag, "depth image", depth_topic, depths, _depth_rank) if with_depth else ""
    info = _raw_name(color).rpartition("/")[0] + "/camera_info"
    if bag.topics.get(info) != CAMERA_INFO:
        raise _missing(bag, f"no camera_info of its colour camera ({info})")
    return BagTopics(color, info, depth)


def _messages(bag: Bag, topics: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Topic and message; the first message that cannot be deserialised counts as damage and ends the iteration."""
    for connection, _, data in bag.messages(topics):
        try:
            message = bag.deserialize(connection, data)
        except CaptureError as error:
            bag.damage = str(error)
            return
        yield connection.topic, message


def _chosen(bag: Bag, what: str, named: str, candidates: list[str], rank: Callable[[str], tuple[int, ...]]) -> str:
    if named:
        if bag.topics.get(named) not in (IMAGE, COMPRESSED):
            raise _missing(bag, f"no {what} {named}")
        return named
    ranked = sorted(candidates, key=lambda topic: (*rank(topic), topic))
    if not ranked:
        remedy = (
            ": launch the camera with align_depth.enable:=true, or set geometry.depth to predicted for a camera "
            "without depth"
        )
        hint = remedy if "depth" in what else ""
        raise _missing(bag, f"no {what}{hint}")
    return ranked[0]


def _missing(bag: Bag, what: str) -> CaptureError:
    topics = ", ".join(f"{topic} ({kind})" for topic, kind in bag.topics.items()) or "none"
    damage = f" before its damage ({bag.damage})" if bag.damage else ""
    return CaptureError(f"bag {bag.path} has {what}. Topics found{damage}: {topics}")


def _is_depth(topic: str) -> bool:
    return "depth" in topic


def _color_rank(topic: str) -> tuple[int, ...]:
    """Small = likely. The raw image wins over its compressed form, which may be lossy."""
    unlikely = any(word in topic for word in _NOT_A_CAMERA)
    colorful = any(word in topic for word in ("color", "rgb"))
    return int(unlikely), int(not topic.startswith("/camera/")), int(not colorful), int(topic != _raw_name(topic))


def _depth_rank(topic: str) -> tuple[int, ...]:
    registered = any(word in topic for word in ("aligned", "registered", "depth_to_rgb", "depth_to_color"))
    lossy = topic.endswith("/compressed")  # a plain PNG or, worse, a JPEG of depth
    return int(any(w in topic for w in _NOT_A_CAMERA)), int(not registered), int(lossy), int(topic != _raw_name(topic))


def _raw_name(topic: str) -> str:
    """Topic of the raw image: `topic` without the suffix of its image transport."""
    for suffix in ("/compressed", "/compressedDepth"):
        topic = topic.removesuffix(suffix)
    return topic


def _add_transforms(assembler: StreamAssembler, message: Any, *, static: bool) -> None:
    for stamped in message.transforms:
        try:
            T_parent_child = transform_matrix(stamped.transform)
        except BadFrame as error:  # the tracker was lost; frames at this time will lack their pose
            assembler.note(error.reason, f"{stamped.header.frame_id} -> {stamped.child_frame_id}: {error}")
            continue
        assembler.add_transform(
            stamped.header.frame_id, stamped.child_frame_id, stamp_ns(stamped.header), T_parent_child, static
        )
