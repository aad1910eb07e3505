"""A small graph for tests of the cockpit: a camera, the segmentation node, and a stand-in for the adaptation node."""

import itertools
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import Marker, MarkerArray

from s4net_core.models.checkpoint import file_sha256, read_info
from s4net_ros.cockpit_node import CockpitNode
from s4net_ros.conversions import image_message
from s4net_ros.msg import AdaptationStatus, ModelUpdate
from s4net_ros.qos import latched_qos
from s4net_ros.segmentation_node import SegmentationNode
from s4net_ros.srv import SaveModel
from s4net_ros.weights import update_message

HEIGHT, WIDTH = 45, 80
FIRST_PORT = 20_000 + 100 * int(os.environ["ROS_DOMAIN_ID"])
"""First of a hundred ports of this ROS domain, below those that the kernel gives to whoever asks for any."""
_ports = itertools.cycle(range(FIRST_PORT, FIRST_PORT + 100))


def free_port() -> int:
    """A free port that neither another of pytest's workers nor the kernel gives to anybody else meanwhile."""
    for port in itertools.islice(_ports, 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError(f"no port from {FIRST_PORT} to {FIRST_PORT + 99} is free")


def cockpit_node(ros: Any, **settings: Any) -> CockpitNode:
    """A cockpit on a free port, not active yet."""
    given = {"port": free_port(), "rate": 10.0, **settings}
    overrides = [Parameter(f"cockpit.{name}", value=value) for name, value in given.items()]
    return ros.add(CockpitNode(context=ros.context, parameter_overrides=overrides))


class Adaptation:
    """Says what an adaptation node would, ten times a second, and serves its services.

    Args:
        weights: announced as those that serve; None = no weights are announced.
    """

    def __init__(self, ros: Any, weights: Path | None = None) -> None:
        self.node, self._weights = ros.node("adaptation"), weights
        self.version, self.step, self.calls = 2, 0, []
        self._status = self.node.create_publisher(AdaptationStatus, "adaptation/status", QoSProfile(depth=5))
        self._update = self.node.create_publisher(ModelUpdate, "model_update", latched_qos())
        self._keyframes = self.node.create_publisher(MarkerArray, "adaptation/keyframes", latched_qos())
        for kind, name in ((SetBool, "pause"), (Trigger, "reset"), (Trigger, "rollback"), (SaveModel, "save_model")):
            answer = lambda request, response, name=name: self._answer(name, request, response)  # noqa: E731
            self.node.create_service(kind, f"~/{name}", answer)
        self.node.create_timer(0.1, self._tick)

    def _tick(self) -> None:
        self.step += 1
        self._status.publish(
            AdaptationStatus(
                state="learning",
                keyframes=2,
                step=self.step,
                loss=1.0 / self.step,
                version=self.version,
                score=float("nan"),
                drop_reasons=["no_pose"],
                drop_counts=[3],
            )
        )
        if self._weights:
            message = update_message(self._weights, file_sha256(self._weights), read_info(self._weights), Time())
            message.version = self.version
            self._update.publish(message)
        self._keyframes.publish(MarkerArray(markers=[frustum(1, 0.0), frustum(2, 2.5)]))

    def _answer(self, name: str, request: Any, response: Any) -> Any:
        self.calls.append((name, request))
        self.version -= name == "rollback"
        response.success, response.message = True, f"{name} is done"
        return response


class Camera:
    """Sends another picture every 0.1 s, bright squares that move."""

    def __init__(self, ros: Any) -> None:
        self.node = ros.node("camera")
        self.sent = 0
        self._publisher = self.node.create_publisher(Image, "color/image_raw", QoSProfile(depth=5))
        self.node.create_timer(0.1, self._tick)

    def _tick(self) -> None:
        self.sent += 1
        color = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        left = 4 * self.sent % (WIDTH - 20)
        color[10:30, left : left + 20] = (250, 200, 20)
        header = Header(frame_id="camera_color_optical_frame")
        header.stamp.sec, header.stamp.nanosec = divmod(self.sent * 100_000_000, 1_000_000_000)
        self._publisher.publish(image_message(color, "rgb8", header))


def segmentation_node(ros: Any, checkpoint: Path) -> SegmentationNode:
    """The real node, active, with a tiny network."""
    given = {"checkpoint": str(checkpoint), "model.width": 64, "model.height": 48, "device": "cpu", "threads": 1}
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = ros.add(SegmentationNode(context=ros.context, parameter_overrides=overrides))
    assert node.autostart()
    return node


def frustum(id: int, x: float, **values: Any) -> Marker:
    marker = Marker(ns="keyframes/frustum", id=id, **values)
    marker.pose.position.x = x
    marker.pose.orientation.w = 1.0
    return marker
