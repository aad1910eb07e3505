"""Outputs of the adaptation node: weights, status, and keyframes for RViz."""

import time

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from visualization_msgs.msg import MarkerArray

from s4net_core.learning.versions import Version
from s4net_ros.adaptation.keyframe_markers import KeyframeMarkers
from s4net_ros.msg import AdaptationStatus, ModelUpdate
from s4net_ros.qos import OUTPUT_DEPTH, latched_qos
from s4net_ros.weights import update_message


class AdaptationOutputs:
    """Topics ``model_update``, ``adaptation/status`` and ``adaptation/keyframes``.

    Args:
        node: publishes status and keyframes only while it is active.
        markers: makes the messages of ``adaptation/keyframes``.
    """

    def __init__(self, node: LifecycleNode, markers: KeyframeMarkers) -> None:
        self._node = node
        self._markers = markers
        self._listeners = 0
        self._announced = ""
        make = node.create_lifecycle_publisher
        # No lifecycle publisher: a reset, or a step that ends late, replaces weights while the node is inactive too.
        self._updates = node.create_publisher(ModelUpdate, "model_update", latched_qos())
        self._status = make(AdaptationStatus, "adaptation/status", QoSProfile(depth=OUTPUT_DEPTH))
        latched = QoSProfile(depth=OUTPUT_DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._keyframes = make(MarkerArray, "adaptation/keyframes", latched)

    def announce(self, version: Version) -> None:
        """Publish which weights serve; latched, so that a node that starts later gets the message too."""
        stamp = self._node.get_clock().now().to_msg()
        message = update_message(version.path, version.sha256, version.info, stamp)
        message.version = version.number
        self._updates.publish(message)
        self._announced = version.sha256

    def announce_if_new(self, version: Version) -> None:
        """`announce` unless these weights were the last that were announced."""
        if version.sha256 != self._announced:
            self.announce(version)

    def publish_status(self, message: AdaptationStatus) -> None:
        """Publish the status."""
        self._status.publish(message)

    def publish_keyframes(self) -> None:
        """Bring listeners up to date; a new listener gets everything. Without listeners no message is made."""
        listeners = self._keyframes.get_subscription_count()
        newcomer, self._listeners = listeners > self._listeners, listeners
        if not listeners:
            return
        for message in self._markers.messages(time.monotonic(), newcomer=newcomer):
            self._keyframes.publish(message)

    def destroy(self) -> None:
        """End all topics."""
        self._node.destroy_publisher(self._updates)
        for publisher in (self._status, self._keyframes):
            self._node.destroy_lifecycle_publisher(publisher)
