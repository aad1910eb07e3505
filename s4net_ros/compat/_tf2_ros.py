"""Stand-in for the part of tf2_ros that we use: Buffer and TransformListener."""

from geometry_msgs.msg import TransformStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from s4net_core.errors import BadFrame
from s4net_core.io.bags.messages import stamp_ns, transform_matrix
from s4net_core.streams.transforms import TransformBuffer, TransformUnavailable
from s4net_ros.conversions import transform_message

_DEFAULT_CACHE_NS = 10_000_000_000
_DEPTH = 100


class TransformException(Exception):
    """Base of all that a `Buffer` raises when it cannot answer."""


class InvalidArgumentException(TransformException):
    """The name of a frame is empty or has a leading ``/``."""


class LookupException(TransformException):
    """A frame is unknown."""


class ConnectivityException(TransformException):
    """Two frames are in different trees."""


class ExtrapolationException(TransformException):
    """The history of a transform does not reach to the requested time."""


_EXCEPTIONS = {
    "bad_name": InvalidArgumentException,
    "unknown_frame": LookupException,
    "not_connected": ConnectivityException,
    "too_old": ExtrapolationException,
    "too_new": ExtrapolationException,
}


class Buffer:
    """Transforms of the last `cache_time`. An invalid transform is logged and left out.

    Args:
        cache_time: length of the history; None = 10 s.
    """

    def __init__(self, cache_time: Duration | None = None) -> None:
        self._buffer = TransformBuffer(_DEFAULT_CACHE_NS if cache_time is None else cache_time.nanoseconds)

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Add one transform of /tf."""
        self._set(transform, static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Add one transform of /tf_static."""
        self._set(transform, static=True)

    def lookup_transform(self, target_frame: str, source_frame: str, time: Time) -> TransformStamped:
        """Transform that maps coordinates of `source_frame` to `target_frame`; never waits.

        Raises:
            InvalidArgumentException, LookupException, ConnectivityException, ExtrapolationException: it is not known.
        """
        try:
            T_target_source = self._buffer.lookup(target_frame, source_frame, time.nanoseconds)
        except TransformUnavailable as error:
            raise _EXCEPTIONS[error.reason](str(error)) from error
        header = Header(stamp=time.to_msg(), frame_id=target_frame)
        return transform_message(T_target_source, header, source_frame)

    def get_latest_common_time(self, target_frame: str, source_frame: str) -> Time:
        """Newest time at which the transform is known; 0 when it is static.

        Raises:
            InvalidArgumentException, LookupException, ConnectivityException: the transform is not known at any time.
        """
        try:
            return Time(nanoseconds=self._buffer.latest(target_frame, source_frame))
        except TransformUnavailable as error:
            raise _EXCEPTIONS[error.reason](str(error)) from error

    def _set(self, transform: TransformStamped, static: bool) -> None:
        header = transform.header
        try:
            T_parent_child = transform_matrix(transform.transform)
            self._buffer.set(header.frame_id, transform.child_frame_id, stamp_ns(header), T_parent_child, static)
        except BadFrame as error:
            get_logger("tf2").error(
                f"transform {header.frame_id} -> {transform.child_frame_id} is ignored: {error}",
                throttle_duration_sec=5.0,
            )


class TransformListener:
    """Fills a buffer from /tf and /tf_static."""

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
        for transform in data.transforms:
            self.buffer.set_transform(transform, "default_authority")

    def static_callback(self, data: TFMessage) -> None:
        """One message of /tf_static."""
        for transform in data.transforms:
            self.buffer.set_transform_static(transform, "default_authority")

    def unregister(self) -> None:
        """End both subscriptions."""
        self.node.destroy_subscription(self.tf_sub)
        self.node.destroy_subscription(self.tf_static_sub)
