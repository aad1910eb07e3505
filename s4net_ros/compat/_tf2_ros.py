"""Stand-in for the part of tf2_ros that we use: Buffer and TransformListener."""

import time as wall_time

from geometry_msgs.msg import TransformStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from s4net_core.errors import BadFrame
from s4net_core.geometry.transforms import TransformBuffer, TransformUnavailable
from s4net_ros.conversions import stamp_ns, transform_matrix, transform_message

_DEFAULT_CACHE_NS = 10_000_000_000
_NO_WAIT = Duration()
_POLL_S = 0.02
_DEPTH = 100


class TransformException(Exception):
    """Base of all that `Buffer.lookup_transform` raises."""


class LookupException(TransformException):
    """A frame is unknown."""


class ConnectivityException(TransformException):
    """Two frames are in different trees."""


class ExtrapolationException(TransformException):
    """The history of a transform does not reach to the requested time."""


_EXCEPTIONS = {
    "unknown_frame": LookupException,
    "not_connected": ConnectivityException,
    "too_old": ExtrapolationException,
    "too_new": ExtrapolationException,
}
_TF2_WORDS = {
    "too_old": "Lookup would require extrapolation into the past.  ",
    "too_new": "Lookup would require extrapolation into the future.  ",
}
"""tf2 says the direction only in its text, so this text is part of what callers rely on."""


class Buffer:
    """Transforms of the last `cache_time`.

    Args:
        cache_time: length of the history; None = 10 s.
    """

    def __init__(self, cache_time: Duration | None = None) -> None:
        self._buffer = TransformBuffer(_DEFAULT_CACHE_NS if cache_time is None else cache_time.nanoseconds)

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Add one transform of /tf.

        Raises:
            BadFrame: it is no rigid transform.
        """
        self._set(transform, static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Add one transform of /tf_static; raises as `set_transform`."""
        self._set(transform, static=True)

    def clear(self) -> None:
        """Forget all but the static transforms."""
        self._buffer.clear()

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time, timeout: Duration = _NO_WAIT
    ) -> TransformStamped:
        """Transform that maps coordinates of `source_frame` to `target_frame`.

        Args:
            time: 0 = the newest for which it is known.
            timeout: how long to block until it is known; 0 = do not wait.

        Raises:
            LookupException, ConnectivityException, ExtrapolationException: not known within `timeout`.
        """
        deadline = wall_time.monotonic() + timeout.nanoseconds * 1e-9
        while True:
            try:
                stamp = time.nanoseconds or self._buffer.latest(target_frame, source_frame)
                T_target_source = self._buffer.lookup(target_frame, source_frame, stamp)
                break
            except TransformUnavailable as error:
                if wall_time.monotonic() >= deadline:
                    raise _EXCEPTIONS[error.reason](_TF2_WORDS.get(error.reason, "") + str(error)) from error
            wall_time.sleep(_POLL_S)
        header = Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id=target_frame)
        return transform_message(T_target_source, header, source_frame)

    def _set(self, transform: TransformStamped, static: bool) -> None:
        header = transform.header
        T_parent_child = transform_matrix(transform.transform)
        self._buffer.set(header.frame_id, transform.child_frame_id, stamp_ns(header), T_parent_child, static)


class TransformListener:
    """Fills a buffer from /tf and /tf_static. A transform that is none is logged and left out, as tf2 does."""

    def __init__(self, buffer: Buffer, node: Node) -> None:
        self.buffer = buffer
        self.node = node
        # A group of its own, so that transforms arrive while another callback of the node waits.
        self.group = ReentrantCallbackGroup()
        static_qos = QoSProfile(depth=_DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.tf_sub = node.create_subscription(
            TFMessage, "/tf", self.callback, QoSProfile(depth=_DEPTH), callback_group=self.group
        )
        self.tf_static_sub = node.create_subscription(
            TFMessage, "/tf_static", self.static_callback, static_qos, callback_group=self.group
        )

    def callback(self, data: TFMessage) -> None:
        """One message of /tf."""
        self._take(data, static=False)

    def static_callback(self, data: TFMessage) -> None:
        """One message of /tf_static."""
        self._take(data, static=True)

    def unregister(self) -> None:
        """End both subscriptions."""
        self.node.destroy_subscription(self.tf_sub)
        self.node.destroy_subscription(self.tf_static_sub)

    def _take(self, data: TFMessage, static: bool) -> None:
        add = self.buffer.set_transform_static if static else self.buffer.set_transform
        for transform in data.transforms:
            try:
                add(transform, "default_authority")
            except BadFrame as error:
                self.node.get_logger().error(
                    f"transform {transform.header.frame_id} -> {transform.child_frame_id} is ignored: {error}",
                    throttle_duration_sec=5.0,
                )
