"""The node that maps: frames become a map that late listeners get whole, moves, is labelled again, saved and asked."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("s4net_ros.srv")

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from nav_msgs.msg import OccupancyGrid
from nav_msgs.msg import Path as PathMessage
from rclpy.parameter import Parameter
from robot import SECOND, Robot
from scenes import make_room_frames
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from s4net_core.config import Settings
from s4net_core.geometry.poses import quaternion_of
from s4net_core.labels import SUNRGBD37
from s4net_core.mapping.grid import BLOCKED, blocking, grid_of
from s4net_core.models.checkpoint import file_sha256, read_info
from s4net_core.models.segmenter import Segmenter
from s4net_ros.msg import ModelUpdate
from s4net_ros.qos import latched_qos
from s4net_ros.semantic_map_node import SemanticMapNode
from s4net_ros.srv import FindObjects, MapFile
from s4net_ros.weights import update_message

WALL, FLOOR, TABLE = 1, 2, 7
POINT = np.dtype([("x", "f4"), ("y", "f4"), ("z", "f4"), ("rgb", "u4"), ("label", "u4"), ("confidence", "f4")])


@pytest.fixture
def settings(tmp_path, make_checkpoint):
    settings = Settings()
    settings.checkpoint = str(make_checkpoint(TABLE))
    settings.state_dir = str(tmp_path)
    settings.keyframes.min_sharpness = 0.0
    settings.keyframes.min_translation = 0.1
    settings.map.period, settings.map.min_votes = 0.1, 1
    settings.stream.color_reliability = settings.stream.depth_reliability = "reliable"
    settings.stream.queue_depth = 50
    return settings


@pytest.fixture
def start(ros, settings):
    """`start()` -> node, robot, configured; the node is active, everything is connected."""
    settings.stream.stall_warning = 600.0  # a test that waits for something else shows no frames meanwhile

    def make(**parameters):
        robot = Robot(ros)
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = ros.add(SemanticMapNode(settings, context=ros.context, parameter_overrides=overrides))
        assert node.autostart()
        robot.ready()
        return SimpleNamespace(node=node, robot=robot, configured=node._configured)

    return make


@pytest.fixture(scope="module")
def room():
    return make_room_frames(20)


def show_all(ros, s, frames):
    """Show frames, and wait until their keyframes are in the map."""
    counts = s.configured.counts.snapshot
    before = sum(counts().values())
    for frame in frames:
        s.robot.show(frame)
    ros.wait_for(lambda: sum(counts().values()) == before + len(frames), "frames offered")
    mapped(ros, s)


def mapped(ros, s):
    """Wait until all keyframes have labels of the weights that serve, and are in the map."""
    ros.wait_for(lambda: s.configured._waiting() == 0, "labels")
    ros.wait_for(lambda: s.configured.map.keyframes == len(s.configured.keyframes) > 0, "the map")


def read(message: PointCloud2) -> np.ndarray:
    assert [field.name for field in message.fields] == list(POINT.names)
    assert [field.offset for field in message.fields] == [POINT.fields[name][1] for name in POINT.names]
    assert (message.height, message.point_step) == (1, POINT.itemsize)
    return np.frombuffer(bytes(message.data), POINT)


def newest(ros, s, received):
    """The newest message, once it is of the whole map."""
    ros.wait_for(lambda: received and received[-1].width == len(s.configured.map.points()), "the whole map")
    return received[-1]


def test_frames_become_a_map_that_a_late_listener_gets_whole(ros, start, room):
    s = start()
    show_all(ros, s, room)
    early = newest(ros, s, s.robot.listen(PointCloud2, "semantic_map/points", latched_qos()))
    points = s.configured.map.points()
    cloud = read(early)
    assert np.allclose(np.stack([cloud[axis] for axis in "xyz"], 1), points.xyz, atol=1e-5)
    assert (cloud["label"] == TABLE).all()
    assert (cloud["confidence"] == 1).all()
    assert np.array_equal(cloud["rgb"] & 255, points.color[:, 2])
    assert early.header.frame_id == "odom"
    grids = s.robot.listen(OccupancyGrid, "semantic_map/grid", latched_qos())
    ros.wait_for(lambda: grids and grids[-1].header == early.header, "the grid of the newest points")
    expected = grid_of(points, blocking(SUNRGBD37, Settings().map.passable)[0], Settings().map)
    assert np.array_equal(np.array(grids[-1].data).reshape(expected.cells.shape), expected.cells)
    assert BLOCKED in grids[-1].data
    info = grids[-1].info
    assert (info.width, info.height) == expected.cells.shape[::-1]
    assert (info.origin.position.x, info.origin.position.y) == pytest.approx(expected.corner)
    assert info.resolution == pytest.approx(0.05)
    assert grids[-1].header.frame_id == "odom"
    values = lambda: {pair.key: pair.value for pair in s.robot.level("semantic_map").values}  # noqa: E731
    ros.wait_for(lambda: values().get("voxels") == str(len(s.configured.map)), "diagnostics of the whole map")
    assert values()["new"] == values()["keyframes"] == values()["keyframes_in_map"]
    ros.wait_for(lambda: s.robot.level("semantic_map").level == DiagnosticStatus.OK, "a map that is well")


def test_a_bag_that_is_played_again_adds_no_voxel(ros, start, room):
    s = start()
    show_all(ros, s, room)
    before = len(s.configured.map), len(s.configured.keyframes)
    offered = sum(s.configured.counts.snapshot().values())
    s.robot.show(room[0])  # time goes back by 1.9 s
    ros.wait_for(lambda: not s.robot.tf.get_subscription_count(), "old listener gone")
    s.robot.show(room[6])  # 0.6 s later time has settled, and tf is listened to anew
    s.robot.ready()
    for frame in room[7:]:
        s.robot.show(frame)
    counts = s.configured.counts.snapshot
    ros.wait_for(lambda: sum(counts().values()) >= offered + len(room) - 7, "frames of the second round")
    mapped(ros, s)
    assert (len(s.configured.map), len(s.configured.keyframes)) == before


def test_new_weights_label_the_kept_keyframes_again(ros, start, room, make_checkpoint):
    s = start()
    show_all(ros, s, room)
    received = s.robot.listen(PointCloud2, "semantic_map/points", latched_qos())
    assert set(read(newest(ros, s, received))["label"]) == {TABLE}
    path = make_checkpoint(WALL, 1)
    publisher = s.robot.node.create_publisher(ModelUpdate, "model_update", latched_qos())
    publisher.publish(update_message(path, file_sha256(path), read_info(path), Time()))
    ros.wait_for(lambda: set(read(received[-1])["label"]) == {WALL}, "labels of the new weights")
    mapped(ros, s)


def test_corrected_poses_move_the_map_and_name_its_frame(ros, start, room):
    s = start(**{"stream.corrected_frame": room[0].frame_id})
    show_all(ros, s, room)
    before = s.configured.map.points()
    shift = np.eye(4)
    shift[:3, 3] = 1.0, -0.5, 0.0
    poses = []
    for frame in room:
        T = shift @ frame.T_world_camera
        x, y, z, w = quaternion_of(T)
        stamp = Time(sec=frame.stamp // SECOND, nanosec=frame.stamp % SECOND)
        pose = Pose(position=Point(**dict(zip("xyz", map(float, T[:3, 3]), strict=True))))
        pose.orientation = Quaternion(x=x, y=y, z=z, w=w)
        poses.append(PoseStamped(header=Header(stamp=stamp), pose=pose))
    publisher = s.robot.node.create_publisher(PathMessage, "pose_corrections", 10)
    ros.wait_for(publisher.get_subscription_count, "subscription")
    publisher.publish(PathMessage(header=Header(frame_id="map"), poses=poses))
    received = s.robot.listen(PointCloud2, "semantic_map/points", latched_qos())
    ros.wait_for(lambda: received and received[-1].header.frame_id == "map", "the moved map")
    mapped(ros, s)
    after = s.configured.map.points()
    assert after.xyz.mean(axis=0) - before.xyz.mean(axis=0) == pytest.approx(shift[:3, 3], abs=0.03)


def test_the_map_is_saved_loaded_and_asked(ros, start, room, tmp_path):
    s = start()
    for call in (
        s.robot.call(FindObjects, "semantic_map/find", class_name="Table"),
        s.robot.call(MapFile, "semantic_map/save", path="empty.npz"),
    ):
        assert call.success
    again = s.robot.call(MapFile, "semantic_map/save", path="empty.npz")
    assert not again.success
    assert f"the map is empty: {tmp_path}/empty.npz stays as it is" in again.message
    show_all(ros, s, room)
    answer = s.robot.call(MapFile, "semantic_map/save", path="maps/room.npz")
    assert answer.success, answer.message
    assert answer.message == f"{len(s.configured.map)} voxels written to {tmp_path}/maps/room.npz"
    points = s.configured.map.points()
    cloud = s.robot.call(MapFile, "semantic_map/save", path="room.ply")
    assert (cloud.success, cloud.message) == (True, f"{len(points)} voxels written to {tmp_path}/room.ply")
    assert (tmp_path / "room.ply").read_bytes().startswith(b"ply\n")
    other = s.robot.call(MapFile, "semantic_map/save", path="room.xyz")
    assert (other.success, (tmp_path / "room.xyz").exists()) == (False, False)
    assert "ends neither in .npz nor in .ply" in other.message
    found = s.robot.call(FindObjects, "semantic_map/find", class_name="Table")
    assert (found.success, found.message) == (True, "1 places of table")
    assert found.detections.header.frame_id == "odom"
    (detection,) = found.detections.detections
    low, high = points.xyz.min(axis=0), points.xyz.max(axis=0)
    center, size = detection.bbox.center.position, detection.bbox.size
    assert (center.x, center.y, center.z) == pytest.approx((low + high) / 2, abs=0.1)
    assert (size.x, size.y, size.z) == pytest.approx(high - low, abs=0.2)
    (result,) = detection.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == (str(TABLE), 1.0)
    nothing = s.robot.call(FindObjects, "semantic_map/find", class_name="wall")
    assert (nothing.success, nothing.message) == (True, "0 places of wall")
    unknown = s.robot.call(FindObjects, "semantic_map/find", class_name="zebra")
    assert not unknown.success
    assert "class 'zebra' is unknown: use one of wall, floor" in unknown.message
    for name in ("", "gone.npz", "~nouser/x.npz", "room.ply"):
        refused = s.robot.call(MapFile, "semantic_map/load", path=name)
        assert not refused.success
        assert name in refused.message
    assert len(s.configured.map) == len(points)
    loaded = s.robot.call(MapFile, "semantic_map/load", path="maps/room.npz")
    assert (loaded.success, loaded.message) == (True, f"{len(points)} voxels read from {tmp_path}/maps/room.npz")
    assert len(s.configured.keyframes) == 0
    again = s.configured.map.points()
    assert np.array_equal(again.xyz, points.xyz)
    assert np.array_equal(again.label, points.label)
    received = s.robot.listen(PointCloud2, "semantic_map/points", latched_qos())
    assert newest(ros, s, received).width == len(points)


def test_before_it_is_configured_and_when_the_map_is_full_it_says_so(ros, settings, start, room, capfd):
    s = start(**{"map.max_voxels": 1000, "map.passable": "floor, flor", "stream.stall_warning": 0.5})
    show_all(ros, s, room[:8])
    assert len(s.configured.map) == 1000
    level = ros.wait_for(lambda: (level := s.robot.level("semantic_map")).level == DiagnosticStatus.WARN and level)
    assert "the map is full" in level.message
    assert "raise map.max_voxels or map.voxel_size" in level.message
    told = ros.wait_for(lambda: "no frame for" in (text := s.robot.level("semantic_map").message) and text, "a stall")
    assert "the map is full" in told
    assert "map.passable names classes that the weights do not have: flor" in capfd.readouterr().err
    ros.on_executor(s.node.trigger_deactivate)
    ros.on_executor(s.node.trigger_cleanup)
    answer = s.robot.call(MapFile, "semantic_map/save", path="x.npz")
    assert (answer.success, answer.message) == (False, "the node is not configured")


def test_a_map_of_the_command_line_is_loaded(ros, start, room, settings, tmp_path):
    from s4net_core.mapping.offline import map_of

    offline = map_of(room, Segmenter(settings.checkpoint, "cpu", settings))
    offline.save(tmp_path / "offline.npz")
    s = start()
    assert s.robot.call(MapFile, "semantic_map/load", path="offline.npz").success
    show_all(ros, s, room)
    assert len(s.configured.map) == len(offline)
