"""Topics to posed frames: message_filters and tf2 in front of the core's `FrameAssembler`.

The callbacks only put messages into a queue, so an error can never stop a synchroniser and the executor never waits.
Matching waits for pose, checks, decoding and counting happen in `poll`, on the caller's thread.
"""

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from s4net_core.config import StreamSettings
from s4net_core.frames import Frame
from s4net_core.geometry.time_jumps import EDGE, Stamp, TimeJumps
from s4net_core.geometry.transforms import TransformUnavailable
from s4net_core.io.captures.assembly import FrameAssembler, Picture
from s4net_ros.compat import message_filters, tf2_ros
from s4net_ros.conversions import color_from_topic, depth_from_image, intrinsics_from_info, stamp_ns, transform_matrix
from s4net_ros.diagnostics import StallWatch
from s4net_ros.qos import stream_qos

COLOR, DEPTH, INFO = "color", "depth", "camera_info"

MOST_AHEAD = 500
"""Transforms of one edge that are kept until colour has gone back as well."""

EVENTS_PER_IMAGE = 8
"""Arrivals that wait for `poll`, in multiples of ``stream.sync_queue``; a matched image is three of them."""


class FrameAssembly:
    """Subscribes to colour, depth, camera_info and tf; `poll` gives what has become a frame.

    Construct and `destroy` it on the executor's thread; `wait` and `poll` on one other thread. Time is where colour is:
    when its stamps go back, what is left of the time before is dropped; the clock is not asked.

    Args:
        node: subscribes; its QoS and topics are those of `stream` and the arguments.
        stream: settings.
        watch: is told what arrives, to explain stalls; None = nobody asks.
        with_depth: False = depth is not subscribed, every colour image becomes a frame without it.
        color_topic, depth_topic: names for the transports of `stream`, see `S4NetNode.transport_topic`.
        info_topic: camera_info of the colour camera.
    """

    def __init__(
        self,
        node: Node,
        stream: StreamSettings,
        *,
        watch: StallWatch | None = None,
        with_depth: bool = True,
        color_topic: str = "color/image_raw",
        depth_topic: str = "depth/image_raw",
        info_topic: str = "color/camera_info",
    ) -> None:
        self._node = node
        self._stream = stream
        self._watch = watch
        self._buffer = tf2_ros.Buffer(cache_time=Duration(nanoseconds=round(stream.tf_history * 1e9)))
        self._jumps = TimeJumps()
        self._listener = _Listener(self._buffer, node, self._jumps)
        self._assembler = FrameAssembler(stream, self._pose)
        self._events: deque[Callable[[], object]] = deque()
        self._views_queued = 0
        self._passed_over = 0
        self._passed_stamps: deque[int] = deque(maxlen=stream.sync_queue)
        self._lock = threading.Lock()
        self._arrival = threading.Event()
        self._subscribers = {
            COLOR: self._subscribe(
                COLOR,
                Image if stream.color_transport == "raw" else CompressedImage,
                color_topic,
                stream.color_reliability,
            ),
            INFO: self._subscribe(INFO, CameraInfo, info_topic, stream.color_reliability),
        }
        # Between subscribers and synchroniser, so that a jump of time is seen before what comes from behind is matched.
        self._images = {COLOR: message_filters.SimpleFilter(), DEPTH: message_filters.SimpleFilter()}
        self._subscribers[COLOR].registerCallback(self._on_color)
        self._subscribers[INFO].registerCallback(self._on_info)
        self._synchroniser: Any = None
        if with_depth:
            self._subscribers[DEPTH] = self._subscribe(
                DEPTH,
                Image if stream.depth_transport == "raw" else CompressedImage,
                depth_topic,
                stream.depth_reliability,
            )
            self._subscribers[DEPTH].registerCallback(self._on_depth)
            self._synchroniser = self._make_synchroniser()
        else:
            self._images[COLOR].registerCallback(self._on_view)

    @property
    def received(self) -> int:
        """Colour images that came."""
        return self._assembler.received + self._passed_over

    @property
    def delivered(self) -> int:
        """Frames that `poll` has given."""
        return self._assembler.delivered

    @property
    def skipped(self) -> dict[str, int]:
        """Frames that were dropped, by the keys of `DROP_REASONS`."""
        skipped = dict(self._assembler.skipped)
        if self._passed_over:
            skipped["backlog"] = skipped.get("backlog", 0) + self._passed_over
        return skipped

    @property
    def details(self) -> dict[str, str]:
        """The newest message for each reason."""
        details = dict(self._assembler.details)
        if self._passed_over:
            details.setdefault("backlog", self._backlog)
        return details

    def wait(self, timeout: float) -> bool:
        """Block until something has come since the last `wait`, for `timeout` seconds at most; whether it has."""
        arrived = self._arrival.wait(timeout)
        self._arrival.clear()
        return arrived

    def poll(self) -> list[Frame]:
        """Frames that are complete now, oldest first. Call it about ten times a second also when nothing comes.

        A frame may become complete by a transform alone, which wakes nobody.
        """
        while self._events:
            self._events.popleft()()
        frames = self._assembler.poll()
        if frames and self._watch is not None:
            self._watch.frame()
        return frames

    def destroy(self) -> None:
        """End all subscriptions."""
        for name, subscriber in self._subscribers.items():
            self._node.destroy_subscription(subscriber.sub)
            if self._watch is not None:
                self._watch.forget(name)
        self._listener.unregister()
        self._arrival.set()

    def _subscribe(self, name: str, kind: type, topic: str, reliability: str) -> Any:
        options = {}
        if self._watch is not None:
            options["event_callbacks"] = self._watch.events(
                name, f"stream.{DEPTH if name == DEPTH else COLOR}_reliability"
            )
        qos = stream_qos(reliability, self._stream.queue_depth)
        subscriber = message_filters.Subscriber(self._node, kind, topic, qos_profile=qos, **options)
        if self._watch is not None:
            self._watch.follow(name, subscriber.sub)
        return subscriber

    def _make_synchroniser(self) -> Any:
        """message_filters compares with `<`, so that slop 0 would match nothing."""
        filters = [self._images[COLOR], self._images[DEPTH]]
        if self._stream.sync_slop > 0:
            synchroniser = message_filters.ApproximateTimeSynchronizer(
                filters, self._stream.sync_queue, self._stream.sync_slop
            )
        else:
            synchroniser = message_filters.TimeSynchronizer(filters, self._stream.sync_queue)
        synchroniser.registerCallback(self._on_view)
        return synchroniser

    # Callbacks, on the executor's thread.

    def _on_color(self, message: Any) -> None:
        stamp = stamp_ns(message.header)
        stale = self._jumps.see_color(stamp)
        if stale is not None:
            self._leave_old_time(stale)
        self._note_arrival(COLOR, stamp)
        if not self._queue(partial(self._assembler.see_color, stamp)):
            self._passed_over += 1
            self._passed_stamps.append(stamp)
        self._images[COLOR].signalMessage(message)

    def _on_depth(self, message: Any) -> None:
        stamp = stamp_ns(message.header)
        seen = self._jumps.see(DEPTH, stamp)
        self._note_arrival(DEPTH, stamp)
        if seen == Stamp.WENT_BACK:
            self._clear_queue(DEPTH)
        if seen != Stamp.LEFT_OVER:
            self._images[DEPTH].signalMessage(message)

    def _on_info(self, message: CameraInfo) -> None:
        stamp = stamp_ns(message.header)
        self._note_arrival(INFO, stamp)
        self._queue(partial(self._assembler.add_camera_info, stamp, partial(intrinsics_from_info, message)))

    def _on_view(self, color: Any, depth: Any = None) -> None:
        stamp = stamp_ns(color.header)
        if stamp in self._passed_stamps:  # counted when it came
            return
        with self._lock:
            full = self._views_queued >= self._stream.sync_queue
            self._views_queued += not full
        if full:
            self._queue(partial(self._assembler.drop_color, stamp, "backlog", self._backlog))
        elif not self._queue(partial(self._take_view, color, depth)):
            with self._lock:
                self._views_queued -= 1

    @property
    def _backlog(self) -> str:
        return f"{self._stream.sync_queue} images wait to be processed: lower the camera's rate or resolution"

    def _queue(self, event: Callable[[], object]) -> bool:
        """Leave an event to `poll`; False when too many wait already. A view left out counts as unmatched later."""
        room = len(self._events) < EVENTS_PER_IMAGE * self._stream.sync_queue
        if room:
            self._events.append(event)
        self._arrival.set()
        return room

    def _note_arrival(self, name: str, stamp: int) -> None:
        if self._watch is not None:
            self._watch.arrived(name, stamp)

    def _leave_old_time(self, stale: list[str]) -> None:
        """Colour goes back: forget all else that is of the time before; the assembler sees to its own."""
        self._listener.leave_old_time()
        self._passed_stamps.clear()
        if self._watch is not None:
            self._watch.clear_stamps()
        self._clear_queue(COLOR)
        if DEPTH in stale:
            self._clear_queue(DEPTH)

    def _clear_queue(self, name: str) -> None:
        """Forget images that wait for their partners: message_filters would prefer them to all that come now."""
        if self._synchroniser is not None:
            with self._synchroniser.lock:
                self._synchroniser.queues[(COLOR, DEPTH).index(name)].clear()

    # On the thread of `poll`.

    def _take_view(self, color: Any, depth: Any) -> None:
        with self._lock:
            self._views_queued -= 1
        self._assembler.add_view(
            Picture(stamp_ns(color.header), color.header.frame_id, partial(color_from_topic, color)),
            depth and Picture(stamp_ns(depth.header), depth.header.frame_id, partial(depth_from_image, depth)),
        )

    def _pose(self, target: str, source: str, stamp: int) -> NDArray[Any]:
        """T_target_source from tf2, without waiting: a waiting look-up would block (geometry2 #327)."""
        try:
            transform = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp))
        except tf2_ros.LookupException as error:
            raise TransformUnavailable("unknown_frame", str(error)) from error
        except tf2_ros.ExtrapolationException as error:
            # tf2 tells the direction in its text only.
            raise TransformUnavailable("too_old" if "into the past" in str(error) else "too_new", str(error)) from error
        except tf2_ros.TransformException as error:
            raise TransformUnavailable("not_connected", str(error)) from error
        return transform_matrix(transform.transform)


