"""Topics to posed views: message_filters and tf2 in front of the core's `FrameAssembler`.

Callbacks only hand messages over, so an error can never stop a synchroniser and the executor never waits. Poses, checks
and counting happen in `poll`, on the caller's thread. Images are neither deserialised nor decoded before they are used.
While the camera stands still, most of them are left to the middleware, which drops them.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from s4net_core.config import StreamSettings
from s4net_core.errors import BadFrame
from s4net_core.frames import LazyView
from s4net_core.io.bags.messages import depth_from_image, intrinsics_from_info, picture_of, stamp_ns, transform_matrix
from s4net_core.streams.assembler import FrameAssembler, Picture
from s4net_core.streams.drops import AT_REST, DROP_REASONS, UNMATCHED
from s4net_core.streams.rest import Rest
from s4net_core.streams.transforms import TransformReason, TransformUnavailable
from s4net_ros import compat
from s4net_ros.compat import tf2_ros
from s4net_ros.conversions import color_from_topic
from s4net_ros.diagnostics import StallWatch
from s4net_ros.executor import HeldBack
from s4net_ros.matching import ImageMatcher
from s4net_ros.node_base import S4NetNode
from s4net_ros.qos import stream_qos
from s4net_ros.raw_messages import RawMessage, raw_message

COLOR, DEPTH, INFO = "color", "depth", "camera_info"
DEEPEST_QUEUE = 10
"""Depth of the QoS up to which images may wait at rest: a deeper queue would fill with old ones."""
RECENT_S = 10.0
"""Seconds over which the reason of most dropped frames is looked for: an older one may have been mended since."""
MOST_LEFT_OUT = 100
"""Between two images of one publisher, at rest; numbers that lie farther apart are of two publishers."""


def camera_frames(node: S4NetNode[Any], watch: StallWatch) -> "FrameAssembly":
    """What assembles the frames of the camera that the node's parameters describe."""
    stream = node.settings.stream
    return FrameAssembly(
        node,
        stream,
        watch=watch,
        rest=Rest(node.settings.keyframes),
        with_depth=node.settings.geometry.from_sensor,
        color_topic=node.transport_topic("color/image_raw", stream.color_transport),
        depth_topic=node.transport_topic("depth/image_raw", stream.depth_transport),
    )


