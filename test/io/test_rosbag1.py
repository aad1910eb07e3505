"""Bags of ROS 1: the same topics give the same frames as in a bag of ROS 2."""

import numpy as np
import pytest
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from scenes import make_room_frames

from s4net_core.config import StreamSettings
from s4net_core.errors import CaptureError
from s4net_core.geometry.poses import quaternion_of
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.rosbag import BagReader
from s4net_core.io.captures.scene_folder import SceneFolder, write_scene_folder
from s4net_core.io.captures.trajectory import UNKNOWN_POSES

COLOR, INFO, DEPTH = "/camera/rgb/image_color", "/camera/rgb/camera_info", "/camera/depth/image"
"""As in TUM's own bags."""
STORES = {kind: get_typestore(Stores.ROS1_NOETIC) for kind in ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")}
for kind, store in STORES.items():
    store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", kind))
TF2 = "tf2_msgs/msg/TFMessage"


@pytest.fixture(scope="module")
def frames():
    return make_room_frames(6, 40, 24)


def message(kind, **fields):
    package, _, name = kind.partition("/")
    return STORES[TF2].types[f"{package}/msg/{name}"](**fields)


def header(stamp, frame_id):
    time = message("builtin_interfaces/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
    return message("std_msgs/Header", seq=7, stamp=time, frame_id=frame_id)


def image(stamp, array, encoding):
    return message(
        "sensor_msgs/Image",
        header=header(stamp, "/openni_rgb_optical_frame"),
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=array.strides[0],
        data=array.view(np.uint8).ravel(),
    )


def camera_info(stamp, lens):
    return message(
        "sensor_msgs/CameraInfo",
        header=header(stamp, "/openni_rgb_optical_frame"),
        height=lens.height,
        width=lens.width,
        distortion_model="plumb_bob",
        D=np.array([0.01, 0, 0, 0, 0]),
        K=lens.matrix.ravel(),
        R=np.eye(3).ravel(),
        P=np.zeros(12),
        binning_x=0,
        binning_y=0,
        roi=message("sensor_msgs/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )


def transforms(stamp, T):
    x, y, z = T[:3, 3]
    qx, qy, qz, qw = quaternion_of(T)
    stamped = message(
        "geometry_msgs/TransformStamped",
        header=header(stamp, "/world"),
        child_frame_id="/openni_rgb_optical_frame",
        transform=message(
            "geometry_msgs/Transform",
            translation=message("geometry_msgs/Vector3", x=x, y=y, z=z),
            rotation=message("geometry_msgs/Quaternion", x=qx, y=qy, z=qz, w=qw),
        ),
    )
    return [stamped]


def record(path, frames, *, tf=TF2, compression=None, chunk=None):
    """As `rosbag record` writes it; ``chunk`` = a small size gives many chunks."""
    store = STORES[tf or TF2]
    writer = Writer(path)
    if compression:
        writer.set_compression(compression)
    with writer:
        if chunk:
            writer.chunk_threshold = chunk
        kinds = {COLOR: "sensor_msgs/msg/Image", INFO: "sensor_msgs/msg/CameraInfo", DEPTH: "sensor_msgs/msg/Image"}
        kinds |= {"/tf": tf} if tf else {}
        connections = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in kinds.items()}
        for frame in frames:
            depth = frame.depth.copy()
            depth[:2] = np.nan
            contents = {
                INFO: camera_info(frame.stamp, frame.intrinsics),
                COLOR: image(frame.stamp, frame.color[..., ::-1].copy(), "bgr8"),
                DEPTH: image(frame.stamp, depth, "32FC1"),
            }
            if tf:
                contents["/tf"] = store.types[tf](transforms=transforms(frame.stamp, frame.T_world_camera))
            for i, (topic, content) in enumerate(contents.items()):
                writer.write(connections[topic], frame.stamp + i, store.serialize_ros1(content, kinds[topic]))
    return path


@pytest.mark.parametrize("tf", list(STORES))
@pytest.mark.parametrize("compression", [None, Writer.CompressionFormat.BZ2, Writer.CompressionFormat.LZ4])
def test_frames_are_read_as_from_a_bag_of_ros_2(tmp_path, frames, tf, compression):
    path = record(tmp_path / "room.bag", frames, tf=tf, compression=compression)
    capture = open_capture(path, stream=StreamSettings(fixed_frame="world"))
    assert isinstance(capture, BagReader)
    assert (capture.topics.color, capture.topics.depth) == (COLOR, DEPTH)
    assert (capture.name, len(capture)) == ("room.bag", 6)
    for read, written in zip(capture, frames, strict=True):
        assert (read.stamp, read.frame_id) == (written.stamp, "openni_rgb_optical_frame")  # tf2 takes no leading slash
        assert np.array_equal(read.color, written.color)
        assert not read.depth[:2].any()
        np.testing.assert_array_equal(read.depth[2:], written.depth[2:])
        np.testing.assert_allclose(read.T_world_camera, written.T_world_camera, atol=1e-9)
        assert read.intrinsics.matrix.tolist() == written.intrinsics.matrix.tolist()
        assert read.intrinsics.distortion[0] == 0.01
    assert (capture.skipped, capture.damage) == ({}, "")


def test_a_bag_without_tf_needs_poses_from_elsewhere(tmp_path, frames):
    path = record(tmp_path / "room.bag", frames, tf=None)
    with pytest.raises(CaptureError, match=r"no poses .*s4net register.*Topics found: .*/camera/rgb/image_color"):
        open_capture(path)
    assert len(list(open_capture(path, poses=UNKNOWN_POSES))) == 6
    (tmp_path / "slam.txt").write_text("1.0 0 0 1 0 0 0 1\n1.1 0 0 1.5 0 0 0 1\n")
    assert [frame.T_world_camera[2, 3] for frame in open_capture(path, poses="slam.txt")] == [1, 1.5]


def test_the_fixed_frame_is_the_streams(tmp_path, frames):
    with pytest.raises(CaptureError, match=r"6 x no_pose: .*odom.*world"):
        list(open_capture(record(tmp_path / "room.bag", frames)))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.8])
def test_a_truncated_bag_is_an_error_with_the_remedy(tmp_path, frames, share):
    path = record(tmp_path / "room.bag", frames, chunk=5000)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CaptureError, match=r"room\.bag cannot be read: .*`rosbag reindex`"):
        open_capture(path)


