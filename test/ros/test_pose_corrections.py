"""A path or a graph of corrected poses moves the keyframes of the node."""

import sys
import time
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
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
from s4net_core.errors import BadFrame, SettingsError
from s4net_core.frames import Frame
from s4net_core.geometry.poses import inverse, quaternion_of
from s4net_core.keyframes import KeyframeBuffer
from s4net_ros import pose_graph
from s4net_ros.pose_corrections import PoseCorrections
from s4net_ros.pose_graph import GraphPoses

T_BASE_CAMERA = np.array([[0.0, 0, 1, 0.3], [-1, 0, 0, 0.1], [0, -1, 0, 0.5], [0, 0, 0, 1]])
"""A camera that looks forward from a base whose x axis is forward."""
SHIFT = np.eye(4)
SHIFT[:3, 3] = (0.5, -0.2, 0.0)


class MapGraph(SimpleNamespace):
    """Stands in for rtabmap_msgs/MapGraph: header, poses_id, poses, and more that is not used."""


class Node:
    """Takes the subscription and hands messages to it."""

    def create_subscription(self, kind: type, topic: str, callback: Any, qos: Any) -> str:
        assert (kind, topic) == (self.expected, "pose_corrections")
        self.deliver = callback
        return topic

    def __init__(self, expected: type = Path) -> None:
        self.expected = expected

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


def base_pose(frame: Frame, correction: np.ndarray = SHIFT) -> Pose:
    """Corrected pose of the base."""
    T = correction @ frame.T_world_camera @ inverse(T_BASE_CAMERA)
    x, y, z, w = quaternion_of(T)
    position = Point(**dict(zip("xyz", map(float, T[:3, 3]), strict=True)))
    return Pose(position=position, orientation=Quaternion(x=x, y=y, z=z, w=w))


