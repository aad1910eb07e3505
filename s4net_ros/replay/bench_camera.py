"""The camera of the benches with nodes: it publishes one picture again and again, and notes when masks come back."""

import time
from collections.abc import Callable

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.node import Node
from rich.console import Console
from rich.progress import track
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from s4net_core.bench.camera import LENS, RATE
from s4net_core.errors import S4NetError
from s4net_core.files import share_file
from s4net_core.geometry.camera import resize_color
from s4net_core.io.bags.messages import stamp_ns
from s4net_core.io.images.files import read_color
from s4net_ros.conversions import camera_info_message, image_message, transform_message
from s4net_ros.graph import NodeSpec
from s4net_ros.msg import AdaptationStatus
from s4net_ros.qos import stream_qos
from s4net_ros.replay.processes import Children

DISTANCE = 2.0
"""Of the wall along which the robot drives, metres."""
QUEUE = 10
"""Depth of all topics."""
FRAME, FIXED = "camera_color_optical_frame", "odom"


def demo_picture() -> NDArray[np.uint8]:
    """What the segmenter and the cameras of the benches see: (H, W, 3) uint8 RGB.

    Raises:
        S4NetError: the demo was not installed.
    """
    return read_color(share_file("demo", "scan2", "color", "000005.jpg"))


class Camera(Node):
    """A camera of `LENS` on a robot that drives along a wall or stands still.

    Args:
        spec: of one of the nodes that take its images; all have the same topics.
        posed: publish depth that is aligned to colour, and tf, too.

    Raises:
        S4NetError: the demo, whose picture it shows, was not installed.
    """

    def __init__(self, spec: NodeSpec, *, posed: bool) -> None:
        super().__init__("bench_camera")
        self.published = 0
        """Frames so far."""
        self.latencies: list[float] = []
        """Seconds from colour to mask."""
        self.status = AdaptationStatus()
        """What the adaptation node said last."""
        self.diagnostics: dict[str, str] = {}
        """What a node last said in /diagnostics."""
        color = resize_color(demo_picture(), LENS.width, LENS.height)
        depth = np.full(color.shape[:2], round(DISTANCE * 1e3), np.uint16)
        header = Header(frame_id=FRAME)
        messages = {
            spec.topic("color/image_raw"): image_message(color, "rgb8", header),
            **({spec.topic("depth/image_raw"): image_message(depth, "16UC1", header)} if posed else {}),
            spec.topic("color/camera_info"): camera_info_message(LENS, header),
        }
        self.topics = list(messages)
        """Colour, depth if it is published, and camera_info."""
        qos = stream_qos("reliable", QUEUE)
        self._outputs = [(self.create_publisher(type(one), topic, qos), one) for topic, one in messages.items()]
        self._tf = self.create_publisher(TFMessage, "/tf", QUEUE) if posed else None
        self._T_world_camera = np.eye(4)
        self._sent: dict[int, float] = {}
        self.create_subscription(Image, spec.topic("segmentation/mask"), self._answered, qos)
        self.create_subscription(AdaptationStatus, spec.topic("adaptation/status"), self._heard, QUEUE)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._diagnosed, QUEUE)

    @property
    def subscribers(self) -> int:
        """Programs that have subscribed to everything."""
        outputs = [output for output, _ in self._outputs]
        return min(output.get_subscription_count() for output in [*outputs, *([self._tf] if self._tf else [])])

    def publish(self) -> None:
        """Publish one frame."""
        now = self.get_clock().now()
        stamp = now.to_msg()
        if self._tf is not None:
            header = Header(frame_id=FIXED, stamp=stamp)
            self._tf.publish(TFMessage(transforms=[transform_message(self._T_world_camera, header, FRAME)]))
        self._sent[now.nanoseconds] = time.perf_counter()
        for output, message in self._outputs:
            message.header.stamp = stamp
            output.publish(message)
        self.published += 1

    def wait(self, seconds: float) -> None:
        """Take what arrives meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=left)

    def stream(self, frames: int, rate: int = RATE, speed: float = 0.0) -> None:
        """Publish so many frames, `rate` a second, while the robot drives with `speed`, metres a second."""
        due = time.monotonic()
        for _ in track(range(frames), "frames", console=Console(stderr=True), transient=True):
            due = max(due + 1 / rate, time.monotonic())  # a busy machine slows the camera down
            self.wait(due - time.monotonic())
            self._T_world_camera[0, 3] += speed / rate
            self.publish()

    def publish_until(
        self, ready: Callable[[], bool], children: Children, seconds: float, period: float = 1 / RATE
    ) -> None:
        """Publish a frame every `period` seconds until `ready`.

        Raises:
            S4NetError: a node has died, or `ready` is still false after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self.publish()
            self.wait(period)
            children.check()
            if time.monotonic() > deadline:
                logs = "\n".join(f"{child.name}: {child.tail()}" for child in children)
                raise S4NetError(
                    f"{len(self.latencies)} masks and {self.status.step} steps after {seconds:.0f} s; the logs end "
                    f"with:\n{logs}"
                )

    def forget(self) -> None:
        """Count no mask of a frame that was published before."""
        self.latencies.clear()
        self._sent.clear()

    def _answered(self, mask: Image) -> None:
        if (sent := self._sent.pop(stamp_ns(mask.header), 0.0)) > 0:
            self.latencies.append(time.perf_counter() - sent)

    def _heard(self, status: AdaptationStatus) -> None:
        self.status = status

    def _diagnosed(self, message: DiagnosticArray) -> None:
        self.diagnostics = {pair.key: pair.value for status in message.status for pair in status.values}
