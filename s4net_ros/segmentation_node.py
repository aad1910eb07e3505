"""The live node: colour images in, labels out, at camera rate and never behind.

The subscription only puts the newest image into a slot. A worker thread takes it, labels it and publishes the outputs
that have listeners. New weights are loaded on another thread and replace the old ones between two frames.
"""

if __name__ == "__main__":  # until there is a node, a signal ends this program without a traceback
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)

import math
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from s4net_core.config import Settings
from s4net_core.errors import BadFrame
from s4net_core.io.bags.messages import stamp_ns
from s4net_core.machine.process import prepare_process
from s4net_core.streams.clock import ColorClock
from s4net_ros import compat
from s4net_ros.conversions import color_from_topic
from s4net_ros.diagnostics import Counts, DiagnosticsPublisher, Latency, Report, StallWatch
from s4net_ros.msg import ModelUpdate
from s4net_ros.node_base import S4NetNode, run
from s4net_ros.points import DepthMessage, Labelled, Match, PointsThread
from s4net_ros.publishers import SegmentationPublishers
from s4net_ros.qos import latched_qos, stream_qos
from s4net_ros.weights import WeightsReceiver
from s4net_ros.worker import Worker, describe, for_log, stop_or_warn

if TYPE_CHECKING:
    from s4net_core.models.segmenter import Segmenter

NAME = "segmentation"
HOUSEKEEPING_S = 0.5
"""Seconds within which depth is subscribed for a new listener of the points, a new threshold reaches
``segmentation/label_info``, and a stall is noticed."""
LOG_AGAIN_S = 5.0
"""Seconds between two log lines about the same kind of failure; the counts miss none."""


@dataclass(frozen=True)
class _Item:
    """A colour image on its way to the worker."""

    message: Image | CompressedImage
    received: float
    match: Match