def header_of(stamp: int, frame_id: str = "") -> Header:
    return Header(stamp=Time(sec=stamp // 10**9, nanosec=stamp % 10**9), frame_id=frame_id)


def path_of(frames, frame_id: str) -> Path:
    """The base's poses, shifted."""
    poses = [PoseStamped(header=header_of(frame.stamp), pose=base_pose(frame)) for frame in frames]
    return Path(header=Header(frame_id=frame_id), poses=poses)


def graph(stamp: int, nodes: dict[int, Pose]) -> MapGraph:
    return MapGraph(header=header_of(stamp, "map"), poses_id=list(nodes), poses=list(nodes.values()))


def wait_for_text(capfd, text: str) -> str:
    """What was said until the text came; all of it if the text did not come."""
    end, said = time.monotonic() + 60, ""
    while text not in said and time.monotonic() < end:
        said += capfd.readouterr().err
        time.sleep(0.01)
    return said


def applied(keyframes, messages: Sequence[Any], stream: StreamSettings) -> None:
    """Let the corrections take messages, and wait until the last one has been used."""
    node = Node(type(messages[-1]))
    corrections = PoseCorrections(node, keyframes, stream, look_up)
    before = [keyframes.get(id).key for id in keyframes.ids()]
    for message in messages:
        node.deliver(message)
    end = time.monotonic() + 60
    while [keyframes.get(id).key for id in keyframes.ids()] == before and time.monotonic() < end:
        time.sleep(0.01)
    corrections.destroy()


@pytest.mark.parametrize(("frame_id", "follows"), [("map", True), ("odom", False)])
def test_a_path_of_the_base_moves_the_cameras(frames, keyframes, frame_id, follows):
    before = {id: keyframes.get(id).T_world_camera for id in keyframes.ids()}
    applied(keyframes, [path_of(frames[:12:4], frame_id)], StreamSettings())
    for id, T in before.items():
        np.testing.assert_allclose(keyframes.get(id).T_world_camera, SHIFT @ T, atol=1e-6)
    new = keyframes.offer(frames[18]).id
    expected = SHIFT @ frames[18].T_world_camera if follows else frames[18].T_world_camera
    np.testing.assert_allclose(keyframes.get(new).T_world_camera, expected, atol=1e-6)


def test_a_path_that_cannot_be_used_is_reported_and_the_next_one_is_used(frames, keyframes, capfd):
    node = Node()
    corrections = PoseCorrections(node, keyframes, StreamSettings(corrected_frame="nowhere"), look_up)
    node.deliver(path_of(frames, "map"))
    said = wait_for_text(capfd, "not used")
    corrections.destroy()
    assert "20 poses of pose_corrections are not used: no transform to nowhere" in said
    applied(keyframes, [path_of(frames, "map")], StreamSettings())
    assert keyframes.newest.revision == 1


@pytest.mark.parametrize(("x", "said"), [(float("nan"), "is tracking lost?"), (1e9, "that is nowhere on Earth")])
def test_a_pose_that_is_nowhere_is_left_out_and_the_others_of_its_path_are_used(frames, keyframes, capfd, x, said):
    path = path_of(frames, "map")
    path.poses[0].pose.position.x = x
    applied(keyframes, [path], StreamSettings())
    assert "1 of 20 poses of pose_corrections are not used" in (err := capfd.readouterr().err)
    assert said in err
    assert keyframes.newest.revision == 1


def test_without_keyframes_nothing_happens(frames):
    node = Node()
    keyframes = KeyframeBuffer(KeyframeSettings(), GeometrySettings(), min_overlap=0.25)
    corrections = PoseCorrections(node, keyframes, StreamSettings(), look_up)
    node.deliver(path_of(frames, "map"))
    corrections.destroy()
    assert keyframes.newest is None


def test_a_path_whose_poses_all_have_one_stamp_is_refused(frames, keyframes, capfd):
    """As rtabmap publishes its mapPath: nobody can tell which view a pose belongs to."""
    path = path_of(frames, "map")
    for one in path.poses:
        one.header.stamp = path.poses[-1].header.stamp
    node = Node()
    corrections = PoseCorrections(node, keyframes, StreamSettings(), look_up)
    node.deliver(path)
    said = wait_for_text(capfd, "not used")
    corrections.destroy()
    assert "20 poses of pose_corrections are not used: all of them have the same stamp" in said
    assert "set stream.corrections to map_graph" in said
    assert keyframes.newest.revision == 0


@pytest.fixture
def rtabmap_msgs(monkeypatch):
    module = ModuleType("rtabmap_msgs.msg")
    module.MapGraph = MapGraph
    monkeypatch.setitem(sys.modules, "rtabmap_msgs", ModuleType("rtabmap_msgs"))
    monkeypatch.setitem(sys.modules, "rtabmap_msgs.msg", module)


@pytest.mark.usefixtures("rtabmap_msgs")
def test_a_graph_moves_the_keyframes_like_a_path_of_its_nodes(frames, keyframes):
    """Nodes without stamps: a graph comes after each image that made one, the last one after a loop is closed."""
    nodes = dict(zip([1, 4, 5, 9, 12], frames[:10:2], strict=True))
    turn = np.eye(4)
    turn[:2, :2] = [[0.999, -0.0447], [0.0447, 0.999]]
    corrected = {id: base_pose(frame, SHIFT if id < 9 else turn @ SHIFT) for id, frame in nodes.items()}
    graphs = []
    for id, frame in nodes.items():
        so_far = {other: base_pose(nodes[other], np.eye(4)) for other in nodes if other <= id}
        graphs.append(graph(frame.stamp, {-7: Pose(), **so_far}))  # a landmark
    graphs.append(graph(frames[11].stamp, corrected))  # the robot stands still: no new node
    expected = KeyframeBuffer(
        KeyframeSettings(min_sharpness=0.0, min_translation=0.1), GeometrySettings(), min_overlap=0.25
    )
    for frame in frames[:12]:
        expected.offer(frame)
    stamped = [PoseStamped(header=header_of(nodes[id].stamp), pose=corrected[id]) for id in nodes if id > 1]
    applied(expected, [Path(header=Header(frame_id="map"), poses=stamped)], StreamSettings())
    applied(keyframes, graphs, StreamSettings(corrections="map_graph"))
    assert keyframes.newest.revision == 1
    for id in expected.ids():
        np.testing.assert_allclose(keyframes.get(id).T_world_camera, expected.get(id).T_world_camera, atol=1e-9)


def stamps_of(poses_of: GraphPoses, stamp: int, ids: list[int]) -> dict[int, int]:
    """Id of the node by the stamp that it gets."""
    nodes = {id: Pose(position=Point(x=float(id))) for id in ids}
    return {stamp: round(pose.position.x) for stamp, pose in poses_of(graph(stamp, nodes)).items()}


def test_the_largest_new_id_of_a_graph_has_the_stamp_of_the_message():
    poses_of = GraphPoses()
    assert stamps_of(poses_of, 100, [-3, 1, 2]) == {}  # nobody knows when
    assert stamps_of(poses_of, 200, [-3, 1, 2, 5]) == {200: 5}
    assert stamps_of(poses_of, 300, [1, 2, 5]) == {200: 5}  # nothing new
    assert stamps_of(poses_of, 400, [1, 2, 3, 5, 6, 8]) == {200: 5, 400: 8}  # 6: an image that gave no message
    assert stamps_of(poses_of, 500, [2, 8]) == {400: 8}
    assert stamps_of(poses_of, 600, [1]) == {}  # a new map
    assert stamps_of(poses_of, 700, [1, 5]) == {700: 5}


def test_stamps_of_nodes_do_not_grow_with_time(monkeypatch):
    monkeypatch.setattr(pose_graph, "MOST_NODES", 2)
    poses_of = GraphPoses()
    for id in range(1, 6):
        stamps = stamps_of(poses_of, 100 * id, list(range(1, id + 1)))
    assert stamps == {400: 4, 500: 5}


def test_a_graph_with_more_poses_than_ids_is_reported(rtabmap_msgs, keyframes, capfd):
    node = Node(MapGraph)
    corrections = PoseCorrections(node, keyframes, StreamSettings(corrections="map_graph"), look_up)
    node.deliver(MapGraph(header=header_of(1, "map"), poses_id=[1], poses=[Pose(), Pose()]))
    said = wait_for_text(capfd, "not used")
    corrections.destroy()
    assert "2 poses of pose_corrections are not used: there are 1 ids for them" in said


def test_without_rtabmap_msgs_the_setting_is_refused(monkeypatch, keyframes):
    monkeypatch.setitem(sys.modules, "rtabmap_msgs", None)
    with pytest.raises(SettingsError, match=r"rtabmap_msgs cannot be imported .*rtabmap-msgs.* stream.corrections"):
        PoseCorrections(Node(MapGraph), keyframes, StreamSettings(corrections="map_graph"), look_up)
