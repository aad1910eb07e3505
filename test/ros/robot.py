"""A robot for the tests of nodes that need poses: its camera, its tf, and ears for what they publish."""

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from s4net_ros.conversions import camera_info_message, image_message, transform_message
from s4net_ros.msg import AdaptationStatus as StatusMessage
from s4net_ros.msg import ModelUpdate
from s4net_ros.qos import latched_qos, stream_qos

QOS = stream_qos("reliable", 50)
SECOND = 1_000_000_000


class Robot:
    """Publishes camera and tf as a robot does, and records what the node publishes."""

    def __init__(self, ros):
        self.ros = ros
        self.node = ros.node("robot")
        make = self.node.create_publisher
        self.color = make(Image, "color/image_raw", QOS)
        self.depth = make(Image, "depth/image_raw", QOS)
        self.info = make(CameraInfo, "color/camera_info", QOS)
        self.tf = make(TFMessage, "/tf", 100)
        self.status = self.listen(StatusMessage, "adaptation/status")
        self.updates = self.listen(ModelUpdate, "model_update", latched_qos())
        self.diagnostics = self.listen(DiagnosticArray, "/diagnostics")

    def listen(self, kind, topic, qos=10):
        received = []
        self.node.create_subscription(kind, topic, received.append, qos)
        return received

    def ready(self, *, with_depth=True):
        for publisher in (self.color, self.info, self.tf, *([self.depth] if with_depth else [])):
            self.ros.wait_for(publisher.get_subscription_count, f"subscription of {publisher.topic_name}")

    def show(self, frame, *, pose=True, depth=None):
        header = Header(frame_id=frame.frame_id)
        header.stamp.sec, header.stamp.nanosec = divmod(frame.stamp, SECOND)
        if pose:
            world = Header(stamp=header.stamp, frame_id="odom")
            self.tf.publish(TFMessage(transforms=[transform_message(frame.T_world_camera, world, frame.frame_id)]))
        self.info.publish(camera_info_message(frame.intrinsics, header))
        if frame.depth is not None:
            depth = np.round(frame.depth * 1000).astype(np.uint16) if depth is None else depth
            self.depth.publish(image_message(depth, "16UC1", header))
        self.color.publish(image_message(frame.color, "rgb8", header))

    def call(self, kind, name, **request):
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(60)
        future = client.call_async(kind.Request(**request))
        self.ros.wait_for(future.done, f"answer of {name}")
        return future.result()

    def wait_for_status(self, condition, what=""):
        return self.ros.wait_for(lambda: next((m for m in reversed(self.status) if condition(m)), None), what)

    def level(self, node="adaptation"):
        own = [s for array in self.diagnostics for s in array.status if s.name.startswith(node)]
        return own[-1] if own else DiagnosticStatus(level=DiagnosticStatus.STALE)
