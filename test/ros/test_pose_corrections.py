"""A path of corrected poses moves the keyframes of the node."""

import time
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("nav_msgs.msg")

import numpy as np
import rclpy.logging
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from nav_msgs.msg import Path
from scenes import make_room_frames
from std_msgs.msg import Header

from s4net_core.config import GeometrySettings, KeyframeSettings, StreamSettings
from s4net_core.errors import BadFrame
from s4net_core.geometry.poses import inverse, quaternion_of
from s4net_core.keyframes import KeyframeBuffer
from s4net_ros.pose_corrections import PoseCorrections

T_BASE_CAMERA = np.array([[0.0, 0, 1, 0.3], [-1, 0, 0, 0.1], [0, -1, 0, 0.5], [0, 0, 0, 1]])
"""A camera that looks forward from a base whose x axis is forward."""
SHIFT = np.eye(4)
SHIFT[:3, 3] = (0.5, -0.2, 0.0)


class Node:
    """Takes the subscription and hands messages to it."""

    def create_subscription(self, kind: type, topic: str, callback: Any, qos: Any) -> str:
        assert (kind, topic) == (Path, "pose_corrections")
        self.deliver = callback
        return topic

    def destroy_subscription(self, subscription: str) -> None:
        assert subscription == "pose_corrections"

    def get_logger(self) -> Any:
        return rclpy.logging.get_logger("corrections")


def look_up(target: str, source: str) -> np.ndarray:
    if target != "base_link":
        raise BadFrame("no_pose", f"no transform to {target}")
    return T_BASE_CAMERA


@pytest.fixture
def frames():
    return make_room_frames(20)


@pytest.fixture
def keyframes(frames):
    settings = KeyframeSettings(min_sharpness=0.0, min_translation=0.1)
    buffer = KeyframeBuffer(settings, GeometrySettings(), min_overlap=0.25)
    for frame in frames[:12]:
        buffer.offer(frame)
    return buffer


def path_of(frames, frame_id: str) -> Path:
    """The base's poses, shifted."""
    poses = []
    for frame in frames:
        T = SHIFT @ frame.T_world_camera @ inverse(T_BASE_CAMERA)
        x, y, z, w = quaternion_of(T)
        position = Point(**dict(zip("xyz", map(float, T[:3, 3]), strict=True)))
        stamp = Time(sec=frame.stamp // 10**9, nanosec=frame.stamp % 10**9)
        pose = Pose(position=position, orientation=Quaternion(x=x, y=y, z=z, w=w))
        poses.append(PoseStamped(header=Header(stamp=stamp), pose=pose))
    return Path(header=Header(frame_id=frame_id), poses=poses)


def applied(keyframes, path: Path, stream: StreamSettings) -> None:
    """Let the corrections take a path, and wait until it has been used."""
    node = Node()
    corrections = PoseCorrections(node, keyframes, stream, look_up)
    before = [keyframes.get(id).key for id in keyframes.ids()]
    node.deliver(path)
    end = time.monotonic() + 60
    while [keyframes.get(id).key for id in keyframes.ids()] == before and time.monotonic() < end:
        time.sleep(0.01)
    corrections.destroy()


@pytest.mark.parametrize(("frame_id", "follows"), [("map", True), ("odom", False)])
def test_a_path_of_the_base_moves_the_cameras(frames, keyframes, frame_id, follows):
    before = {id: keyframes.get(id).T_world_camera for id in keyframes.ids()}
    applied(keyframes, path_of(frames[:12:4], frame_id), StreamSettings())
    for id, T in before.items():
        np.testing.assert_allclose(keyframes.get(id).T_world_camera, SHIFT @ T, atol=1e-6)
    new = keyframes.offer(frames[18]).id
    expected = SHIFT @ frames[18].T_world_camera if follows else frames[18].T_world_camera
    np.testing.assert_allclose(keyframes.get(new).T_world_camera, expected, atol=1e-6)


def test_a_path_that_cannot_be_used_is_reported_and_the_next_one_is_used(frames, keyframes, capfd):
    node = Node()
    corrections = PoseCorrections(node, keyframes, StreamSettings(corrected_frame="nowhere"), look_up)
    node.deliver(path_of(frames, "map"))
    end, said = time.monotonic() + 60, ""
    while "not used" not in said and time.monotonic() < end:
        said += capfd.readouterr().err
        time.sleep(0.01)
    corrections.destroy()
    assert "20 poses of pose_corrections are not used: no transform to nowhere" in said
    applied(keyframes, path_of(frames, "map"), StreamSettings())
    assert keyframes.newest.revision == 1


def test_without_keyframes_nothing_happens(frames):
    node = Node()
    keyframes = KeyframeBuffer(KeyframeSettings(), GeometrySettings(), min_overlap=0.25)
    corrections = PoseCorrections(node, keyframes, StreamSettings(), look_up)
    node.deliver(path_of(frames, "map"))
    corrections.destroy()
    assert keyframes.newest is None