def test_a_bag_that_was_never_closed_is_an_error_with_the_remedy(tmp_path, frames):
    """`rosbag record` that was killed: the header does not know where the index is."""
    path = record(tmp_path / "room.bag.active", frames, chunk=5000)
    content = bytearray(path.read_bytes())
    place = content.index(b"index_pos=") + len(b"index_pos=")
    content[place : place + 8] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=r"room\.bag\.active cannot be read: .*not indexed.*`rosbag reindex`"):
        open_capture(path)


def test_damage_in_the_middle_costs_frames_but_no_crash(tmp_path, frames):
    path = record(tmp_path / "room.bag", frames, chunk=5000, compression=Writer.CompressionFormat.BZ2)
    content = bytearray(path.read_bytes())
    middle = int(len(content) * 0.6)
    content[middle : middle + 50] = bytes(50)
    path.write_bytes(content)
    capture = BagReader(path, StreamSettings(fixed_frame="world"))
    read = list(capture)
    assert [frame.stamp for frame in read] == [frame.stamp for frame in frames[: len(read)]]
    assert 1 <= len(read) < 6
    assert capture.damage


def test_a_bag_becomes_a_scene_folder(tmp_path, frames):
    path = record(tmp_path / "room.bag", frames)
    capture = open_capture(path, stream=StreamSettings(fixed_frame="world"), stride=2)
    assert write_scene_folder(tmp_path / "room", capture, quality=100) == 3
    assert np.array_equal(SceneFolder(tmp_path / "room")[1].color, frames[2].color)