class FrameAssembly:
    """Subscribes to colour, depth, camera_info and tf; `poll` gives the views that are complete.

    Construct and `destroy` it on the executor's thread; `wait` and `poll` on one other thread. Stamps of colour
    define the time, see `ColorClock`. When they jump back, synchroniser, transform buffer and listener begin anew.

    At rest one pair is taken after each `wait` that runs to its end. It is the oldest one that the QoS keeps: when the
    camera moves again, those that follow are still there. The rest lasts until the first view that has moved, so that
    more are missing where transforms come late.

    Args:
        node: makes the subscriptions.
        stream: settings; reliability and queue depth become the QoS.
        watch: is told which messages arrive, and by `note_used` which views were taken, to explain stalls; None = no
            watch.
        rest: tells when the camera is at rest; None = never, as with a queue that is deeper than `DEEPEST_QUEUE`.
        with_depth: False = depth is not subscribed, and every colour image becomes a frame without depth.
        color_topic, depth_topic: names for the transports of `stream`, see `S4NetNode.transport_topic`.
        info_topic: camera_info of the colour camera.
    """

    def __init__(
        self,
        node: Node,
        stream: StreamSettings,
        *,
        watch: StallWatch | None = None,
        rest: Rest | None = None,
        with_depth: bool = True,
        color_topic: str = "color/image_raw",
        depth_topic: str = "depth/image_raw",
        info_topic: str = "color/camera_info",
    ) -> None:
        self._node = node
        self._stream = stream
        self._watch = watch
        self._assembler = FrameAssembler(stream, self._pose)
        self._matcher = ImageMatcher(stream, self._on_pair)
        self._with_depth = with_depth
        self._arrival = threading.Event()
        self._rest = rest if stream.queue_depth <= DEEPEST_QUEUE else None
        self._at_rest = self._leaving_out = False
        self._number: int | None = None
        self._skipped_before: Mapping[str, int] = {}
        """`skipped`, when a view could last be used."""
        self._looks = [(time.monotonic(), self._skipped_before)]
        """The same with its time, then `skipped` at each look for a stall; at most one is older than `RECENT_S`."""
        self._group = HeldBack()
        self._buffer = self._new_buffer()
        self._listener: Any = tf2_ros.TransformListener(self._buffer, node)
        self._color_type = Image if stream.color_transport == "raw" else CompressedImage
        self._depth_type = Image if stream.depth_transport == "raw" else CompressedImage
        # rclpy takes messages in this order: camera_info comes before a pair that holds back what has not been taken.
        self._subscriptions = {
            INFO: self._subscribe(INFO, CameraInfo, info_topic, self._on_info, stream.color_reliability),
            COLOR: self._subscribe(
                COLOR, self._color_type, color_topic, _informed(self._on_color), stream.color_reliability
            ),
        }
        self._rectified = stream.is_rectified(self._subscriptions[COLOR].topic_name)
        if with_depth:
            self._subscriptions[DEPTH] = self._subscribe(
                DEPTH, self._depth_type, depth_topic, self._on_depth, stream.depth_reliability
            )
        node.get_logger().info(f"running on {compat.in_use()}")
        for name, reason in compat.BROKEN.items():
            node.get_logger().warning(f"{name} is installed and cannot be imported ({reason}): see `s4net doctor`")

    @property
    def received(self) -> int:
        """Colour images that arrived; also those that were left out at rest, if the middleware numbers its messages."""
        return self._assembler.received

    @property
    def delivered(self) -> int:
        """As of `FrameAssembler`: views that `poll` has given, less those that could not be decoded."""
        return self._assembler.delivered

    @property
    def waiting(self) -> int:
        """Colour images that are neither delivered nor dropped yet."""
        return self._assembler.waiting

    @property
    def skipped(self) -> dict[str, int]:
        """Frames that were dropped, by the keys of `DROP_REASONS`."""
        return self._assembler.skipped

    @property
    def details(self) -> dict[str, str]:
        """The newest message for each reason."""
        return self._assembler.details

    def wait(self, timeout: float) -> bool:
        """Block for at most `timeout` seconds. Returns whether colour with its depth has come since the last `wait`."""
        arrived = self._arrival.wait(timeout)
        self._arrival.clear()
        if not arrived:
            self._look_again()
        return arrived

    def poll(self) -> LazyView | None:
        """The next complete view; None = there is none now.

        Poll ten times a second even if `wait` is silent: a transform or camera_info can complete a view too.
        """
        view = self._assembler.poll()
        if view is None:
            return None
        self._at_rest = self._rest is not None and self._rest.see(view.stamp, view.T_world_camera)
        if not self._at_rest:
            self._look_again()
        return view

    def note_used(self) -> None:
        """Note that a view of `poll` was taken, decoded or not, which ends a stall; on the thread of `poll`."""
        self._skipped_before = self.skipped
        self._looks = [(time.monotonic(), self._skipped_before)]
        if self._watch is not None:
            self._watch.frame()

    def stall(self) -> str:
        """Why no view could be used for a while: silent topics, or what frames are dropped for; empty while they can.

        Without a watch it is always empty. Call it now and then, on the executor's thread.
        """
        if self._watch is None or not (reason := self._watch.reason()):
            return ""
        looks, now, skipped = self._looks, time.monotonic(), self.skipped
        looks.append((now, skipped))
        while len(looks) > 2 and looks[1][0] <= now - RECENT_S:
            del looks[0]
        dropped = Counter(skipped) - Counter(looks[0][1])
        del dropped[AT_REST]
        unmatched = dropped.pop(UNMATCHED, 0)
        if self._watch.silent(COLOR, DEPTH) or not (dropped or unmatched):
            return reason
        if not dropped:  # the watch knows how far the stamps lie apart
            return f"{reason}; {UNMATCHED} ({unmatched}): {DROP_REASONS[UNMATCHED]}"
        [(worst, _)] = dropped.most_common(1)
        count = skipped[worst] - self._skipped_before.get(worst, 0)
        remedy, last = DROP_REASONS.get(worst, ""), self.details[worst]
        about = last if remedy in last else f"{remedy}; the last one: {last}"
        return f"no frame for {self._watch.seconds:.1f} s that can be used; {worst} ({count}): {about}"

    def _look_again(self) -> None:
        if self._group.held:
            self._group.held = False
            if (executor := self._node.executor) is not None:
                executor.wake()

    def look_up(self, target: str, source: str) -> NDArray[Any]:
        """Newest transform (4, 4) that maps coordinates of `source` to `target`.

        Raises:
            BadFrame: ``no_pose`` when tf has none, or ``pose`` when it is no transform.
        """
        try:
            return transform_matrix(self._buffer.lookup_transform(target, source, Time()).transform)
        except tf2_ros.TransformException as error:
            raise BadFrame("no_pose", f"no transform from {source} to {target}: {error}") from error

    def destroy(self) -> None:
        """End all subscriptions."""
        for name, subscription in self._subscriptions.items():
            self._node.destroy_subscription(subscription)
            if self._watch is not None:
                self._watch.forget(name)
        self._stop_listening()
        self._arrival.set()

    def _subscribe(self, name: str, kind: type, topic: str, callback: Any, reliability: str) -> Any:
        options: dict[str, Any] = {}
        if self._watch is not None:
            setting = f"stream.{DEPTH if name == DEPTH else COLOR}_reliability"
            options["event_callbacks"] = self._watch.events(name, setting)
        qos = stream_qos(reliability, self._stream.queue_depth)
        options["callback_group"] = self._group
        subscription = self._node.create_subscription(kind, topic, callback, qos, raw=name != INFO, **options)
        if self._watch is not None:
            self._watch.follow(name, subscription)
        return subscription

    def _new_buffer(self) -> Any:
        return tf2_ros.Buffer(cache_time=Duration(nanoseconds=round(self._stream.tf_history * 1e9)))

    # Callbacks, on the executor's thread.

    def _on_color(self, data: bytes, info: Mapping[str, Any]) -> None:
        message = raw_message(data, self._color_type)
        stamp = self._arrived(COLOR, message)
        if self._assembler.see_color(stamp, self._left_out(info)):
            self._begin_anew()
            return
        if self._listener is None:
            self._listener = tf2_ros.TransformListener(self._buffer, self._node)
        if self._with_depth:
            self._matcher.color(message)
        else:
            self._on_pair(message, None)

    def _on_depth(self, data: bytes) -> None:
        message = raw_message(data, self._depth_type)
        self._arrived(DEPTH, message)
        self._matcher.depth(message)

    def _on_info(self, message: CameraInfo) -> None:
        stamp = self._arrived(INFO, message)
        self._assembler.add_camera_info(stamp, lambda: intrinsics_from_info(message, rectified=self._rectified))

    def _on_pair(self, color: RawMessage, depth: RawMessage | None) -> None:
        depth_picture = None if depth is None else picture_of(depth, _depth)
        self._assembler.add_pair(picture_of(color, _color), depth_picture, at_rest=self._leaving_out)
        self._group.held = self._leaving_out = self._at_rest
        self._arrival.set()

    def _left_out(self, info: Mapping[str, Any]) -> int:
        """Colour images that the middleware has dropped at rest since the one before."""
        number, before = info.get("publication_sequence_number"), self._number
        self._number = number
        if not self._leaving_out or number is None or before is None:
            return 0
        left_out = number - before - 1
        return left_out if 0 < left_out <= MOST_LEFT_OUT else 0

    def _arrived(self, name: str, message: Any) -> int:
        stamp = stamp_ns(message.header)
        if self._watch is not None:
            self._watch.arrived(name, stamp)
        return stamp

    def _begin_anew(self) -> None:
        """Forget everything after a jump back. tf is subscribed again once time has settled: no old transform stays."""
        self._matcher.begin_anew()
        self._at_rest = False
        if self._listener is not None:
            self._stop_listening()
            self._buffer = self._new_buffer()
        if self._watch is not None:
            self._watch.clear_stamps()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.unregister()
            self._listener = None

    # On the thread of `poll`.

    def _pose(self, color: Picture) -> NDArray[Any]:
        """T_world_camera from tf2, at once: a look-up with a timeout would block (geometry2 #327)."""
        buffer = self._buffer
        try:
            return self._look_up(buffer, color)
        except tf2_ros.TransformException as error:
            reason = _reason(error, buffer, self._stream.fixed_frame, color)
            if reason == "too_old":  # or its transform has come between the two questions
                with suppress(tf2_ros.TransformException):
                    return self._look_up(buffer, color)
            raise TransformUnavailable(reason, str(error)) from error

    def _look_up(self, buffer: Any, color: Picture) -> NDArray[Any]:
        found = buffer.lookup_transform(self._stream.fixed_frame, color.frame_id, Time(nanoseconds=color.stamp))
        return transform_matrix(found.transform)


def _informed(callback: Callable[[Any, Mapping[str, Any]], None]) -> Callable[..., None]:
    """A callback of rclpy that also takes what is known of a message; in ROS 2 Humble this is nothing."""
    return callback if hasattr(Subscription, "CallbackType") else lambda message: callback(message, {})


def _color(raw: RawMessage) -> NDArray[Any]:
    return color_from_topic(raw.message())


def _depth(raw: RawMessage) -> NDArray[Any]:
    return depth_from_image(raw.message())


def _reason(error: Exception, buffer: Any, fixed_frame: str, color: Picture) -> TransformReason:
    """Reason for a failure of tf2. Its type does not tell whether the stamp lies before or after the history."""
    if isinstance(error, tf2_ros.InvalidArgumentException):
        return "bad_name"
    if isinstance(error, tf2_ros.LookupException):
        return "unknown_frame"
    try:
        newest = buffer.get_latest_common_time(fixed_frame, color.frame_id)
    except tf2_ros.TransformException:
        return "not_connected"
    return "too_old" if color.stamp <= newest.nanoseconds else "too_new"
