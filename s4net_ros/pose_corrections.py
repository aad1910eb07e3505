"""Topic ``pose_corrections``: a pose graph's corrected trajectory moves the keyframes, e.g. rtabmap's ``mapGraph``."""

from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import Pose
from nav_msgs.msg import Path
from numpy.typing import NDArray
from rclpy.node import Node

from s4net_core.config import StreamSettings
from s4net_core.errors import BadFrame, S4NetError
from s4net_core.frames import check_pose
from s4net_core.geometry.poses import pose_matrix
from s4net_core.keyframes import KeyframeBuffer
from s4net_ros.pose_graph import GraphPoses, map_graph, poses_of_path
from s4net_ros.qos import OUTPUT_DEPTH
from s4net_ros.worker import Worker, for_log, stop_or_warn

LookUp = Callable[[str, str], NDArray[np.float64]]
"""Names of two frames -> newest transform (4, 4) that maps coordinates of the second to the first; raises BadFrame."""
TOPIC = "pose_corrections"
LOG_AGAIN_S = 10.0
"""Seconds between two log lines about messages that cannot be used."""
Corrections = tuple[Any, dict[int, Pose]]
"""A message of ``pose_corrections``, and its poses by stamp, nanoseconds."""


class PoseCorrections:
    """Subscribes to ``pose_corrections`` and moves the keyframes, on a thread of its own; the newest message counts.

    Args:
        node: makes the subscription, and logs.
        keyframes: what is moved.
        stream: `fixed_frame`, `corrected_frame` whose poses the messages hold, and `corrections`, their type.
        look_up: gives the place of the camera in `corrected_frame`.

    Raises:
        SettingsError: the type of the messages is not installed.
    """

    def __init__(
        self,
        node: Node,
        keyframes: KeyframeBuffer,
        stream: StreamSettings,
        look_up: LookUp,
    ) -> None:
        self._node = node
        self._keyframes = keyframes
        self._stream = stream
        self._look_up = look_up
        of_graphs = stream.corrections == "map_graph"
        kind = map_graph() if of_graphs else Path
        self._poses_of: Callable[[Any], dict[int, Pose]] = GraphPoses() if of_graphs else poses_of_path
        self._worker: Worker[Corrections] = Worker(TOPIC, self._apply, self._failed)
        self._subscription = node.create_subscription(kind, TOPIC, self._receive, OUTPUT_DEPTH)

    def destroy(self) -> None:
        """End the subscription and the thread."""
        self._node.destroy_subscription(self._subscription)
        stop_or_warn(TOPIC, self._worker, self._node.get_logger())

    def _receive(self, message: Any) -> None:
        """On the executor's thread, which sees all messages: the stamps of a graph's nodes follow from each of them."""
        try:
            self._worker.put((message, self._poses_of(message)))
        except S4NetError as error:
            self._failed((message, {}), error)

    def _apply(self, corrections: Corrections) -> None:
        message, stamped = corrections
        newest = self._keyframes.newest
        if newest is None or not stamped:
            return
        T_corrected_camera = self._look_up(self._stream.corrected_frame, newest.frame_id)
        poses, unusable = dict[int, NDArray[np.float64]](), list[BadFrame]()
        for stamp, pose in stamped.items():
            try:
                poses[stamp] = _matrix(pose) @ T_corrected_camera
            except BadFrame as error:
                unusable.append(error)
        if unusable:
            self._tell(f"{len(unusable)} of {len(stamped)}", unusable[-1])
        # In another frame than the stream's, e.g. map instead of odom, views to come have to be moved as well.
        frame = message.header.frame_id.removeprefix("/")
        other = "" if frame == self._stream.fixed_frame.removeprefix("/") else frame
        if poses and (moved := self._keyframes.move(poses, frame=other)):
            self._node.get_logger().info(f"{moved} keyframes moved to the corrected poses of {TOPIC}")

    def _failed(self, corrections: Corrections, error: Exception) -> None:
        self._tell(str(len(corrections[0].poses)), error)

    def _tell(self, how_many: str, error: Exception) -> None:
        text = f"{how_many} poses of {TOPIC} are not used: {for_log(error)}"
        self._node.get_logger().error(text, throttle_duration_sec=LOG_AGAIN_S)


def _matrix(pose: object) -> NDArray[np.float64]:
    """geometry_msgs/Pose -> (4, 4); raises BadFrame for what is nowhere, as NaN or a zero quaternion."""
    position, q = pose.position, pose.orientation  # type: ignore[attr-defined]
    T = pose_matrix((position.x, position.y, position.z), (q.x, q.y, q.z, q.w))
    check_pose(T)
    return T