class SegmentationNode(S4NetNode[None]):
    """Labels the newest colour image.

    Counters (in /diagnostics): ``received`` = ``labelled`` + ``superseded`` (a newer image came first) +
    ``without_listener`` + ``failed.<reason>`` + at most one in hand. ``points_skipped.<reason>`` counts frames whose
    labels were published but not their points.

    `configure` makes the network and the outputs, `activate` the threads and their subscriptions. Callbacks run only
    while the node is active, when all attributes below exist.
    """

    live = ("segmentation.",)

    _segmenter: "Segmenter"
    _outputs: SegmentationPublishers
    _worker: Worker[_Item]
    _receiver: WeightsReceiver
    _points: PointsThread

    def __init__(self, defaults: Settings | None = None, **options: Any) -> None:
        super().__init__(NAME, defaults, **options)
        self.counts = Counts()
        self._latency = Latency()
        self._inference = Latency()
        self._depth_subscription: Subscription | None = None
        self._camera_info: CameraInfo | None = None
        self._watch, self._points_watch = self._new_watches()
        self._clock_of_color = ColorClock()
        self._last_failure = self._last_points_failure = ""
        self._logged: dict[str, float] = {}

    @property
    def time_jumps(self) -> int:
        """How often the stamps of colour went back by more than a second."""
        return self._clock_of_color.jumps

    # Lifecycle.

    def configure(self, undo: ExitStack) -> None:
        """Load the network and create the outputs."""
        # Imports PyTorch, which takes seconds: signals and parameters are handled first.
        from s4net_core.models.base_model_file import base_model_file
        from s4net_core.models.segmenter import Segmenter

        settings = self.settings
        file = base_model_file(settings.checkpoint, settings.model)
        prepare_process(settings)
        self._segmenter = Segmenter(file, settings.device, settings)
        undo.callback(delattr, self, "_segmenter")
        space = self._segmenter.info.label_space
        rectified = settings.stream.is_rectified(self.resolve_topic_name("color/image_raw"))
        self._outputs = SegmentationPublishers(self, space, settings.segmentation, rectified=rectified)
        undo.callback(self._outputs.destroy)
        undo.callback(DiagnosticsPublisher(self, self._report).destroy)
        version, size = self._segmenter.info.version, "{}x{}".format(*self._segmenter.settings.model.size)
        self.get_logger().info(
            f"labels come from {file} (version {version}), working at {size}; running on {compat.in_use()}"
        )

    def activate(self, configured: None, undo: ExitStack) -> None:
        """Start the threads, then the subscriptions that feed them."""
        self._worker = Worker("label frames", self._label, self._failed)
        self._points = PointsThread(
            self._outputs, self.settings.stream, self.counts, self._points_published, self._points_failed
        )
        self._receiver = WeightsReceiver(self._segmenter, self.counts, self.get_logger())
        for name, attribute in (("points", "_points"), ("weights", "_receiver"), ("frames", "_worker")):
            undo.callback(self._stop, name, attribute)
        self._outputs.publish_label_info()
        (self._watch, self._points_watch), self._camera_info = self._new_watches(), None
        stream = self.settings.stream
        qos = stream_qos(stream.color_reliability, 1)
        compressed = stream.color_transport == "compressed"
        color = self.create_subscription(
            CompressedImage if compressed else Image,
            self.transport_topic("color/image_raw", stream.color_transport),
            self._on_color,
            qos,
            event_callbacks=self._watch.events("color", "stream.color_reliability"),
        )
        info = self.create_subscription(
            CameraInfo,
            "color/camera_info",
            self._on_camera_info,
            qos,
            event_callbacks=self._points_watch.events("camera_info", "stream.color_reliability"),
        )
        self._points_watch.events("color", "stream.color_reliability")
        self._points_watch.follow("camera_info", info)
        for watch in (self._watch, self._points_watch):
            watch.follow("color", color)
        update = self.create_subscription(ModelUpdate, "model_update", self._receiver.offer, latched_qos())
        for subscription in (color, info, update):
            undo.callback(self.destroy_subscription, subscription)
        undo.callback(self._subscribe_depth, False)
        self.start_housekeeping(HOUSEKEEPING_S, self._keep_house, undo)

    def _stop(self, name: str, attribute: str) -> None:
        """End a thread and release it, and with it the network that it holds."""
        stop_or_warn(name, getattr(self, attribute), self.get_logger())
        delattr(self, attribute)

    # Callbacks: they only count and hand over.

    def _on_color(self, message: Image | CompressedImage) -> None:
        stamp = stamp_ns(message.header)
        self.counts.add("received")
        for watch in (self._watch, self._points_watch):
            watch.arrived("color", stamp)
        if self._clock_of_color.see(stamp):  # labels do not depend on earlier frames; points and stalls do
            if forgotten := self._points.forget():
                self.counts.add("points_skipped.time_jump", forgotten)
            self._points_watch.clear_stamps()
        match = self._points.add_color(message.header)
        if not self._outputs.wanted:
            self.counts.add("without_listener")
            self._watch.frame()
        elif self._worker.put(_Item(message, time.monotonic(), match)):
            self.counts.add("superseded")

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._points_watch.arrived("camera_info", stamp_ns(message.header))
        self._camera_info = message

    def _on_depth(self, message: DepthMessage) -> None:
        self._points_watch.arrived("depth", stamp_ns(message.header))
        self._points.add_depth(message)

    # Worker thread.

    def _label(self, item: _Item) -> None:
        segmenter, outputs, points = self._segmenter, self._outputs, self._points
        started = time.monotonic()
        color = color_from_topic(item.message)
        result = segmenter.segment(color)
        self._inference.add(time.monotonic() - started)
        outputs.publish(item.message.header, color, result, self._camera_info)
        self._latency.add(time.monotonic() - item.received)
        self.counts.add("labelled")
        self._watch.frame()
        self._last_failure = ""
        if not outputs.points_wanted:
            return
        if self._camera_info is None:
            self.counts.add("points_skipped.no_camera_info")
        else:
            points.add_labels(Labelled(item.match, color, result, self._camera_info))

    def _failed(self, item: _Item, error: Exception) -> None:
        """Count and log a frame that could not be labelled; the worker goes on with the next."""
        reason = error.reason if isinstance(error, BadFrame) else type(error).__name__
        self.counts.add(f"failed.{reason}")
        self._last_failure = describe(error)
        self._log_now_and_then(reason, f"frame {stamp_ns(item.message.header)} not labelled: {for_log(error)}")

    def _points_published(self) -> None:
        self._points_watch.frame()
        self._last_points_failure = ""

    def _points_failed(self, reason: str, text: str) -> None:
        self._last_points_failure = text
        self._log_now_and_then(reason, text)

    def _log_now_and_then(self, reason: str, text: str) -> None:
        now = time.monotonic()
        if now - self._logged.get(reason, -math.inf) >= LOG_AGAIN_S:
            self._logged[reason] = now
            self.get_logger().warning(text)

    # Housekeeping.

    def _keep_house(self) -> None:
        self._subscribe_depth(self._outputs.points_wanted)
        self._outputs.follow_threshold()
        if reason := self._stall() or self._points_stall():
            self._log_now_and_then("stall", reason)

    def _subscribe_depth(self, wanted: bool) -> None:
        """Subscribe to depth only while somebody listens to the points: it costs a megabyte a frame."""
        if wanted == (self._depth_subscription is not None):
            return
        if self._depth_subscription is not None:
            self.destroy_subscription(self._depth_subscription)
            self._depth_subscription = None
            self._points_watch.forget("depth")
            self._points.forget()
            return
        stream = self.settings.stream
        self._depth_subscription = self.create_subscription(
            Image if stream.depth_transport == "raw" else CompressedImage,
            self.transport_topic("depth/image_raw", stream.depth_transport),
            self._on_depth,
            stream_qos(stream.depth_reliability, stream.queue_depth),
            event_callbacks=self._points_watch.events("depth", "stream.depth_reliability"),
        )
        self._points_watch.follow("depth", self._depth_subscription)
        self._points_watch.frame()  # points are wanted from now on
        self._last_points_failure = ""

    def _new_watches(self) -> tuple[StallWatch, StallWatch]:
        """For frames and for points."""
        stream = self.settings.stream
        points = StallWatch(self, stream.stall_warning, stream.sync_slop, what="points")
        return StallWatch(self, stream.stall_warning), points

    def _stall(self) -> str:
        """Why no frames are labelled; empty while frames are labelled, or while nobody listens."""
        return _with_failure(self._watch.reason(), self._last_failure)

    def _points_stall(self) -> str:
        """The same for the points."""
        if self._depth_subscription is None:
            return ""
        return _with_failure(self._points_watch.reason(), self._last_points_failure)

    def _report(self) -> Report:
        values: dict[str, object] = {"state": self._state_label()}
        values |= {"weights_version": self._segmenter.info.version, "device": self._segmenter.device}
        values["runtime"] = self.settings.segmentation.runtime
        counts = self.counts.snapshot()
        values |= {name: counts.get(name, 0) for name in ("received", "labelled", "superseded", "without_listener")}
        values |= counts | {"time_jumps": self.time_jumps}
        values |= self._latency.summary("latency") | self._inference.summary("inference")
        if not self.running:
            return Report(DiagnosticStatus.OK, "not active", values)
        if reason := self._stall():
            return Report(DiagnosticStatus.WARN, reason, values)
        if problem := self._receiver.problem:
            return Report(DiagnosticStatus.WARN, problem, values)
        if reason := self._points_stall():
            return Report(DiagnosticStatus.WARN, reason, values)
        return Report(DiagnosticStatus.OK, "labelling" if self._outputs.wanted else "idle", values)


def _with_failure(reason: str, failure: str) -> str:
    return f"{reason}; last failure: {failure}" if reason and failure else reason


def main(args: Sequence[str] | None = None) -> int:
    """Entry point: ``python -m s4net_ros.segmentation_node --ros-args ...``."""
    return run(SegmentationNode, args)


if __name__ == "__main__":
    sys.exit(main())