class _Listener(tf2_ros.TransformListener):
    """Clears the buffer when colour goes back, as tf2 mixes transforms of a new time with the old ones or refuses them.

    What has come from the new time by then is kept, and put back.
    """

    def __init__(self, buffer: Any, node: Node, jumps: TimeJumps) -> None:
        self._jumps = jumps
        self._ahead: dict[str, deque[TransformStamped]] = {}
        super().__init__(buffer, node)

    def callback(self, data: TFMessage) -> None:
        """One message of /tf."""
        data.transforms = list(filter(self._is_wanted, data.transforms))
        super().callback(data)

    def leave_old_time(self) -> None:
        """Colour has gone back, and `jumps` knows it."""
        ahead, self._ahead = self._ahead, {}
        # Where no edge went back before, but one is where colour is now, only colour was somewhere else.
        if ahead or not any(stream.startswith(EDGE) for stream in self._jumps.streams):
            self.buffer.clear()
            super().callback(TFMessage(transforms=[item for items in ahead.values() for item in items]))

    def _is_wanted(self, transform: TransformStamped) -> bool:
        name, stamp = EDGE + transform.child_frame_id, stamp_ns(transform.header)
        seen = self._jumps.see(name, stamp)
        if seen == Stamp.WENT_BACK:
            self._ahead[name] = deque(maxlen=MOST_AHEAD)
        if name in self._ahead:
            self._ahead[name].append(transform)
        return seen != Stamp.LEFT_OVER
